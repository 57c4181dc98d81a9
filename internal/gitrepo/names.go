package gitrepo

import (
	"fmt"
	"strings"

	"github.com/shuntcd/shunt/internal/delivery"
)

const (
	heads = "refs/heads/"
	tags  = "refs/tags/"
)

// isID tells whether s is a full object id: 40 (SHA-1) or 64 (SHA-256) lower-case hex digits.
func isID(s string) bool {
	if len(s) != 40 && len(s) != 64 {
		return false
	}
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

func checkID(s string) error {
	if !isID(s) {
		return delivery.Errf(delivery.KindInvalid, "bad object id", fmt.Sprintf("%.80q is not 40 or 64 hex digits", s))
	}
	return nil
}

// checkRef applies the rules of git-check-ref-format(1) to a full ref name, and
// wants it under refs/.
func checkRef(ref string) error {
	if !isRef(ref) {
		return delivery.Errf(delivery.KindInvalid, "bad ref name", fmt.Sprintf("git does not allow %.200q", ref))
	}
	return nil
}

func isRef(ref string) bool {
	if !strings.HasPrefix(ref, "refs/") || strings.Count(ref, "/") < 2 || len(ref) > 1024 ||
		strings.Contains(ref, "..") || strings.Contains(ref, "@{") || strings.HasSuffix(ref, ".") ||
		strings.ContainsAny(ref, " ~^:?*[\\\x7f") {
		return false
	}
	for i := range len(ref) {
		if ref[i] < ' ' {
			return false
		}
	}
	for part := range strings.SplitSeq(ref, "/") {
		if part == "" || strings.HasPrefix(part, ".") || strings.HasSuffix(part, ".lock") {
			return false
		}
	}
	return true
}

// BlockedBy finds the ref that makes it impossible to create ref: git keeps refs
// as files, so `production` blocks every `production/1`, and `production/1/x` blocks
// `production/1`. It returns "" when nothing is in the way. refs is what Fetch or
// RemoteRefs gave.
func BlockedBy(refs map[string]string, ref string) string {
	for other := range refs {
		other = strings.TrimSuffix(other, "^{}")
		if strings.HasPrefix(ref, other+"/") || strings.HasPrefix(other, ref+"/") {
			return other
		}
	}
	return ""
}
