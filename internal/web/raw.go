package web

import (
	"context"
	"io"
	"strings"

	"github.com/a-h/templ"

	"github.com/shuntcd/shunt/internal/runlog"
)

// The components in this file are written by hand because white space counts in
// them, and templ's formatting would change it. esc is the only way in for a
// text.

func esc(s string) string { return templ.EscapeString(s) }

func written(f func(b *strings.Builder)) templ.Component {
	return templ.ComponentFunc(func(_ context.Context, w io.Writer) error {
		var b strings.Builder
		f(&b)
		_, err := io.WriteString(w, b.String())
		return err //nolint:wrapcheck // wrapped by render
	})
}

// anchor writes a link to an address from outside, if it may be one.
func anchor(b *strings.Builder, class, href, text string) {
	if !external(href) {
		b.WriteString(esc(text))
		return
	}
	b.WriteString(`<a`)
	if class != "" {
		b.WriteString(` class="` + esc(class) + `"`)
	}
	b.WriteString(` href="` + esc(href) + `" rel="noopener noreferrer">` + esc(text) + `</a>`)
}

// diffLines is a unified diff with one element for each line.
func diffLines(diff string) templ.Component {
	return written(func(b *strings.Builder) {
		for l := range strings.Lines(diff) {
			b.WriteString(`<span class="` + diffClass(l) + `">` + esc(l) + `</span>`)
		}
	})
}

// linked is a plain text with its addresses as links.
func linked(text string) templ.Component {
	return written(func(b *strings.Builder) {
		for _, p := range linkify(text) {
			if p.link {
				anchor(b, "", p.text, p.text)
			} else {
				b.WriteString(esc(p.text))
			}
		}
	})
}

// writeSpans writes the text of a line of a log with its colours and links.
func writeSpans(b *strings.Builder, text string) {
	for _, s := range runlog.Spans(text) {
		switch {
		case s.Href != "":
			anchor(b, s.Class, s.Href, s.Text)
		case s.Class != "":
			b.WriteString(`<span class="` + esc(s.Class) + `">` + esc(s.Text) + `</span>`)
		default:
			b.WriteString(esc(s.Text))
		}
	}
}
