package e2e

import (
	"context"
	"net/http"
	"strings"
	"syscall"
	"testing"

	"github.com/shuntcd/shunt/internal/api"
	"github.com/shuntcd/shunt/internal/auth"
)

// webhook posts one and returns the status. headers are pairs.
func (w *world) webhook(project, body string, headers ...string) int {
	w.Helper()
	req, err := http.NewRequestWithContext(context.Background(), http.MethodPost, w.url+"/hooks/"+project, strings.NewReader(body))
	w.must(err)
	for i := 0; i < len(headers); i += 2 {
		req.Header.Add(headers[i], headers[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	w.must(err)
	defer resp.Body.Close()
	return resp.StatusCode
}

// deliver posts a rightly signed webhook, as GitHub would.
func (w *world) deliver(id, body string) {
	w.Helper()
	if got := w.webhook(w.project, body, "X-Hub-Signature-256", auth.SignWebhook(w.secret, []byte(body)), "X-GitHub-Delivery", id); got != http.StatusAccepted {
		w.Errorf("a rightly signed webhook is answered %d", got)
	}
}

// count is how many builds there are.
func (w *world) count() int {
	w.Helper()
	list, err := w.api.Builds(w.Context(), w.project, api.BuildFilter{Limit: 200})
	w.must(err)
	return len(list)
}

func TestWebhooksLostDoubledReordered(t *testing.T) {
	t.Parallel()
	w := newWorld(t, shop(nil), "--poll", "1h")
	w.add(api.AddProject{})
	silently := func(ref string) string { w.git("push", "--quiet", "origin", ref); return w.git("rev-parse", "HEAD") }
	first := silently("develop")
	body := `{"ref":"refs/heads/develop","after":"` + first + `","repository":{"clone_url":"file:///etc"}}`
	right := auth.SignWebhook(w.secret, []byte(body))
	for name, headers := range map[string][]string{
		"no signature":         nil,
		"an empty one":         {"X-Hub-Signature-256", ""},
		"of another secret":    {"X-Hub-Signature-256", auth.SignWebhook("another", []byte(body))},
		"of an empty secret":   {"X-Hub-Signature-256", auth.SignWebhook("", []byte(body))},
		"of another body":      {"X-Hub-Signature-256", auth.SignWebhook(w.secret, []byte(body+" "))},
		"SHA-1 only":           {"X-Hub-Signature", "sha1=2fd4e1c67a2d28fced849ee1bb76e7391b93eb12"},
		"without its prefix":   {"X-Hub-Signature-256", strings.TrimPrefix(right, "sha256=")},
		"cut":                  {"X-Hub-Signature-256", right[:len(right)-2]},
		"a right and a wrong":  {"X-Hub-Signature-256", right, "X-Shunt-Signature", auth.SignWebhook("another", []byte(body))},
		"wrong of Gitea":       {"X-Gitea-Signature", "00"},
		"wrong of Shunt":       {"X-Shunt-Signature", "sha256=00"},
		"a token that is none": {"Authorization", "Bearer " + w.secret},
	} {
		if got := w.webhook(w.project, body, headers...); got != http.StatusUnauthorized {
			t.Errorf("%s: answered %d", name, got)
		}
	}
	if got := w.webhook("no-such-project", body, "X-Hub-Signature-256", right); got != http.StatusUnauthorized {
		t.Errorf("another project: answered %d", got)
	}
	if n := w.count(); n != 0 {
		t.Fatalf("wrong webhooks made %d builds", n)
	}

	for range 5 { // doubled: the same delivery again and again, and the same event as new deliveries
		w.deliver("first", body)
	}
	w.deliver("first-again", body)
	w.buildOf(first, "")

	w.commit("Second")
	silently("develop") // its webhook is late
	w.commit("Third")
	third := silently("develop")
	w.deliver("third", `{"ref":"refs/heads/develop","after":"`+third+`"}`)
	w.buildOf(third, "")
	w.deliver("second", `{"ref":"refs/heads/develop","after":"`+first+`"}`) // it comes after the third
	w.deliver("rubbish", "not even JSON")
	_, err := w.api.Sync(t.Context(), w.project) // whatever those began is done behind this
	w.must(err)
	w.once(first, third)

	w.kill(syscall.SIGTERM)
	w.flags = []string{"--poll", "300ms"}
	w.start()
	w.commit("Fourth")
	fourth := silently("develop") // its webhook is lost
	w.buildOf(fourth, "")
	w.once(first, third, fourth)
}

// once checks that each of the commits has one build, and no commit two. The one
// whose webhook is late may have one: whichever look at the remote comes first
// takes what is there.
func (w *world) once(commits ...string) {
	w.Helper()
	builds, err := w.api.Builds(w.Context(), w.project, api.BuildFilter{Limit: 100})
	w.must(err)
	seen := map[string]int{}
	for _, b := range builds {
		if seen[b.Commit]++; seen[b.Commit] > 1 {
			w.Errorf("commit %s has %d builds", b.Commit, seen[b.Commit])
		}
	}
	for _, c := range commits {
		if seen[c] != 1 {
			w.Errorf("commit %s has %d builds, want 1", c, seen[c])
		}
	}
}
