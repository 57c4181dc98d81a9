package web

import (
	"cmp"
	"crypto/subtle"
	"encoding/xml"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/shuntcd/shunt/internal/api"
	"github.com/shuntcd/shunt/internal/delivery"
)

// Feeds are what other programs show of a project: a badge, CCTray XML, an Atom
// feed and a calendar of what went into production. They are for whoever is
// signed in, and for whoever knows the project's feed key, which opens nothing
// else; settings show it. A wrong key and an unknown project look alike.

// feedFiles are the files of /badge/PROJECT/.
func feedFiles() []string {
	return []string{"production.svg", "cc.xml", "deployments.atom", "deployments.ics"}
}

const feedPattern = "GET /badge/{project}/{file}"

func (s *server) feed(w http.ResponseWriter, r *http.Request) error {
	project, key := r.PathValue("project"), r.URL.Query().Get("key")
	if key != "" {
		want, err := s.Backend.FeedKey(r.Context(), project)
		if delivery.IsKind(err, delivery.KindNotFound) || err == nil && subtle.ConstantTimeCompare([]byte(key), []byte(want)) != 1 {
			return notFound("no such feed")
		}
		if err != nil {
			return err //nolint:wrapcheck // explained by fail
		}
		w.Header().Set("Cross-Origin-Resource-Policy", "cross-origin") // other pages embed it
	} // else guard has asked who it is
	files := map[string]func(http.ResponseWriter, *http.Request, api.Project) error{"production.svg": s.badge, "cc.xml": s.ccTray, "deployments.atom": s.atom, "deployments.ics": s.calendar}
	write, ok := files[r.PathValue("file")]
	if !ok {
		return notFound("no such feed")
	}
	p, err := s.Backend.Project(r.Context(), project)
	if err != nil {
		return err //nolint:wrapcheck // explained by fail
	}
	return write(w, r, p)
}

// badgeWords is what a badge says: a state, and its tone.
func badgeWords(p api.Project) (text, tone string) {
	switch r := p.Production; {
	case p.Incident != "":
		return "incident", "bad"
	case r == nil:
		return "nothing yet", "idle"
	case r.RolledBack:
		return fmt.Sprintf("build %d (rolled back)", r.Build), "warn"
	case r.Lane == delivery.LaneHotfix:
		return fmt.Sprintf("build %d (hotfix)", r.Build), "ok"
	default:
		return fmt.Sprintf("build %d", r.Build), "ok"
	}
}

func (s *server) badge(w http.ResponseWriter, _ *http.Request, p api.Project) error {
	text, tone := badgeWords(p)
	colour := map[string]string{"ok": "#1a6b3c", "bad": "#ae2a20", "warn": "#8c4300", "idle": "#5a616a"}[tone]
	label := "production"
	left := int(6.6*float64(len(label))) + 14
	right := int(6.6*float64(len(text))) + 14
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="20" role="img" aria-label="%s: %s"><title>%s: %s</title>`, left+right, label, esc(text), label, esc(text))
	fmt.Fprintf(&b, `<rect width="%d" height="20" rx="3" fill="#1c2733"/><rect x="%d" width="%d" height="20" rx="3" fill="%s"/><rect x="%d" width="4" height="20" fill="%s"/>`, left, left, right, colour, left, colour)
	fmt.Fprintf(&b, `<g fill="#fff" text-anchor="middle" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11"><text x="%d" y="14">%s</text><text x="%d" y="14">%s</text></g></svg>`+"\n", left/2, label, left+right/2, esc(text))
	return writeAs(w, "image/svg+xml", b.String())
}

// ccProject is a row of CCTray's XML (https://cctray.org/v1).
type ccProject struct {
	Name     string `xml:"name,attr"`
	Activity string `xml:"activity,attr"`
	Status   string `xml:"lastBuildStatus,attr"`
	Label    string `xml:"lastBuildLabel,attr"`
	Time     string `xml:"lastBuildTime,attr"`
	URL      string `xml:"webUrl,attr"`
}

