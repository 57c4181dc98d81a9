package gitrepo

import (
	"bytes"
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/shuntcd/shunt/internal/delivery"
)

// Resolve turns a full ref name of the mirror or a full object id into the id
// of its commit; tags are peeled. The error is of KindNotFound when there is no
// such commit, and of KindInvalid when rev is neither of the two.
func (r *Repo) Resolve(ctx context.Context, rev string) (string, error) {
	if r.invalid != nil {
		return "", r.invalid
	}
	id := rev
	if !isID(rev) {
		if err := checkRef(rev); err != nil {
			return "", err
		}
		object, kind, err := r.ref(ctx, rev)
		if err != nil || kind == "commit" {
			return object, err
		}
		id = object
	}
	c := r.inside("rev-parse", "--verify", "--quiet")
	c.operands = []string{id + "^{commit}"}
	out, err := r.run(ctx, c)
	if exitCode(err) == 1 || exitCode(err) == 128 {
		return "", r.notFound(rev, err)
	}
	if err != nil {
		return "", err
	}
	return strings.TrimSpace(string(out)), nil
}

// ref reads exactly one ref. rev-parse is not asked, because for a missing
// refs/heads/x it also tries refs/heads/refs/heads/x, which anybody can push.
func (r *Repo) ref(ctx context.Context, ref string) (object, kind string, err error) {
	c := r.inside("for-each-ref", "--format=%(objectname)%09%(objecttype)%09%(refname)")
	c.operands = []string{ref}
	out, err := r.run(ctx, c)
	if err != nil {
		return "", "", err
	}
	for line := range strings.Lines(string(out)) {
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), "\t", 3)
		if len(f) == 3 && f[2] == ref {
			return f[0], f[1], nil
		}
	}
	return "", "", r.notFound(ref, nil)
}

func (r *Repo) notFound(rev string, err error) error {
	return &delivery.Error{
		Kind: delivery.KindNotFound, What: fmt.Sprintf("no commit %.200q", rev), Why: r.project + " has none there", Err: err,
	}
}

// id is rev when that is an object id, else what it resolves to.
func (r *Repo) id(ctx context.Context, rev string) (string, error) {
	if r.invalid != nil {
		return "", r.invalid
	}
	if isID(rev) {
		return rev, nil
	}
	return r.Resolve(ctx, rev)
}

// ids turns include and exclude into operands of a walk: a, b, ^c.
func (r *Repo) ids(ctx context.Context, include, exclude []string) ([]string, error) {
	operands := make([]string, 0, len(include)+len(exclude))
	for i, rev := range append(append(operands, include...), exclude...) {
		id, err := r.id(ctx, rev)
		if err != nil {
			return nil, err
		}
		if i >= len(include) {
			id = "^" + id
		}
		operands = append(operands, id)
	}
	return operands, nil
}

const (
	logFormat = "--format=%H%x00%T%x00%P%x00%an%x00%ae%x00%at%x00%s"
	logFields = 7
)

// Commit reads one commit. Its texts are made valid UTF-8; they are hostile.
func (r *Repo) Commit(ctx context.Context, id string) (delivery.Commit, error) {
	if err := checkID(id); err != nil {
		return delivery.Commit{}, err
	}
	commits, err := r.Log(ctx, []string{id}, nil, 1)
	if err != nil {
		return delivery.Commit{}, err
	}
	if len(commits) != 1 {
		return delivery.Commit{}, r.notFound(id, nil)
	}
	return commits[0], nil
}

// Log lists the commits that are reachable from include and not from exclude,
// children before parents, at most limit of them when that is above 0. Both
// hold object ids or full ref names.
func (r *Repo) Log(ctx context.Context, include, exclude []string, limit int) ([]delivery.Commit, error) {
	if len(include) == 0 {
		return nil, nil
	}
	operands, err := r.ids(ctx, include, exclude)
	if err != nil {
		return nil, err
	}
	c := r.inside("log", "-z", "--no-patch", "--no-show-signature", "--encoding=UTF-8", "--no-color", logFormat)
	if limit > 0 {
		c.args = append(c.args, "--max-count="+strconv.Itoa(limit))
	}
	if limit != 1 {
		c.args = append(c.args, "--topo-order")
	}
	c.operands = operands
	out, err := r.run(ctx, c)
	if err != nil {
		return nil, r.missing(include, err)
	}
	return parseLog(out)
}

// missing turns git's refusal to know a commit into KindNotFound.
func (r *Repo) missing(revs []string, err error) error {
	if exitCode(err) == 128 {
		return r.notFound(strings.Join(revs, ", "), err)
	}
	return err
}

func parseLog(out []byte) ([]delivery.Commit, error) {
	if len(out) == 0 {
		return nil, nil
	}
	f := bytes.Split(bytes.TrimSuffix(out, []byte{0}), []byte{0})
	if len(f)%logFields != 0 {
		return nil, fmt.Errorf("git log: %d fields are no multiple of %d", len(f), logFields)
	}
	commits := make([]delivery.Commit, 0, len(f)/logFields)
	for ; len(f) > 0; f = f[logFields:] {
		c := delivery.Commit{
			ID: string(f[0]), Tree: string(f[1]), Parents: strings.Fields(string(f[2])),
			AuthorName: text(f[3]), AuthorEmail: text(f[4]), Subject: text(f[6]),
		}
		// A commit can carry any rubbish as its date.
		if at, err := strconv.ParseInt(string(f[5]), 10, 64); err == nil && at >= 0 && at < maxUnix {
			c.AuthoredAt = time.Unix(at, 0).UTC()
		}
		commits = append(commits, c)
	}
	return commits, nil
}

const maxUnix = 253402300800 // the year 10000, which time's JSON form does not reach

// IsAncestor tells whether commit b contains commit a; a commit contains itself.
func (r *Repo) IsAncestor(ctx context.Context, a, b string) (bool, error) {
	operands, err := r.ids(ctx, []string{a, b}, nil)
	if err != nil {
		return false, err
	}
	pair := ancestry{r.mirror, a, b}
	fixed := isID(a) && isID(b) // what objects say never changes; what refs say does
	if fixed {
		if known, ok := r.git.ancestry.Load(pair); ok {
			return known == true, nil
		}
	}
	c := r.inside("merge-base", "--is-ancestor")
	c.operands = operands
	_, err = r.run(ctx, c)
	if err != nil && exitCode(err) != 1 {
		return false, r.missing(operands, err)
	}
	if fixed {
		r.git.remember(pair, err == nil)
	}
	return err == nil, nil
}

// ancestry is a question about two commits of a mirror.
type ancestry struct{ mirror, a, b string }

// maxAncestry bounds the answers that are remembered; then they are all forgotten.
const maxAncestry = 20000

func (g *Git) remember(question ancestry, answer bool) {
	if g.ancestries.Add(1)%maxAncestry == 0 {
		g.ancestry.Clear()
	}
	g.ancestry.Store(question, answer)
}

// MergeBase is the best common ancestor of two commits, or "" when they have none.
func (r *Repo) MergeBase(ctx context.Context, a, b string) (string, error) {
	operands, err := r.ids(ctx, []string{a, b}, nil)
	if err != nil {
		return "", err
	}
	c := r.inside("merge-base")
	c.operands = operands
	out, err := r.run(ctx, c)
	switch {
	case err == nil:
		return strings.TrimSpace(string(out)), nil
	case exitCode(err) == 1:
		return "", nil
	}
	return "", r.missing(operands, err)
}
