package gitrepo

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/shuntcd/shunt/internal/delivery"
)

// MergeTree merges two commits without a work tree and without moving a ref. It
// returns the merged tree, or the files in conflict; then the tree is empty.
func (r *Repo) MergeTree(ctx context.Context, into, commit string) (tree string, conflicts []string, err error) {
	operands, err := r.ids(ctx, []string{into, commit}, nil)
	if err != nil {
		return "", nil, err
	}
	c := r.inside("merge-tree", "--write-tree", "--name-only", "--no-messages", "-z")
	c.operands = operands
	out, err := r.run(ctx, c)
	if err != nil && exitCode(err) != 1 {
		if e, ok := errors.AsType[*exitError](err); ok && strings.Contains(e.stderr, "unrelated histories") {
			return "", nil, &delivery.Error{
				Kind: delivery.KindConflict, Err: err,
				What: fmt.Sprintf("cannot merge %s into %s", delivery.ShortHash(operands[1]), delivery.ShortHash(operands[0])),
				Why:  "they have no commit in common",
			}
		}
		return "", nil, r.missing(operands, err)
	}
	parts := strings.Split(strings.TrimRight(text(out), "\x00"), "\x00")
	if !isID(parts[0]) {
		return "", nil, errors.New("git merge-tree: no tree in its answer")
	}
	if exitCode(err) == 1 {
		return "", parts[1:], nil
	}
	return parts[0], nil, nil
}

// Forecast says what would happen if commit were merged into another one. It
// changes nothing that anybody sees.
func (r *Repo) Forecast(ctx context.Context, into, commit string) (delivery.Forecast, error) {
	operands, err := r.ids(ctx, []string{into, commit}, nil)
	if err != nil {
		return delivery.Forecast{}, err
	}
	f := delivery.Forecast{Into: operands[0], Commit: operands[1]}
	if f.Contained, err = r.IsAncestor(ctx, f.Commit, f.Into); err != nil || f.Contained {
		return f, err
	}
	_, f.Conflicts, err = r.MergeTree(ctx, f.Into, f.Commit)
	return f, err
}

// Message is what a commit or tag made by Shunt says, and who says it when. The
// same Message makes the same object id, so that making it again after a crash
// is no second effect.
type Message struct {
	Subject  string
	Body     string      // may be empty
	Trailers [][2]string // key and value, in this order, as the last paragraph
	Name     string      // of the author, committer or tagger
	Email    string
	At       time.Time // used in whole seconds, UTC
}

// String is the message as git stores it.
func (m Message) String() string {
	var b strings.Builder
	b.WriteString(oneLine(m.Subject) + "\n")
	if body := strings.TrimSpace(lines(m.Body)); body != "" {
		b.WriteString("\n" + body + "\n")
	}
	for i, t := range m.Trailers {
		if i == 0 {
			b.WriteString("\n")
		}
		b.WriteString(oneLine(t[0]) + ": " + oneLine(t[1]) + "\n")
	}
	return b.String()
}

// check refuses what git would refuse or silently change.
func (m Message) check() error {
	switch {
	case oneLine(m.Subject) == "":
		return delivery.Errf(delivery.KindInvalid, "bad commit message", "the subject is empty")
	case !ident(m.Name) || !ident(m.Email) || strings.Contains(m.Email, " "):
		return delivery.Errf(delivery.KindInvalid, "bad identity", fmt.Sprintf("git does not allow %.80q <%.80q>", m.Name, m.Email))
	case m.At.Unix() <= 0 || m.At.Unix() >= maxUnix:
		return delivery.Errf(delivery.KindInvalid, "bad date", "a commit or tag needs one after 1970")
	}
	for _, t := range m.Trailers {
		if !trailerKey(t[0]) {
			return delivery.Errf(delivery.KindInvalid, "bad trailer", fmt.Sprintf("%.80q is not a word of letters, digits and dashes", t[0]))
		}
	}
	return nil
}

// ident refuses names that git strips or that break a header apart.
func ident(s string) bool {
	const crud = ".,:;<>\"\\' "
	return s != "" && s == oneLine(s) && !strings.ContainsAny(s, "<>\n") &&
		strings.Trim(s, crud) == s
}

func trailerKey(s string) bool {
	for _, c := range s {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return s != "" && s[0] != '-'
}

// lines drops control characters but line breaks and tabs.
func lines(s string) string {
	return strings.Map(func(c rune) rune {
		if c != '\n' && c != '\t' && (c < ' ' || c >= 0x7f && c < 0xa0) {
			return -1
		}
		return c
	}, text([]byte(strings.ReplaceAll(s, "\r\n", "\n"))))
}

// oneLine makes one line with single spaces of a text.
func oneLine(s string) string { return strings.Join(strings.Fields(lines(s)), " ") }

// MergeCommit writes a commit of a tree with the given parents into the mirror
// and returns its id. No ref moves; Push does that.
func (r *Repo) MergeCommit(ctx context.Context, tree string, parents []string, m Message) (string, error) {
	if r.invalid != nil {
		return "", r.invalid
	}
	if err := m.check(); err != nil {
		return "", err
	}
	if err := checkID(tree); err != nil {
		return "", err
	}
	date := fmt.Sprintf("@%d +0000", m.At.Unix())
	c := r.inside("commit-tree", "--no-gpg-sign")
	for _, id := range parents {
		if err := checkID(id); err != nil {
			return "", err
		}
		c.args = append(c.args, "-p", id)
	}
	c.operands = []string{tree}
	c.env = append(c.env,
		"GIT_AUTHOR_NAME="+m.Name, "GIT_AUTHOR_EMAIL="+m.Email, "GIT_AUTHOR_DATE="+date,
		"GIT_COMMITTER_NAME="+m.Name, "GIT_COMMITTER_EMAIL="+m.Email, "GIT_COMMITTER_DATE="+date)
	c.stdin = strings.NewReader(m.String())
	out, err := r.run(ctx, c)
	if err != nil {
		return "", r.missing(append([]string{tree}, parents...), err)
	}
	return strings.TrimSpace(string(out)), nil
}