func (s *server) ccTray(w http.ResponseWriter, r *http.Request, p api.Project) error {
	var out struct {
		XMLName  xml.Name    `xml:"Projects"`
		Projects []ccProject `xml:"Project"`
	}
	for _, lane := range []delivery.Lane{delivery.LaneMain, delivery.LaneHotfix} {
		builds, err := s.Backend.Builds(r.Context(), p.Name, api.BuildFilter{Lane: string(lane), Limit: buildsPerPage})
		if err != nil {
			return err //nolint:wrapcheck // explained by fail
		}
		if len(builds) == 0 {
			continue
		}
		row := ccProject{Name: p.Name + " :: " + string(lane), Activity: "Sleeping", Status: "Unknown", Label: num(builds[0].Number), URL: publicURL(s.PublicURL, buildURL(p.Name, builds[0].Number))}
		if st := builds[0].Status; st == delivery.BuildRunning || st == delivery.BuildQueued {
			row.Activity = "Building"
		}
		for _, b := range builds {
			status := ""
			switch b.Status { // one that waits for a person has passed its jobs
			case delivery.BuildSucceeded, delivery.BuildWaiting, delivery.BuildRejected, delivery.BuildExpired:
				status = "Success"
			case delivery.BuildFailed, delivery.BuildStopped:
				status = "Failure"
			case delivery.BuildQueued, delivery.BuildRunning, delivery.BuildCancelled, delivery.BuildSuperseded:
				continue
			}
			at := b.FinishedAt
			if at.IsZero() {
				at = b.CreatedAt
			}
			row.Status, row.Label, row.Time = status, num(b.Number), at.UTC().Format(time.RFC3339)
			break
		}
		out.Projects = append(out.Projects, row)
	}
	return writeXML(w, "application/xml; charset=utf-8", out)
}

// deployed are the moments at which something went into an environment.
func (s *server) deployed(r *http.Request, project string) (out []api.Moment, err error) {
	all, err := s.Backend.Timeline(r.Context(), project, time.Time{})
	for _, m := range all {
		if m.Number > 0 && m.State != "" {
			out = append(out, m)
		}
	}
	return out, err //nolint:wrapcheck // explained by fail
}

type atomText struct {
	Type string `xml:"type,attr"`
	Text string `xml:",chardata"`
}

type atomLink struct {
	Href string `xml:"href,attr"`
}

type atomEntry struct {
	ID      string   `xml:"id"`
	Title   string   `xml:"title"`
	Updated string   `xml:"updated"`
	Author  string   `xml:"author>name"`
	Link    atomLink `xml:"link"`
	Content atomText `xml:"content"`
}

// atom writes RFC 4287.
func (s *server) atom(w http.ResponseWriter, r *http.Request, p api.Project) error {
	ms, err := s.deployed(r, p.Name)
	if err != nil {
		return err
	}
	var out struct {
		XMLName xml.Name    `xml:"http://www.w3.org/2005/Atom feed"`
		ID      string      `xml:"id"`
		Title   string      `xml:"title"`
		Updated string      `xml:"updated"`
		Link    atomLink    `xml:"link"`
		Entries []atomEntry `xml:"entry"`
	}
	out.ID, out.Title, out.Link.Href = publicURL(s.PublicURL, to(p.Name, "timeline")), "Deployments of "+p.Name, publicURL(s.PublicURL, to(p.Name, "timeline"))
	out.Updated = s.Clock.Now().UTC().Format(time.RFC3339)
	for i, m := range ms {
		at := m.At.UTC().Format(time.RFC3339)
		if i == 0 {
			out.Updated = at
		}
		link := publicURL(s.PublicURL, buildURL(p.Name, m.Number))
		out.Entries = append(out.Entries, atomEntry{ID: link + "#" + m.Kind + "-" + num(m.At.UnixMicro()), Title: fmt.Sprintf("Build %d %s", m.Number, momentWords(m)), Updated: at, Author: m.By, Link: atomLink{link}, Content: atomText{"text", m.Words}})
	}
	return writeXML(w, "application/atom+xml; charset=utf-8", out)
}

