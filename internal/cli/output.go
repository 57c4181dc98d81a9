package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"

	"charm.land/lipgloss/v2"
)

// printf writes to the standard output. A reader that went away is no error of ours.
func (a *app) printf(format string, args ...any) {
	_, _ = fmt.Fprintf(a.out, format, args...)
}

// note writes a line for the person to the standard error, so that it never
// gets into a pipe.
func (a *app) note(format string, args ...any) {
	_, _ = fmt.Fprintf(a.err, format+"\n", args...)
}

func (a *app) complain(text string) {
	_, _ = io.WriteString(a.err, cleanLines(text)+"\n")
}

// emit prints one JSON line.
func (a *app) emit(v any) error {
	enc := json.NewEncoder(a.out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return fmt.Errorf("write JSON: %w", err)
	}
	return nil
}

// emitAll prints one JSON line for each.
func emitAll[T any](a *app, list []T) error {
	for _, v := range list {
		if err := a.emit(v); err != nil {
			return err
		}
	}
	return nil
}

// The colours, by meaning. Words carry the meaning too: colour only helps.
const (
	green  = "2"
	red    = "1"
	yellow = "3"
	faint  = "8"
)

func (a *app) paint(color, text string) string {
	if !a.color || text == "" {
		return text
	}
	return lipgloss.NewStyle().Foreground(lipgloss.Color(color)).Render(text)
}

// clean makes hostile text safe for one line of a terminal: control and
// direction-changing characters become visible marks.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\t':
			return ' '
		case unicode.IsControl(r), unicode.Is(unicode.Bidi_Control, r), r == '\u2028', r == '\u2029':
			return '\ufffd'
		}
		return r
	}, s)
}

// cleanLines is clean for text that may have lines.
func cleanLines(s string) string {
	lines := strings.Split(s, "\n")
	for i, l := range lines {
		lines[i] = clean(l)
	}
	return strings.Join(lines, "\n")
}

// took is a duration as a person says it: 0.4s, 12s, 3m05s, 1h10m.
func took(d time.Duration) string {
	switch {
	case d < 10*time.Second:
		return fmt.Sprintf("%.1fs", d.Seconds())
	case d < time.Minute:
		return fmt.Sprintf("%.0fs", d.Seconds())
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	}
	return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
}

// ago is an age as a person says it: "9 days".
func ago(d time.Duration) string {
	unit := func(n int, word string) string {
		if n == 1 {
			return "1 " + word
		}
		return fmt.Sprintf("%d %ss", n, word)
	}
	switch {
	case d < time.Minute:
		return unit(max(int(d.Seconds()), 0), "second")
	case d < time.Hour:
		return unit(int(d.Minutes()), "minute")
	case d < 48*time.Hour:
		return unit(int(d.Hours()), "hour")
	}
	return unit(int(d.Hours()/24), "day")
}

// at is a time on the clock of the person who reads.
func at(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.Local().Format("Mon 2 Jan 15:04")
}

// since is "since Thu 13 Nov 09:12 (9 days)".
func (a *app) since(t time.Time) string {
	return "since " + at(t) + " (" + ago(a.clock.Now().Sub(t)) + ")"
}

func size(n int64) string {
	switch {
	case n < 1<<10:
		return fmt.Sprintf("%d B", n)
	case n < 1<<20:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	case n < 1<<30:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
}
