package pipeline

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/shuntcd/shunt/internal/delivery"
)

// maxProblems bounds an answer: nobody reads more, and the file is hostile.
const maxProblems = 100

// Problem is one mistake in a pipeline file.
type Problem struct {
	File    string `json:"file"`
	Line    int    `json:"line"`   // from 1
	Column  int    `json:"column"` // from 1, in characters
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`    // did you mean, or what to do
	Snippet string `json:"snippet,omitempty"` // the line, and below it a caret
}

// String is the problem as a compiler prints it, with snippet and hint below.
func (p Problem) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s:%d:%d: %s", p.File, p.Line, p.Column, p.Message)
	if p.Snippet != "" {
		b.WriteString("\n" + p.Snippet)
	}
	if p.Hint != "" {
		b.WriteString("\n  " + p.Hint)
	}
	return b.String()
}

// Problems are all mistakes of a file, in the order of the file.
type Problems []Problem //nolint:errname // it is a list of problems that is also an error

// Error joins all problems.
func (p Problems) Error() string {
	texts := make([]string, len(p))
	for i := range p {
		texts[i] = p[i].String()
	}
	return strings.Join(texts, "\n")
}

// Unwrap gives the problems the kind "invalid" and words for a page.
func (p Problems) Unwrap() error {
	if len(p) == 0 {
		return nil
	}
	why := p[0].Message
	if n := len(p) - 1; n > 0 {
		why += fmt.Sprintf(" (and %d more)", n)
	}
	return &delivery.Error{
		Kind: delivery.KindInvalid,
		What: fmt.Sprintf("%s is not valid", p[0].File),
		Why:  fmt.Sprintf("line %d: %s", p[0].Line, why),
		Next: "See them all:  shunt lint",
	}
}

// position is a place in the file; the zero value stands for its beginning.
type position struct{ line, column int }

// source is the text of a file that is fit to be scanned.
type source struct {
	file  string
	text  string
	lines []string
}

// newSource refuses what is no text of a bearable size, and brings line ends to
// one form so that positions and block scalars do not depend on the editor.
func newSource(file string, data []byte) (*source, *Problem) {
	at := func(line, column int, message, hint string) *Problem {
		return &Problem{File: file, Line: line, Column: column, Message: message, Hint: hint}
	}
	if len(data) > MaxBytes {
		return nil, at(1, 1, fmt.Sprintf("the file has %d bytes; the limit is %d", len(data), MaxBytes), "move long scripts into files of the repository")
	}
	text := strings.TrimPrefix(string(data), "\ufeff")
	text = strings.ReplaceAll(text, "\r\n", "\n")
	text = strings.ReplaceAll(text, "\r", "\n")
	line, column, signs := 1, 1, 0
	for i, r := range text {
		if strings.ContainsRune("[]{},:-&*!?#\"'|>%", r) {
			signs++
		}
		switch {
		case line > maxLines:
			return nil, at(line, 1, fmt.Sprintf("the file has more than %d lines", maxLines), "move long scripts into files of the repository")
		case signs > maxSigns:
			return nil, at(line, column, fmt.Sprintf("the file has more than %d characters that may mean something in YAML", maxSigns), "move long scripts into files of the repository")
		case r == utf8.RuneError && strings.HasPrefix(text[i:], "\ufffd"):
			// The character U+FFFD itself is legal; only a broken encoding is not.
		case r == utf8.RuneError:
			return nil, at(line, column, "the file is not UTF-8 text", "save it as UTF-8")
		case r == '\n':
			line, column = line+1, 0
		case r == 0:
			return nil, at(line, column, "the file contains a NUL byte", "a pipeline file is text")
		case r != '\t' && unicode.IsControl(r):
			return nil, at(line, column, fmt.Sprintf("the file contains the control character %U", r), `write it as an escape in double quotes, such as "\e"`)
		}
		column++
	}
	return &source{file: file, text: text, lines: strings.Split(text, "\n")}, nil
}

// problem makes a Problem at a place, which it moves inside the file if it must.
func (s *source) problem(at position, message, hint string) Problem {
	line := min(max(at.line, 1), len(s.lines))
	text := []rune(s.lines[line-1])
	column := min(max(at.column, 1), len(text)+1)
	return Problem{
		File: s.file, Line: line, Column: column,
		Message: message, Hint: hint, Snippet: snippet(text, line, column),
	}
}

// snippet is the line cut to what fits a terminal, and a caret under column.
// It goes to terminals and pages, so only printable characters are in it.
func snippet(text []rune, line, column int) string {
	const width = 100
	from := 0
	if column > width*3/4 {
		from = column - width/2
	}
	shown := slices.Clone(text[min(from, len(text)):min(from+width, len(text))])
	for i, r := range shown {
		switch {
		case r == '\t':
			shown[i] = ' '
		case !unicode.IsPrint(r):
			shown[i] = '?'
		}
	}
	number := strconv.Itoa(line)
	return fmt.Sprintf("  %s | %s\n  %s | %s^", number, string(shown),
		strings.Repeat(" ", len(number)), strings.Repeat(" ", column-1-from))
}

// collector gathers the problems of one file.
type collector struct {
	src  *source
	list []Problem
}

func (c *collector) add(at position, hint, format string, args ...any) {
	if len(c.list) < maxProblems {
		c.list = append(c.list, c.src.problem(at, fmt.Sprintf(format, args...), hint))
	}
}

// problems returns what was found, sorted by place and without doubles (a
// mistake in an anchor is met once per alias).
func (c *collector) problems() Problems {
	slices.SortStableFunc(c.list, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return slices.Compact(c.list)
}

// quoted shows hostile text in a message: escaped, and cut to a bearable length.
func quoted(s string) string {
	const limit = 60
	if utf8.RuneCountInString(s) > limit {
		s = string([]rune(s)[:limit]) + "…"
	}
	return strconv.Quote(s)
}

// short is quoted without the quotes, for names.
func short(s string) string { return strings.Trim(quoted(s), `"`) }

// plain shows a sentence of the YAML library, which may quote hostile text.
func plain(s string) string {
	const limit = 200
	if utf8.RuneCountInString(s) > limit {
		s = string([]rune(s)[:limit]) + "…"
	}
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}

// didYouMean finds the candidate nearest to what was written; "" when none is near.
func didYouMean(written string, candidates []string) string {
	if len(written) > 64 {
		return ""
	}
	best, distance := "", 1+min(3, (len(written)+2)/3)
	for _, candidate := range candidates {
		if d := editDistance(strings.ToLower(written), strings.ToLower(candidate)); d < distance {
			best, distance = candidate, d
		}
	}
	return best
}

// editDistance counts insertions, deletions, substitutions and swaps of
// neighbours (optimal string alignment).
func editDistance(a, b string) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}

// oneOf lists words for a hint: "a, b or c".
func oneOf(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:len(words)-1], ", ") + " or " + words[len(words)-1]
}
