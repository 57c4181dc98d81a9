package runlog

import (
	"fmt"
	"net/url"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Span is a piece of a line that is shown in one way. Class is a list of CSS
// classes separated by spaces: bold dim italic underline inverse strike, fg-N
// and bg-N for the 16 colours, fg-xN and bg-xN for those of the 256 above
// them, and esc for a mark that stands for an escape sequence or a control
// character. Href is empty or an absolute http or https address. Text has no
// control characters except tabs; it is not escaped for HTML.
type Span struct {
	Class string
	Text  string
	Href  string
}

const (
	maxCSI = 256  // bytes of a control sequence; xterm's own limit is lower
	maxOSC = 4096 // bytes of an operating system command
	maxURL = 2048
)

// Spans makes a line of a log safe to show. Of all escape sequences only
// colours and styles (SGR) and links to http and https (OSC 8) are obeyed;
// every other one, and every control character, becomes a visible mark, so that
// a log can neither act on the reader's terminal or browser nor hide a part of
// itself. The line's style starts plain.
func Spans(text string) []Span {
	p := spanner{}
	text = strings.TrimSuffix(text, "\r") // CRLF
	for len(text) > 0 {
		if text[0] == 0x1b {
			text = text[p.escape(text):]
			continue
		}
		r, n := utf8.DecodeRuneInString(text)
		if m := markOf(r); m != "" {
			p.mark(m)
		} else {
			p.text(r) // an invalid byte becomes U+FFFD
		}
		text = text[n:]
	}
	p.cut()
	return p.spans
}

// Strip is the text of a line without its escape sequences, for mail. Other
// control characters become visible marks as in Spans.
func Strip(text string) string {
	text = strings.TrimSuffix(text, "\r")
	var b strings.Builder
	for len(text) > 0 {
		if text[0] == 0x1b {
			text = text[max(csiLen(text), oscLen(text), escLen(text)):]
			continue
		}
		r, n := utf8.DecodeRuneInString(text)
		if m := markOf(r); m != "" {
			b.WriteString(m)
		} else {
			b.WriteRune(r)
		}
		text = text[n:]
	}
	return b.String()
}

type spanner struct {
	spans []Span
	style style
	href  string
	b     strings.Builder // the text of the span that is being built,
	marks bool            // which holds marks
}

// cut ends the span that is being built.
func (p *spanner) cut() {
	if p.b.Len() == 0 {
		return
	}
	span := Span{Class: "esc", Text: p.b.String()}
	if !p.marks {
		span.Class, span.Href = p.style.class(), p.href
	}
	p.spans = append(p.spans, span)
	p.b.Reset()
}

// text adds a character, and mark a visible mark; what is alike and adjacent
// shares a span.
func (p *spanner) text(r rune) {
	p.turn(false)
	p.b.WriteRune(r)
}

func (p *spanner) mark(m string) {
	p.turn(true)
	p.b.WriteString(m)
}

func (p *spanner) turn(marks bool) {
	if p.marks != marks {
		p.cut()
		p.marks = marks
	}
}

// escape handles the sequence at the start of text, and returns how much of
// text it took. Each branch looks at a bounded number of bytes.
func (p *spanner) escape(text string) int {
	if n := csiLen(text); n > 0 {
		if params := text[2 : n-1]; text[n-1] == 'm' && strings.Trim(params, "0123456789;:") == "" {
			p.cut()
			p.style.apply(params)
			return n
		}
		p.mark(visible(text[:n]))
		return n
	}
	if n := oscLen(text); n > 0 {
		body := strings.TrimSuffix(strings.TrimSuffix(text[2:n], "\x07"), "\x1b\\")
		if rest, ok := strings.CutPrefix(body, "8;"); ok {
			if _, target, ok := strings.Cut(rest, ";"); ok && (target == "" || safeURL(target)) {
				p.cut()
				p.href = target
				return n
			}
		}
		p.mark(visible(text[:n]))
		return n
	}
	n := escLen(text)
	p.mark(visible(text[:n]))
	return n
}

// escLen is the length of the plain escape sequence at the start of s, which
// begins with ESC: intermediate bytes and a final one (ECMA-35 13.2). It is 1
// if there is none. Control strings count as such with their first two bytes,
// so that what they hide is shown.
func escLen(s string) int {
	for i := 1; i < min(len(s), 6); i++ {
		switch c := s[i]; {
		case c == '[' || c == ']':
			return 1 // cut short, or too long
		case c >= 0x30 && c <= 0x7e:
			return i + 1
		case c < 0x20 || c > 0x7e:
			return 1
		}
	}
	return 1
}

// csiLen is the length of the control sequence at the start of s, or 0.
func csiLen(s string) int {
	if len(s) < 3 || s[0] != 0x1b || s[1] != '[' {
		return 0
	}
	for i := 2; i < min(len(s), maxCSI); i++ {
		switch c := s[i]; {
		case c >= 0x40 && c <= 0x7e:
			return i + 1
		case c < 0x20 || c > 0x7e:
			return 0
		}
	}
	return 0
}

// oscLen is the length of the operating system command at the start of s with
// its terminator (BEL or ST), or 0 when there is none within maxOSC bytes.
func oscLen(s string) int {
	if len(s) < 3 || s[0] != 0x1b || s[1] != ']' {
		return 0
	}
	for i := 2; i < min(len(s), maxOSC); i++ {
		switch c := s[i]; {
		case c == 0x07:
			return i + 1
		case c == 0x1b && i+1 < len(s) && s[i+1] == '\\':
			return i + 2
		case c < 0x20:
			return 0
		}
	}
	return 0
}

func safeURL(s string) bool {
	if len(s) > maxURL || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '\\' }) {
		return false
	}
	u, err := url.Parse(s)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != "" && u.User == nil
}

// visible replaces the control characters of a sequence by their marks.
func visible(s string) string {
	var b strings.Builder
	for _, r := range s {
		if m := markOf(r); m != "" {
			b.WriteString(m)
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

// markOf is the visible mark of a character that must not reach a reader, or
// "" for one that may. The marks of the control characters are Unicode's
// control pictures; those of C1 are the two-byte sequences that they abbreviate.
func markOf(r rune) string {
	switch {
	case r == '\t':
		return ""
	case r < 0x20:
		return string(0x2400 + r)
	case r == 0x7f:
		return "\u2421"
	case r >= 0x80 && r < 0xa0:
		return "\u241b" + string(r-0x40)
	case unicode.Is(unicode.Bidi_Control, r), r == 0x2028, r == 0x2029, r == 0xfeff:
		return fmt.Sprintf("<U+%04X>", r)
	}
	return ""
}
