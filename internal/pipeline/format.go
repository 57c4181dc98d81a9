package pipeline

import (
	"fmt"
	"net/mail"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/bmatcuk/doublestar/v4"
)

// format is what a text must look like.
type format struct {
	words   string              // the type, in words
	pattern *regexp.Regexp      // nil: any; also in the schema
	hint    string              // what is right
	more    func(string) string // what a pattern cannot say; returns what is wrong, or ""
}

// The patterns of names. They use only what Go and ECMA-262 read alike, because
// the schema carries them.
var (
	namePattern        = regexp.MustCompile(`^([a-wyzA-Z][a-zA-Z0-9_-]{0,62}|x([a-zA-Z0-9_][a-zA-Z0-9_-]{0,61})?)$`) // x- is for extensions
	poolPattern        = regexp.MustCompile(`^[a-zA-Z][a-zA-Z0-9_-]{0,62}$`)
	projectPattern     = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)
	secretPattern      = regexp.MustCompile(`^[A-Z_][A-Z0-9_]{0,127}$`)
	envPattern         = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,127}$`)
	personPattern      = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._@+-]{0,126}$`)
	repositoryPattern  = regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,126}$`)
	durationPattern    = regexp.MustCompile(`^([0-9]{1,6}[smhd])+$`)
	durationPart       = regexp.MustCompile(`[0-9]+[smhd]`)
	coordinatesPattern = regexp.MustCompile(`^[A-Za-z0-9_.$-]+(:[A-Za-z0-9_.$-]+){3,4}$`)
	webPattern         = regexp.MustCompile(`^https?://`)
	readyPattern       = regexp.MustCompile(`^(https?://|/)`)
)

// formatOf is the table of formats.
func formatOf(name string) format {
	switch name {
	case "name":
		return format{words: "a name", pattern: namePattern, hint: "a name starts with a letter; letters, digits, - and _ may follow, 63 characters at most; x- is left for extensions"}
	case "pool":
		return format{words: "the name of a pool", pattern: poolPattern, hint: "a name starts with a letter; letters, digits, - and _ may follow"}
	case "project":
		return format{words: "a project name", pattern: projectPattern, hint: "lower case letters, digits and -, 63 characters at most"}
	case "secret":
		return format{words: "the name of a secret", pattern: secretPattern, hint: "such as NEXUS_PASSWORD: upper case letters, digits and _", more: reservedSecret}
	case "env":
		return format{words: "the name of an environment variable", pattern: envPattern, hint: "letters, digits and _", more: reservedVariable}
	case "person":
		return format{words: "a person or group", pattern: personPattern, hint: "the name of a person or a group"}
	case "repository":
		return format{words: "a repository name", pattern: repositoryPattern, hint: "letters, digits, dot, - and _"}
	case "email":
		return format{words: "a mail address", hint: "such as team@example.org", more: badEmail}
	case "url":
		return format{words: "an http or https URL", pattern: webPattern, hint: "such as https://petstore.example.org", more: func(s string) string { return badURL(s, false) }}
	case "build-url":
		return format{words: "an http or https URL, may contain $SHUNT_BUILD", pattern: webPattern, hint: "such as https://files.example.org/petstore/$SHUNT_BUILD.tar.gz", more: func(s string) string { return badURL(s, true) }}
	case "ready":
		return format{words: "a path or URL", pattern: readyPattern, hint: "an absolute http or https URL, or a path that starts with /", more: badReady}
	case "glob":
		return format{words: "a path or glob", hint: "relative to the work directory, such as dist/*.tar.gz", more: badGlob}
	case "branch":
		return format{words: "a branch", hint: "the short name, such as develop", more: badRef}
	case "hotfix":
		return format{words: "a branch pattern with one *", hint: "such as hotfix/*", more: badHotfix}
	case "tag":
		return format{words: "a tag with $N for the build number", hint: "such as build/$N", more: badTag}
	case "coordinates":
		return format{words: "group:artifact:version:packaging[:classifier], may contain $SHUNT_BUILD", pattern: coordinatesPattern, hint: "such as org.example:petstore:1.0.$SHUNT_BUILD:tar.gz", more: badCoordinates}
	case "directory":
		return format{words: "a directory, may contain $SHUNT_BUILD", hint: "such as /petstore/$SHUNT_BUILD", more: badDirectory}
	case "regexp":
		return format{words: "a regular expression", hint: "such as SHOP-[0-9]+, in the syntax of RE2", more: badRegexp}
	case "ticket-url":
		return format{words: "an http or https URL with {ticket}", pattern: webPattern, hint: "such as https://tracker.example.org/browse/{ticket}", more: badTicketURL}
	case "shell":
		return format{words: "a shell command", hint: "", more: badShell}
	}
	return format{words: "text"}
}

