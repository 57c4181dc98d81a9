package web

import (
	"bytes"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/a-h/templ"

	"github.com/shuntcd/shunt/internal/api"
	"github.com/shuntcd/shunt/internal/delivery"
)

// minute is how a moment is written where no script writes it in the reader's zone.
const minute = "Mon 2 Jan 15:04 UTC"

// frame is what all pages share.
type frame struct {
	Title   string
	User    string
	Version string
	Mailbox bool
	Project string // whose tabs are shown; empty: none
	Tab     string
	Events  string // address of the event stream that keeps the page fresh; empty: it does not change
	Self    string // the page's own address, to fetch it again
	Chat    string // what a chat shows of a link to this page; only generic words
	Seen    int64  // the newest audit row when the page was read; its forms carry it
	Now     time.Time
	asset   func(name string) string
}

func (s *server) frame(r *http.Request, title string) frame {
	return frame{Title: title, User: callerOf(r.Context()).user.Name, Version: s.Version, Mailbox: s.Mailbox, Self: r.URL.RequestURI(), Now: s.Clock.Now(), asset: s.assets.url}
}

// live makes a page fetch itself again when something happens.
func (f frame) live(project string, number int64) frame {
	q := url.Values{}
	if project != "" {
		q.Set("project", project)
	}
	if number > 0 {
		q.Set("number", strconv.FormatInt(number, 10))
	}
	f.Events = "/events"
	if len(q) > 0 {
		f.Events += "?" + q.Encode()
	}
	return f
}

func (f frame) of(project, tab string) frame {
	f.Project, f.Tab = project, tab
	return f
}

func (f frame) seeing(seen int64) frame {
	f.Seen = seen
	return f
}

