package notify

import (
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// line makes hostile text fit for one line: no control or direction-changing
// characters, single spaces, at most limit runes.
func line(s string, limit int) string {
	return bound(strings.Join(strings.Fields(printable(s)), " "), limit)
}

// maxText bounds a text before it is looked at, in bytes.
const maxText = 16 << 10

// colour is a control sequence of a terminal.
var colour = regexp.MustCompile(`\x1b\[[0-9;?]*[ -/]*[@-~]`)

// printable replaces what cannot be seen by spaces and drops terminal colours.
func printable(s string) string {
	s = colour.ReplaceAllString(strings.ToValidUTF8(s[:min(len(s), maxText)], "\uFFFD"), "")
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, s)
}

func bound(s string, limit int) string {
	if r := []rune(s); len(r) > limit {
		return string(r[:limit-1]) + "…"
	}
	return s
}

// logLine is like line, but keeps the indentation.
func logLine(s string) string {
	if i := strings.LastIndexByte(strings.TrimRight(s, "\r"), '\r'); i >= 0 {
		s = s[i+1:] // a progress bar: what would be on the screen at last
	}
	return strings.TrimRight(bound(printable(strings.ReplaceAll(s, "\t", "    ")), 200), " ")
}

// header is line for a header: no text may look like an encoded word, which
// mail programs would decode into who knows what.
func header(s string) string {
	return strings.ReplaceAll(line(s, 160), "=?", "= ?")
}

// webURL returns an absolute http or https URL, or nothing (T41).
func webURL(s string) string {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.User != nil || len(s) > 1000 ||
		strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) || r == ' ' }) {
		return ""
	}
	return u.String()
}

// count is "1 commit", "2 commits".
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// span is a duration as people say it: "40 s", "38 min", "1 h 10 min", "9 days".
func span(d time.Duration) string {
	switch minutes := int(d.Round(time.Minute) / time.Minute); {
	case d < time.Minute:
		return fmt.Sprintf("%d s", max(0, int(d.Round(time.Second)/time.Second)))
	case minutes < 60:
		return fmt.Sprintf("%d min", minutes)
	case minutes < 48*60 && minutes%60 == 0:
		return fmt.Sprintf("%d h", minutes/60)
	case minutes < 48*60:
		return fmt.Sprintf("%d h %d min", minutes/60, minutes%60)
	}
	return count(int(d.Round(24*time.Hour)/(24*time.Hour)), "day")
}

// list is "a, b and 3 others" of hostile names.
func list(names []string, most int) string {
	var shown []string
	for _, n := range names[:min(len(names), most)] {
		if n = line(n, 60); n != "" {
			shown = append(shown, n)
		}
	}
	s := strings.Join(shown, ", ")
	if more := len(names) - most; more > 0 {
		s += " and " + count(more, "other")
	}
	return s
}

// sentence ends hostile words like a sentence.
func sentence(s string) string {
	s = line(s, 500)
	if s == "" || strings.ContainsAny(s[len(s)-1:], ".!?") {
		return s
	}
	return s + "."
}

// capital makes the first letter a capital one.
func capital(s string) string {
	r, size := utf8.DecodeRuneInString(s)
	if size == 0 {
		return s
	}
	return string(unicode.ToUpper(r)) + s[size:]
}
