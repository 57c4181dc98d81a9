package fill

import "fmt"

// Page is a page that a person may open.
type Page struct{ Name, Path string }

// Pages are all pages that rows fill, each for the first project and its newest
// build, which is a hotfix that waits.
func (s Size) Pages() []Page {
	p, n := Project(0), int64(s.Builds)
	at := func(format string, args ...any) string { return "/" + p + fmt.Sprintf(format, args...) }
	return []Page{
		{"home", "/"},
		{"home, search", "/?q=shop-0"},
		{"project", "/" + p},
		{"project, 200 stations", at("?map=200")},
		{"project, hotfix lane", at("?lane=hotfix")},
		{"build", at("/%d", n)},
		{"build in production", at("/%d", n-int64(s.Open))},
		{"log", at("/%d/log/job/job0", n)},
		{"log, a line", at("/%d/log/job/job0?line=2", n)},
		{"log, search", at("/%d/log/job/job0?q=line", n)},
		{"gate", "/a/" + Gate(p, n, "production")},
		{"gate, decided", "/a/" + Gate(p, n-int64(s.Open), "production")},
		{"compare", at("/compare?to=%d", n)},
		{"timeline", at("/timeline")},
		{"artifacts", at("/artifacts")},
		{"hotfixes", at("/hotfixes")},
		{"environments", at("/environments")},
		{"back-merges", at("/back-merges")},
		{"audit", at("/audit")},
		{"settings", at("/settings")},
		{"badge", "/badge" + at("/production.svg")},
		{"cc.xml", "/badge" + at("/cc.xml")},
		{"atom", "/badge" + at("/deployments.atom")},
		{"calendar", "/badge" + at("/deployments.ics")},
		{"api projects", "/api/v1/projects"},
		{"api build", "/api/v1/projects" + at("/builds/%d", n)},
	}
}