// calendar writes RFC 5545: what was deployed, and what is or was frozen.
func (s *server) calendar(w http.ResponseWriter, r *http.Request, p api.Project) error {
	ms, err := s.deployed(r, p.Name)
	if err != nil {
		return err
	}
	freezes, err := s.Backend.Freezes(r.Context(), p.Name)
	if err != nil {
		return err //nolint:wrapcheck // explained by fail
	}
	const stamp = "20060102T150405Z"
	var b strings.Builder
	line := func(name, value string) { b.WriteString(foldICal(name+":"+value) + "\r\n") }
	line("BEGIN", "VCALENDAR")
	line("VERSION", "2.0")
	line("PRODID", "-//Shunt//Deployments//EN")
	line("X-WR-CALNAME", icalText("Deployments of "+p.Name))
	for _, m := range ms {
		line("BEGIN", "VEVENT")
		line("UID", icalText(fmt.Sprintf("%s-%d-%d@shunt", p.Name, m.Number, m.At.UnixMicro())))
		line("DTSTAMP", m.At.UTC().Format(stamp))
		line("DTSTART", m.At.UTC().Format(stamp))
		line("DTEND", m.At.Add(max(m.Took, time.Minute)).UTC().Format(stamp))
		line("SUMMARY", icalText(fmt.Sprintf("%s: build %d %s", p.Name, m.Number, momentWords(m))))
		line("DESCRIPTION", icalText(strings.TrimSpace("by "+m.By+"\n"+m.Words)))
		line("URL", publicURL(s.PublicURL, buildURL(p.Name, m.Number)))
		line("END", "VEVENT")
	}
	for _, f := range freezes {
		end := cmp.Or(f.EndedAt, f.Until)
		if !end.After(f.From) {
			continue // taken back
		}
		line("BEGIN", "VEVENT")
		line("UID", icalText(fmt.Sprintf("%s-freeze-%d@shunt", p.Name, f.ID)))
		line("DTSTAMP", cmp.Or(f.EndedAt, f.CreatedAt).UTC().Format(stamp))
		line("DTSTART", f.From.UTC().Format(stamp))
		line("DTEND", end.UTC().Format(stamp))
		line("SUMMARY", icalText(p.Name+": the main lane is frozen"))
		line("DESCRIPTION", icalText("by "+f.By+"\n"+f.Reason))
		line("URL", publicURL(s.PublicURL, to(p.Name, "timeline")))
		line("END", "VEVENT")
	}
	line("END", "VCALENDAR")
	return writeAs(w, "text/calendar; charset=utf-8", b.String())
}

// icalText escapes a value of type TEXT (RFC 5545, 3.3.11).
func icalText(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < 0x20 && r != '\n' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
	return strings.NewReplacer(`\`, `\\`, ";", `\;`, ",", `\,`, "\n", `\n`).Replace(s)
}

// foldICal breaks a line after at most 75 bytes, between letters (RFC 5545, 3.1).
func foldICal(line string) string {
	var b strings.Builder
	used := 0
	for _, r := range line {
		n := len(string(r))
		if used+n > 75 {
			b.WriteString("\r\n ")
			used = 1
		}
		b.WriteRune(r)
		used += n
	}
	return b.String()
}

func writeXML(w http.ResponseWriter, kind string, v any) error {
	b, err := xml.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("encode feed: %w", err)
	}
	return writeAs(w, kind, xml.Header+string(b)+"\n")
}

func writeAs(w http.ResponseWriter, kind, text string) error {
	w.Header().Set("Content-Type", kind)
	w.Header().Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'; sandbox")
	if _, err := w.Write([]byte(text)); err != nil {
		return fmt.Errorf("answer: %w", err)
	}
	return nil
}
