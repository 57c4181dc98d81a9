package artifact

import (
	"path"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/shuntcd/shunt/internal/delivery"
)

// Expand replaces $NAME and ${NAME} in s by vars, in one pass: what a value
// holds is never expanded again. A name that is not in vars, a lone $, a control
// character and a ".." path element in the result are errors of KindInvalid.
func Expand(s string, vars map[string]string) (string, error) {
	refuse := func(why string) (string, error) {
		return "", delivery.Errf(delivery.KindInvalid, "cannot expand \""+clean(s, 200)+"\"", why)
	}
	var b strings.Builder
	for rest := s; rest != ""; {
		before, after, found := strings.Cut(rest, "$")
		b.WriteString(before)
		if !found {
			break
		}
		braces := strings.HasPrefix(after, "{")
		after = strings.TrimPrefix(after, "{")
		n := 0
		for n < len(after) && isNameByte(after[n], n) {
			n++
		}
		name := after[:n]
		rest = after[n:]
		if braces {
			if !strings.HasPrefix(rest, "}") {
				return refuse("a ${ has no closing }")
			}
			rest = rest[1:]
		}
		if name == "" {
			return refuse("a $ is not followed by a name")
		}
		value, ok := vars[name]
		if !ok {
			return refuse("$" + name + " is not known here")
		}
		b.WriteString(value)
	}
	out := b.String()
	if !utf8.ValidString(out) || strings.ContainsFunc(out, unicode.IsControl) {
		return refuse("the result contains control characters")
	}
	for part := range strings.FieldsFuncSeq(out, func(r rune) bool { return r == '/' || r == '\\' }) {
		if part == ".." {
			return refuse("the result contains the path element \"..\"")
		}
	}
	return out, nil
}

func isNameByte(c byte, at int) bool {
	return c == '_' || 'A' <= c && c <= 'Z' || 'a' <= c && c <= 'z' || at > 0 && '0' <= c && c <= '9'
}

// checkName refuses what is not plainly a file name: separators, drive and
// stream colons, shell and URL wildcards, control and direction-changing
// characters, a leading dash (an option) or dot (hidden, "..").
func checkName(what, name string) error {
	var why string
	switch {
	case name == "":
		why = "it is empty"
	case len(name) > 200:
		why = "it is longer than 200 bytes"
	case !utf8.ValidString(name):
		why = "it is not UTF-8"
	case strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) }):
		why = "it contains control characters"
	case strings.ContainsAny(name, `/\:*?"<>|`):
		why = `it contains one of / \ : * ? " < > |`
	case strings.HasPrefix(name, "-"), strings.HasPrefix(name, "."), strings.HasPrefix(name, " "):
		why = "it starts with a dash, dot or space"
	case strings.HasSuffix(name, "."), strings.HasSuffix(name, " "):
		why = "it ends with a dot or space"
	default:
		return nil
	}
	return delivery.Errf(delivery.KindInvalid, "cannot use "+what+" \""+clean(name, 80)+"\"", why)
}

// checkDirectory returns a relative directory without slashes at its ends; each
// element must be a plain name.
func checkDirectory(dir string) (string, error) {
	dir = strings.Trim(dir, "/")
	if dir == "" {
		return "", nil
	}
	for part := range strings.SplitSeq(dir, "/") {
		if err := checkName("directory", part); err != nil {
			return "", err
		}
	}
	return path.Clean(dir), nil
}

// clean makes text from elsewhere fit for one line of an error: control
// characters become spaces, and it is cut at limit runes.
func clean(s string, limit int) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, strings.ToValidUTF8(s, "?"))
	s = strings.Join(strings.Fields(s), " ")
	if r := []rune(s); len(r) > limit {
		s = string(r[:limit]) + "..."
	}
	return s
}
