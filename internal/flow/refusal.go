package flow

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/shuntcd/shunt/internal/delivery"
)

// Refusal is a rule's no, in words for the person who ran into it.
type Refusal struct {
	What       string   // "cannot promote build 44"
	Why        string   // "it does not contain hotfix cart-500 (build 43, 3f9c1e2), which is in production"
	Mend       []string // exact commands for sh, in order; none where only Next helps
	EqualPatch int64    // the production build that may be accepted --without; 0: none
	Next       string   // what to do, in words; the commands of Mend follow it
}

// Err turns a refusal into the error that a person reads. It is not for a nil
// Refusal, which is a yes.
func (r *Refusal) Err() *delivery.Error {
	next, gap := r.Next, "   "
	if len(r.Mend) == 1 {
		next += "  " + r.Mend[0]
	} else {
		for _, command := range r.Mend {
			next += "\n  " + command
			gap = "\n"
		}
	}
	if r.EqualPatch != 0 {
		next += fmt.Sprintf("%sOverride:  --without %d -m \"reason\"", gap, r.EqualPatch)
	}
	return &delivery.Error{Kind: delivery.KindRefused, What: r.What, Why: r.Why, Next: next}
}

// Quote makes one word for sh of a hostile text, such as a branch name. Printable
// text stands in single quotes. Anything that a terminal could obey or hide
// (control and format characters, broken UTF-8) is spelled by printf, so that the
// command can be shown and copied; line ends at the very end are lost then, and a
// NUL has no place in a command at all. Git allows neither in a ref name.
func Quote(s string) string {
	if printable(s) {
		return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
	}
	var b strings.Builder
	for _, c := range []byte(s) {
		fmt.Fprintf(&b, `\%03o`, c)
	}
	return `"$(printf '` + b.String() + `')"`
}

func printable(s string) bool {
	return utf8.ValidString(s) && strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) < 0
}

// word quotes only what needs it: tags and remotes are nearly always plain.
func word(s string) string {
	plain := func(r rune) bool {
		return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("/._-", r)
	}
	if s != "" && strings.IndexFunc(s, func(r rune) bool { return !plain(r) }) < 0 {
		return s
	}
	return Quote(s)
}

// clean makes hostile text fit for the middle of a sentence: one line, nothing
// that a terminal obeys, at most 300 characters.
func clean(s string) string { return cut(s, 300) }

func cut(s string, limit int) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, s)
	if utf8.RuneCountInString(s) > limit {
		s = string([]rune(s)[:limit-1]) + "…"
	}
	return s
}

// list joins at most five words and counts the rest: "a, b and 3 more".
func list(words []string) string {
	const limit = 5
	if len(words) <= limit {
		return strings.Join(words, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(words[:limit], ", "), len(words)-limit)
}

// count is "1 commit" or "2 commits".
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return strconv.Itoa(n) + " " + noun + "s"
}

func commitWords(commits []delivery.Commit) string {
	words := make([]string, len(commits))
	for i, c := range commits {
		words[i] = delivery.ShortHash(c.ID)
		if c.Subject != "" {
			words[i] += " " + strconv.Quote(cut(c.Subject, 60))
		}
	}
	return list(words)
}
