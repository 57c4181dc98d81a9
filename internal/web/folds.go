package web

import (
	"strings"
	"time"

	"github.com/a-h/templ"

	"github.com/shuntcd/shunt/internal/runlog"
)

// A log is folded where a step begins (Shunt's own marker) and between
// ::group::NAME and ::endgroup::, which jobs print. Groups are closed until
// somebody looks for something in them.

const groupBegin, groupEnd = "::group::", "::endgroup::"

// foldOf tells whether a line begins or ends a fold.
func foldOf(l runlog.Line) (step, group, end bool) {
	if l.Flag == runlog.FlagMarker {
		return strings.HasPrefix(l.Text, "step "), false, false
	}
	return false, strings.HasPrefix(l.Text, groupBegin), strings.TrimRight(l.Text, "\r ") == groupEnd
}

// logBody is the lines of a log, folded.
func logBody(v logView) templ.Component {
	return written(func(b *strings.Builder) {
		inStep, inGroup := false, false
		leave := func(flag *bool) {
			if *flag {
				b.WriteString("</details>")
			}
			*flag = false
		}
		for i, l := range v.Lines {
			line := v.First + int64(i)
			step, group, end := foldOf(l)
			switch {
			case step:
				leave(&inGroup)
				leave(&inStep)
				inStep = true
				b.WriteString(`<details class="fold" open><summary`)
				logLine(b, v, l, line, l.Text, true)
				b.WriteString("</summary>")
			case group:
				leave(&inGroup)
				inGroup = true
				b.WriteString(`<details class="fold group"`)
				if groupOpen(v, i) {
					b.WriteString(" open")
				}
				b.WriteString("><summary")
				logLine(b, v, l, line, strings.TrimPrefix(l.Text, groupBegin), true)
				b.WriteString("</summary>")
			case end && inGroup:
				leave(&inGroup)
			default:
				b.WriteString("<div")
				logLine(b, v, l, line, l.Text, false)
				b.WriteString("</div>")
			}
		}
		leave(&inGroup)
		leave(&inStep)
	})
}

// groupOpen tells whether something that the reader asked for is in the group
// that begins at i.
func groupOpen(v logView, i int) bool {
	for j := i; j < len(v.Lines); j++ {
		step, group, end := foldOf(v.Lines[j])
		if j > i && (step || group || end) {
			return false
		}
		if v.chosen(v.First+int64(j)) || v.Lines[j].Matches(v.Query) {
			return true
		}
	}
	return false
}

// logLine writes the rest of a line's start tag, and what is in it.
func logLine(b *strings.Builder, v logView, l runlog.Line, line int64, text string, fold bool) {
	class := "line"
	if l.Flag == runlog.FlagMarker {
		class += " marker"
	}
	if v.chosen(line) {
		class += " chosen"
	}
	if l.Matches(v.Query) {
		class += " hit"
	}
	n := num(line)
	b.WriteString(` class="` + class + `" id="L` + n + `">`)
	if fold { // a link inside of what folds would be two controls in one place
		b.WriteString(`<span class="ln">` + n + `</span>`)
	} else {
		b.WriteString(`<a class="ln" href="` + esc(lineURL(v, line)) + `" aria-hidden="true" tabindex="-1">` + n + `</a>`)
	}
	b.WriteString(`<span class="tm" title="` + l.At.UTC().Format(stampFormat) + `">` + lineTime(v, l.At) + `</span><span class="tx">`)
	writeSpans(b, text)
	b.WriteString("</span>")
}

// lineTime is the time of a line: of the day, or since the log began.
func lineTime(v logView, at time.Time) string {
	if !v.Relative {
		return at.UTC().Format("15:04:05")
	}
	d := max(0, at.Sub(v.Began))
	return num(int64(d/time.Minute)) + ":" + (time.Time{}).Add(d%time.Minute).Format("05.0")
}