// render writes a page, after all of it was rendered without error.
func (s *server) render(w http.ResponseWriter, r *http.Request, status int, page templ.Component) error {
	var b bytes.Buffer
	if err := page.Render(r.Context(), &b); err != nil {
		return fmt.Errorf("render page: %w", err)
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	if _, err := w.Write(visible(b.Bytes())); err != nil {
		return fmt.Errorf("answer: %w", err)
	}
	return nil
}

// visible makes characters visible that would hide or reorder text: control
// characters and those that change the direction of writing. A commit's subject
// could lie with them; our own markup has none.
func visible(page []byte) []byte {
	return bytes.ToValidUTF8(bytes.Map(func(r rune) rune {
		switch {
		case r == '\n', r == '\t':
			return r
		case r < ' ':
			return 0x2400 + r // its picture: U+241B for escape
		case r == 0x7f:
			return 0x2421
		case r >= 0x80 && r < 0xa0, r >= 0x202a && r <= 0x202e, r >= 0x2066 && r <= 0x2069, r == 0x200e, r == 0x200f, r == 0x061c:
			return 0xfffd
		}
		return r
	}, page), []byte("\ufffd"))
}

// show renders a page where there is nobody left to return an error to.
func (s *server) show(w http.ResponseWriter, r *http.Request, status int, page templ.Component) {
	if err := s.render(w, r, status, page); err != nil && !gone(err) {
		s.Log.ErrorContext(r.Context(), "page not shown", "path", r.URL.Path, "error", err)
	}
}

// to joins escaped path segments to an address on this server.
func to(segments ...string) string {
	var b strings.Builder
	for _, s := range segments {
		b.WriteString("/" + url.PathEscape(s))
	}
	return b.String()
}

func buildURL(project string, number int64) string { return to(project, num(number)) }

func compareURL(project string, from, until int64) string {
	return to(project, "compare") + "?from=" + num(from) + "&to=" + num(until)
}

func nodeURL(project string, number int64, node string) string {
	return buildURL(project, number) + "?node=" + url.QueryEscape(node) + "#log"
}

// logURL is a window on the log that v shows, with what the reader chose and
// the given changes: name, value, name, value.
func logURL(v logView, changes ...string) string {
	q := url.Values{}
	if v.Attempt > 0 {
		q.Set("attempt", strconv.Itoa(v.Attempt))
	}
	if v.Relative {
		q.Set("time", "relative")
	}
	if v.Query != "" {
		q.Set("q", v.Query)
	}
	for i := 0; i+1 < len(changes); i += 2 {
		q.Set(changes[i], changes[i+1])
	}
	u := buildURL(v.Project, v.Number) + "/log/" + (&url.URL{Path: v.Node}).EscapedPath()
	if len(q) > 0 {
		u += "?" + q.Encode()
	}
	return u
}

// lineURL is the lasting address of a line.
func lineURL(v logView, line int64) string {
	v.Query = ""
	return logURL(v, "line", num(line)) + "#L" + num(line)
}

// hitURL leads to a match of the search.
func hitURL(v logView, line int64) string { return logURL(v, "line", num(line)) + "#L" + num(line) }

// logAPI is where the script and the raw link read the log.
func logAPI(v logView, format string) string {
	q := url.Values{"node": {v.Node}, "attempt": {strconv.Itoa(v.Attempt)}, "format": {format}}
	return "/api/v1/projects" + to(v.Project) + "/builds" + to(num(v.Number)) + "/log?" + q.Encode()
}

func artifactURL(project string, number int64, name string) string {
	return "/api/v1/projects" + to(project) + "/builds" + to(num(number)) + "/artifacts" + to(name)
}

// parentPage is the page on which the form at path stands.
func parentPage(path string) string {
	segments := strings.Split(strings.Trim(path, "/"), "/")
	switch {
	case segments[0] == "a" || segments[0] == "mail":
		return "/" + strings.Join(segments, "/")
	case segments[0] == "login" || len(segments) < 2:
		return "/"
	case segments[1] == "environments" || segments[1] == "settings" || segments[1] == "timeline":
		return "/" + segments[0] + "/" + segments[1]
	default:
		return "/" + strings.Join(segments[:len(segments)-1], "/")
	}
}

func px(n int) string { return strconv.Itoa(n) }

func viewBox(width, height int) string { return "0 0 " + px(width) + " " + px(height) }

func num(n int64) string { return strconv.FormatInt(n, 10) }

// external tells whether an address that came from outside may become a link:
// absolute http or https, nothing else (T41).
func external(raw string) bool {
	for _, r := range raw {
		if r <= ' ' || r == 0x7f || r == '\\' {
			return false
		}
	}
	u, err := url.Parse(raw)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != "" && u.User == nil && u.Opaque == ""
}

// ago says how long before now t was, in the largest unit that fits.
func ago(now, t time.Time) string { return span(now.Sub(t)) }

func span(d time.Duration) string {
	if d < 0 {
		d = -d
	}
	unit := func(n int64, word string) string {
		if n == 1 {
			return "1 " + word
		}
		return num(n) + " " + word + "s"
	}
	switch {
	case d < time.Second:
		return "under 1 s"
	case d < time.Minute:
		return num(int64(d/time.Second)) + " s"
	case d < time.Hour:
		return num(int64(d/time.Minute)) + " min"
	case d < 48*time.Hour:
		if m := int64(d % time.Hour / time.Minute); m > 0 && d < 12*time.Hour {
			return num(int64(d/time.Hour)) + " h " + num(m) + " min"
		}
		return num(int64(d/time.Hour)) + " h"
	default:
		return unit(int64(d/(24*time.Hour)), "day")
	}
}

// took is how long something ran, or runs already.
func took(now, from, until time.Time) string {
	switch {
	case from.IsZero():
		return ""
	case until.IsZero():
		until = now
	}
	return span(until.Sub(from))
}

func bytesText(n int64) string {
	switch {
	case n < 1<<10:
		return num(n) + " B"
	case n < 1<<20:
		return strconv.FormatFloat(float64(n)/(1<<10), 'f', 1, 64) + " KiB"
	case n < 1<<30:
		return strconv.FormatFloat(float64(n)/(1<<20), 'f', 1, 64) + " MiB"
	default:
		return strconv.FormatFloat(float64(n)/(1<<30), 'f', 2, 64) + " GiB"
	}
}

// growth is a change of size in words: "+1.2 KiB, +3 %".
func growth(was, is int64) string {
	d, sign := is-was, "+"
	if d < 0 {
		d, sign = -d, "-"
	}
	text := sign + bytesText(d)
	if was > 0 {
		text += ", " + sign + strconv.FormatFloat(100*float64(d)/float64(was), 'f', 1, 64) + " %"
	}
	return text
}

// look is how a state is shown: a shape, a tone of colour, and always its word.
func look(state string) (shape, tone string) {
	switch state {
	case "succeeded", "up", "confirmed", "promoted", "ok":
		return "●", "ok"
	case "failed", "timed_out", "lost", "fail", "incident":
		return "✕", "bad"
	case "running", "creating", "started":
		return "◐", "run"
	case "waiting", "open", "asked":
		return "◆", "wait"
	case "stopped", "unknown", "warn", "held", "frozen", "active":
		return "▲", "warn"
	case "rejected", "given_up":
		return "■", "bad"
	default:
		return "○", "idle"
	}
}

func words(state string) string { return strings.ReplaceAll(state, "_", " ") }

// stage is a column of a build's strip.
type stage struct {
	Name  string
	Nodes []api.Node
}

func stagesOf(nodes []api.Node) []stage {
	var out []stage
	for _, n := range nodes {
		i := slices.IndexFunc(out, func(s stage) bool { return s.Name == n.Stage })
		if i < 0 {
			i = len(out)
			out = append(out, stage{Name: n.Stage})
		}
		out[i].Nodes = append(out[i].Nodes, n)
	}
	return out
}

// expected is how long a build will still run until it ends or waits for a
// person, if each node takes its usual time; 0: nobody knows.
func expected(now time.Time, nodes []api.Node) time.Duration {
	byName := map[string]api.Node{}
	for _, n := range nodes {
		byName[n.Name] = n
	}
	known := map[string]time.Duration{}
	var rest func(name string) time.Duration // until the node has ended
	rest = func(name string) time.Duration {
		if d, ok := known[name]; ok {
			return d
		}
		known[name] = 0 // a circle of needs would end here
		n := byName[name]
		if n.State.Final() || n.Kind == delivery.NodeGate {
			return 0
		}
		var d time.Duration
		for _, need := range n.Needs {
			d = max(d, rest(need))
		}
		if n.State == delivery.NodeRunning {
			d += max(0, n.Usual-now.Sub(n.StartedAt))
		} else {
			d += n.Usual
		}
		known[name] = d
		return d
	}
	behindGate := map[string]bool{}
	var longest time.Duration
	for _, n := range nodes { // needs stand before what needs them
		behindGate[n.Name] = n.Kind == delivery.NodeGate && !n.State.Final() || slices.ContainsFunc(n.Needs, func(need string) bool { return behindGate[need] })
		if !behindGate[n.Name] {
			longest = max(longest, rest(n.Name))
		}
	}
	return longest
}

// diffClass is the class of a line of a unified diff.
func diffClass(line string) string {
	switch {
	case strings.HasPrefix(line, "+++"), strings.HasPrefix(line, "---"), strings.HasPrefix(line, "diff "), strings.HasPrefix(line, "index "):
		return "d-file"
	case strings.HasPrefix(line, "@@"):
		return "d-hunk"
	case strings.HasPrefix(line, "+"):
		return "d-add"
	case strings.HasPrefix(line, "-"):
		return "d-del"
	default:
		return "d-same"
	}
}

// plus is a count of changed lines; -1 says that git does not count a binary file.
func plus(sign string, n int) string {
	if n < 0 {
		return "binary"
	}
	return sign + strconv.Itoa(n)
}

func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return strconv.Itoa(n) + " " + many
}

