package gitrepo

import (
	"encoding/base64"
	"net/netip"
	"net/url"
	"path"
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/shuntcd/shunt/internal/delivery"
)

const maxURL = 2048

var (
	urlUser = regexp.MustCompile(`^[A-Za-z0-9_.~+=][A-Za-z0-9_.~+=-]*$`)
	urlHost = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]*$`)
	urlPort = regexp.MustCompile(`^[0-9]{1,5}$`)
	scpLike = regexp.MustCompile(`^([^@:/]+)@([^@:/\[\]]+|\[[0-9A-Fa-f:.]+\]):(.+)$`)
	helper  = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9+.-]*::`) // git's ext::, fd:: and other remote helpers
)

// CheckURL tells whether Shunt may use raw as the address of a repository:
// https, ssh (also as user@host:path), http to this machine, and, when local is
// true because the operator said so, an absolute path or file:///path. The
// error is a *delivery.Error of KindInvalid and does not repeat the URL.
func CheckURL(raw string, local bool) error {
	if why := badURL(raw, local); why != "" {
		return &delivery.Error{Kind: delivery.KindInvalid, What: "bad repository URL", Why: why, Next: "Give https://host/path, ssh://user@host/path or user@host:path."}
	}
	return nil
}

// badURL says what is wrong with a URL, or "".
func badURL(raw string, local bool) string {
	switch {
	case raw == "":
		return "it is empty"
	case len(raw) > maxURL:
		return "it is too long"
	case !utf8.ValidString(raw):
		return "it is not UTF-8"
	case strings.HasPrefix(raw, "-"):
		return "it begins with a dash"
	case helper.MatchString(raw):
		return "git remote helpers (name::address) are not allowed"
	case hasControl(raw):
		return "it has control characters"
	}
	if strings.HasPrefix(raw, "/") || strings.HasPrefix(raw, "file:") {
		return badPath(raw, local)
	}
	if strings.ContainsAny(raw, " \\\"'`<>") {
		return "it has spaces, quotes or backslashes"
	}
	if !strings.Contains(raw, "://") {
		return badSCP(raw)
	}
	u, err := url.Parse(raw)
	if err != nil {
		return "it cannot be parsed"
	}
	authority, _, _ := strings.Cut(raw[strings.Index(raw, "://")+3:], "/")
	if strings.Count(authority, "@") > 1 { // which one ends the password is read differently
		return "it has more than one @ before the path"
	}
	if !strings.HasPrefix(raw, u.Scheme+"://") { // git's comparison minds the case
		return "the scheme is not in lower case"
	}
	switch u.Scheme {
	case "https", "ssh":
	case "http":
		if !loopback(u.Hostname()) {
			return "http is only for this machine; use https"
		}
	default:
		return "the scheme is not allowed"
	}
	return badParts(u)
}

func badParts(u *url.URL) string {
	if !goodHost(u.Hostname()) {
		return "the host name is not allowed"
	}
	if p := u.Port(); strings.HasSuffix(u.Host, ":") || p != "" && !urlPort.MatchString(p) {
		return "the port is not a number"
	}
	if u.User != nil {
		password, has := u.User.Password()
		switch {
		case !urlUser.MatchString(u.User.Username()):
			return "the user name is not allowed"
		case has && u.Scheme == "ssh":
			return "ssh takes no password; use a key"
		case hasControl(password):
			return "it has control characters"
		}
	}
	if u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || u.Opaque != "" {
		return "it has a query or a fragment"
	}
	return badRepoPath(u.Path)
}

func badSCP(raw string) string {
	m := scpLike.FindStringSubmatch(raw)
	switch {
	case m == nil:
		return "it is neither a URL nor user@host:path"
	case !urlUser.MatchString(m[1]):
		return "the user name is not allowed"
	case !goodHost(strings.Trim(m[2], "[]")):
		return "the host name is not allowed"
	}
	return badRepoPath(m[3])
}

func badRepoPath(p string) string {
	p = strings.TrimLeft(p, "/")
	switch {
	case p == "":
		return "the path is missing"
	case strings.HasPrefix(p, "-"):
		return "the path begins with a dash"
	case hasControl(p) || !utf8.ValidString(p):
		return "it has control characters"
	}
	for part := range strings.SplitSeq(p, "/") {
		if part == ".." {
			return "the path has .. in it"
		}
	}
	return ""
}

func badPath(raw string, local bool) string {
	if !local {
		return "a path on this machine must be registered as local by the operator"
	}
	p := localPath(raw)
	if p == "" {
		return "a local repository is given as an absolute path or as file:///path"
	}
	if clean := path.Clean(p); clean == "/" || clean != strings.TrimSuffix(p, "/") {
		return "the path is not in its shortest form"
	}
	return ""
}

// localPath is the path of an absolute path or a file URL, else "".
func localPath(raw string) string {
	if rest, ok := strings.CutPrefix(raw, "file://"); ok {
		if strings.Contains(rest, "%") { // git would decode it, or not: say no
			return ""
		}
		raw = rest
	}
	if !strings.HasPrefix(raw, "/") {
		return ""
	}
	return raw
}

// hasControl finds control characters, also percent-encoded ones.
func hasControl(s string) bool {
	for i, r := range s {
		if r < ' ' || r >= 0x7f && r < 0xa0 || r == '\u2028' || r == '\u2029' {
			return true
		}
		if r == '%' && i+2 < len(s) {
			switch hi := s[i+1]; {
			case hi == '0' || hi == '1':
				return true
			case hi == '7' && (s[i+2] == 'f' || s[i+2] == 'F'):
				return true
			}
		}
	}
	return false
}

func goodHost(h string) bool {
	if strings.Contains(h, ":") {
		_, err := netip.ParseAddr(h)
		return err == nil
	}
	return urlHost.MatchString(h)
}

func loopback(host string) bool {
	if host == "localhost" {
		return true
	}
	a, err := netip.ParseAddr(host)
	return err == nil && a.IsLoopback()
}

// remote takes a URL apart: what git is told, and what it is not told on its
// command line because everybody on the machine can read that. Credentials of
// an http URL become a header that is bound to this very repository.
func (r *Repo) remote(raw string, local bool) {
	if err := CheckURL(raw, local); err != nil {
		r.invalid = err
		return
	}
	if p := localPath(raw); p != "" {
		r.path = strings.TrimSuffix(p, "/")
		r.url = r.path
		r.env = []string{"GIT_ALLOW_PROTOCOL=file"}
		return
	}
	r.url = raw
	r.env = []string{"GIT_ALLOW_PROTOCOL=https:ssh"}
	u, err := url.Parse(raw)
	if err != nil || u.Scheme == "ssh" || u.Host == "" {
		return // user@host:path does not parse as a URL
	}
	if u.Scheme == "http" {
		r.env = []string{"GIT_ALLOW_PROTOCOL=http"}
	}
	if u.User == nil {
		return
	}
	name, password := u.User.Username(), ""
	if p, ok := u.User.Password(); ok {
		password = p
	}
	u.User = nil
	r.url = u.String()
	basic := base64.StdEncoding.EncodeToString([]byte(name + ":" + password))
	r.secrets = append(r.secrets, basic)
	if password != "" {
		r.secrets = append(r.secrets, password, url.QueryEscape(password), url.PathEscape(password))
	} else {
		r.secrets = append(r.secrets, name) // a token given as the user
	}
	r.env = append(r.env,
		"GIT_CONFIG_COUNT=1",
		"GIT_CONFIG_KEY_0=http."+r.url+".extraHeader",
		"GIT_CONFIG_VALUE_0=Authorization: Basic "+basic)
}