// check tells what is wrong with s; "" when nothing is.
func (f format) check(s string) string {
	if f.pattern != nil && !f.pattern.MatchString(s) {
		return "this is not " + f.words
	}
	if f.more != nil {
		return f.more(s)
	}
	return ""
}

// describe adds to a schema what it can say about the format.
func (f format) describe(o object) {
	if f.pattern != nil {
		o["pattern"] = f.pattern.String()
	}
	if f.words == "a mail address" {
		o["format"] = "email"
	}
}

// reservedSecret protects the variables that decide what a step runs.
func reservedSecret(s string) string {
	reserved := []string{"PATH", "HOME", "SHELL", "USER", "LOGNAME", "PWD", "OLDPWD", "TMPDIR", "IFS", "ENV", "BASH_ENV", "CDPATH", "PS4", "CI"}
	if slices.Contains(reserved, s) || strings.HasPrefix(s, "LD_") || strings.HasPrefix(s, "DYLD_") {
		return "a secret cannot replace this variable"
	}
	return reservedVariable(s)
}

func reservedVariable(s string) string {
	if strings.HasPrefix(s, "SHUNT_") {
		return "names that start with SHUNT_ belong to Shunt"
	}
	return ""
}

func badShell(s string) string {
	if strings.TrimSpace(s) == "" {
		return "there is no command"
	}
	return ""
}

// badRegexp checks an expression of RE2, which takes linear time on any text.
func badRegexp(s string) string {
	re, err := regexp.Compile(s)
	switch {
	case len(s) > 200:
		return "it is longer than 200 bytes"
	case err != nil:
		return "this is not a regular expression"
	case re.MatchString(""):
		return "it matches nothing at all, and so everywhere"
	}
	return ""
}

func badTicketURL(s string) string {
	if strings.Count(s, "{ticket}") != 1 {
		return "it must contain {ticket} once, where the name of the ticket goes"
	}
	u, err := url.Parse(strings.ReplaceAll(s, "{ticket}", "T-1"))
	if err == nil && strings.Contains(u.Host, "T-1") {
		return "a ticket cannot name the host"
	}
	return badURL(strings.Replace(s, "{ticket}", "T-1", 1), false)
}

func badEmail(s string) string {
	a, err := mail.ParseAddress(s)
	if err != nil || a.Address != s || len(s) > 254 {
		return "this is not a mail address"
	}
	return ""
}

// badURL checks an absolute URL that people will click and Shunt will call.
func badURL(s string, build bool) string {
	if build {
		s = strings.ReplaceAll(s, "$SHUNT_BUILD", "1")
	}
	if strings.Contains(s, "$") {
		return "variables are not expanded here"
	}
	if strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune("<>\"\\^`{|}", r) }) {
		return "it contains a character that must be escaped in a URL"
	}
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return "this is not a URL"
	case u.Scheme != "http" && u.Scheme != "https":
		return "only http and https are allowed"
	case u.Hostname() == "":
		return "it has no host"
	case u.User != nil:
		return "a password does not belong in the file; use secrets"
	}
	return ""
}

func badReady(s string) string {
	if !strings.HasPrefix(s, "/") {
		return badURL(s, false)
	}
	if strings.HasPrefix(s, "//") {
		return "it starts with two slashes, which names another host"
	}
	return badURL("http://host"+s, false)
}