// openGate is the gate of a build that waits for a decision.
func openGate(gates []api.Gate) (api.Gate, bool) {
	for _, g := range gates {
		if g.State == delivery.GateOpen {
			return g, true
		}
	}
	return api.Gate{}, false
}

// authors are the different authors of commits, in order.
func authors(commits []api.Commit) string {
	var out []string
	for _, c := range commits {
		if !slices.Contains(out, c.Author) {
			out = append(out, c.Author)
		}
	}
	if len(out) > 5 {
		out = append(out[:5], fmt.Sprintf("and %d more", len(out)-5))
	}
	return strings.Join(out, ", ")
}

// publicURL is a path as the world reaches it.
func publicURL(base, path string) string { return strings.TrimSuffix(base, "/") + path }

// attemptURL is a build's page with the log of one attempt.
func attemptURL(project string, number int64, node string, attempt int) string {
	return buildURL(project, number) + "?node=" + url.QueryEscape(node) + "&attempt=" + strconv.Itoa(attempt) + "#log"
}

// olderQuery is the query of the next page of builds.
func olderQuery(v projectView) string {
	q := url.Values{"before": {num(v.Older)}}
	for k, s := range map[string]string{"lane": v.Filter.Lane, "status": v.Filter.Status, "branch": v.Filter.Branch} {
		if s != "" {
			q.Set(k, s)
		}
	}
	return q.Encode()
}

// actionWord is what a button of an action says.
func actionWord(name string) string {
	switch name {
	case "cancel":
		return "Cancel the build"
	case "rerun":
		return "Run what failed again"
	case "retry":
		return "Deploy again"
	case "give-up":
		return "Give up"
	case "rollback":
		return "Roll back to this build"
	case "confirm-live":
		return "It is live"
	case "confirm-not-live":
		return "It is not live"
	default:
		return name
	}
}

// piece is a part of a text, and whether it may be a link.
type piece struct {
	text string
	link bool
}

// linkify finds the addresses in a plain text.
func linkify(text string) []piece {
	var out []piece
	for text != "" {
		i := strings.Index(text, "http://")
		if j := strings.Index(text, "https://"); j >= 0 && (i < 0 || j < i) {
			i = j
		}
		if i < 0 {
			break
		}
		end := strings.IndexAny(text[i:], " \t\r\n<>\"'")
		if end < 0 {
			end = len(text) - i
		}
		target := strings.TrimRight(text[i:i+end], ".,;:!?)")
		if i > 0 {
			out = append(out, piece{text: text[:i]})
		}
		out = append(out, piece{target, external(target)})
		text = text[i+len(target):]
	}
	return append(out, piece{text: text})
}