func badGlob(s string) string {
	switch {
	case s == "":
		return "it is empty"
	case strings.HasPrefix(s, "/"), strings.Contains(s, `\`):
		return "it must be relative, with / between its parts"
	case slices.Contains(strings.Split(s, "/"), ".."):
		return "it leads out of the work directory"
	case !doublestar.ValidatePattern(s):
		return "this is not a glob"
	case strings.ContainsFunc(s, unicode.IsControl):
		return "it contains a control character"
	}
	return ""
}

// badRef follows git-check-ref-format(1), and is stricter: what a shell or an
// option parser might read differently is refused.
func badRef(s string) string {
	const strange = " ~^:?*[\\$`'\"()<>|;&!{}"
	switch {
	case s == "":
		return "it is empty"
	case len(s) > 200:
		return "it is longer than 200 bytes"
	case strings.ContainsFunc(s, func(r rune) bool {
		return r < ' ' || r == 0x7f || strings.ContainsRune(strange, r) || !unicode.IsPrint(r)
	}):
		return "it contains a character that is not allowed in a name of git"
	case strings.HasPrefix(s, "-"), s == "@", s == "HEAD", strings.HasPrefix(s, "refs/"):
		return "git would take it for something else"
	case strings.Contains(s, ".."), strings.Contains(s, "@{"), strings.HasSuffix(s, "."):
		return "git does not allow this name"
	}
	for part := range strings.SplitSeq(s, "/") {
		if part == "" || strings.HasPrefix(part, ".") || strings.HasSuffix(part, ".lock") {
			return "git does not allow this name"
		}
	}
	return ""
}

func badHotfix(s string) string {
	if strings.Count(s, "*") != 1 {
		return "it must contain one *"
	}
	if _, err := path.Match(s, "x"); err != nil {
		return "this is not a pattern"
	}
	return badRef(strings.Replace(s, "*", "x", 1))
}

func badTag(s string) string {
	if strings.Count(s, "$N") != 1 {
		return "it must contain $N once, where the build number goes"
	}
	return badRef(strings.Replace(s, "$N", "1", 1))
}

func badCoordinates(s string) string {
	for part := range strings.SplitSeq(strings.ReplaceAll(s, "$SHUNT_BUILD", "1"), ":") {
		if strings.Contains(part, "$") {
			return "only $SHUNT_BUILD is expanded here"
		}
		if strings.Trim(part, ".") != part || strings.Contains(part, "..") {
			return "a part must not start or end with a dot"
		}
	}
	return ""
}

func badDirectory(s string) string {
	s = strings.ReplaceAll(s, "$SHUNT_BUILD", "1")
	if strings.Contains(s, "$") {
		return "only $SHUNT_BUILD is expanded here"
	}
	if s != "/" && path.Clean("/"+s) != "/"+strings.Trim(s, "/") {
		return "it must not contain . or .. or empty parts"
	}
	return badURL("http://host/"+strings.TrimPrefix(s, "/"), false)
}

// parseDuration reads 90s, 10m, 8h, 3d and sums such as 1h30m; from one second
// to a year.
func parseDuration(s string) (d time.Duration, why string) {
	if !durationPattern.MatchString(s) || len(s) > 32 {
		return 0, "this is not a duration"
	}
	for _, part := range durationPart.FindAllString(s, -1) {
		n, err := strconv.Atoi(part[:len(part)-1])
		if err != nil {
			return 0, "this is not a duration"
		}
		unit := map[byte]time.Duration{'s': time.Second, 'm': time.Minute, 'h': time.Hour, 'd': 24 * time.Hour}[part[len(part)-1]]
		d += time.Duration(n) * unit
	}
	const year = 366 * 24 * time.Hour
	if d < time.Second || d > year {
		return 0, fmt.Sprintf("it must be from 1s to %dd", year/(24*time.Hour))
	}
	return d, ""
}
