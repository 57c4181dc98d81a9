package gitrepo

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/shuntcd/shunt/internal/delivery"
)

// RefUpdate moves one ref of the remote.
type RefUpdate struct {
	Ref string // full name
	New string // object id; a commit for a branch
	Old string // what the remote must have there; "": the ref must not exist
}

// PushOutcome says what is known after a push that did not succeed.
type PushOutcome string

// The outcomes. There is no third: what is not known to be refused is unknown.
const (
	PushRejected PushOutcome = "rejected" // known: no ref has moved
	PushUnknown  PushOutcome = "unknown"  // nobody knows; look with RemoteRefs
)

// PushError is a push that did not succeed. Its cause is a *delivery.Error: of
// KindRefused when Shunt's own rules said no, KindConflict when the remote did,
// KindUnavailable when the outcome is unknown.
type PushError struct {
	Outcome PushOutcome
	Output  string            // what git and the remote's hooks said; hostile, without control characters and secrets
	Refs    map[string]string // full ref name -> why it was rejected, in git's words
	Err     error
}

func (e *PushError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *PushError) Unwrap() error { return e.Err }

// Push moves refs of the remote, all or none, each only from its Old. Branches
// only move forward and tags are only made: anything else is refused before git
// is asked. A ref that is already at New counts as done. The error is a
// *PushError, or a *delivery.Error of KindInvalid for a malformed update.
func (r *Repo) Push(ctx context.Context, updates []RefUpdate) error {
	if r.invalid != nil {
		return r.invalid
	}
	if len(updates) == 0 {
		return nil
	}
	c := r.network("push", "--porcelain", "--atomic", "--no-verify", "--no-follow-tags", "--no-signed", "--recurse-submodules=no")
	c.operands = []string{r.url}
	for _, u := range updates {
		if err := r.checkUpdate(ctx, u); err != nil {
			return err
		}
		c.args = append(c.args, "--force-with-lease="+u.Ref+":"+u.Old)
		c.operands = append(c.operands, u.New+":"+u.Ref)
	}
	out, err := r.git.run(ctx, c)
	if err == nil {
		return nil
	}
	return r.pushError(err, parsePush(out), updates)
}

// checkUpdate holds "nothing is ever force-pushed": a lease alone would let a
// branch jump.
func (r *Repo) checkUpdate(ctx context.Context, u RefUpdate) error {
	if err := checkRef(u.Ref); err != nil {
		return err
	}
	if err := checkID(u.New); err != nil {
		return err
	}
	if u.Old == "" {
		return nil
	}
	if err := checkID(u.Old); err != nil {
		return err
	}
	if u.Old == u.New {
		return nil
	}
	refuse := func(why string) error {
		return &PushError{
			Outcome: PushRejected, Refs: map[string]string{u.Ref: why},
			Err: delivery.Errf(delivery.KindRefused, "cannot push "+short(u.Ref), why),
		}
	}
	if !strings.HasPrefix(u.Ref, heads) {
		return refuse("a tag that exists is never moved")
	}
	switch forward, err := r.IsAncestor(ctx, u.Old, u.New); {
	case delivery.IsKind(err, delivery.KindNotFound):
		return refuse("its old commit is not known here; fetch first")
	case err != nil:
		return &PushError{
			Outcome: PushRejected, Output: err.Error(),
			Err: &delivery.Error{Kind: delivery.KindUnavailable, What: "cannot push " + short(u.Ref), Why: "nothing was sent: git could not compare the commits", Err: err},
		}
	case !forward:
		return refuse("it would lose commits; branches only move forward")
	}
	return nil
}

// pushed is one line of `git push --porcelain`: flag, ref, summary.
type pushed struct {
	flag    byte
	ref     string
	summary string // "[rejected] (stale info)"
}

func parsePush(out []byte) []pushed {
	var refs []pushed
	for line := range strings.Lines(text(out)) {
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), "\t", 3)
		if len(f) != 3 || len(f[0]) != 1 {
			continue // "To <url>", "Done"
		}
		_, ref, _ := strings.Cut(f[1], ":")
		refs = append(refs, pushed{f[0][0], ref, clean([]byte(f[2]), nil)})
	}
	return refs
}

// pushError decides whether a failed push is known not to have happened. It is
// when git never talked to the remote's receiving end, or when that end (or git,
// looking at the refs that it advertised) has said no to every ref that was to
// move; the push is atomic. A lost report is not a no.
func (r *Repo) pushError(err error, refs []pushed, updates []RefUpdate) error {
	e := &PushError{Outcome: PushUnknown, Output: err.Error(), Refs: map[string]string{}}
	x, exited := errors.AsType[*exitError](err)
	if exited {
		e.Output = x.stderr
	}
	rejected := exited && x.code == 1 && len(refs) > 0
	for _, p := range refs {
		switch {
		case p.flag == '!' && (strings.HasPrefix(p.summary, "[rejected]") || strings.HasPrefix(p.summary, "[remote rejected]")):
			e.Refs[p.ref] = p.summary
		case p.flag == '=': // was there before
		default:
			rejected = false
		}
	}
	rejected = rejected && len(e.Refs) > 0
	_, notStarted := errors.AsType[*startError](err)
	noAtomic := exited && strings.Contains(x.stderr, "the receiving end does not support --atomic push")
	if !rejected && !notStarted && !noAtomic {
		e.Err = &delivery.Error{
			Kind: delivery.KindUnavailable, What: "nobody knows whether the push to " + r.project + " arrived",
			Why: unknownReason(err, e.Output), Err: err,
		}
		return e
	}
	e.Outcome = PushRejected
	why := "git could not be started"
	switch {
	case noAtomic:
		why = "the remote cannot move several refs at once (no atomic push)"
	case rejected:
		why = rejection(e, updates)
	}
	e.Err = &delivery.Error{Kind: delivery.KindConflict, What: "the push to " + r.project + " was rejected", Why: why, Err: err}
	return e
}

func unknownReason(err error, output string) string {
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return "the remote did not answer in time"
	case errors.Is(err, context.Canceled):
		return "it was cut short"
	}
	return summary(output)
}

// rejection puts git's words into a person's.
func rejection(e *PushError, updates []RefUpdate) string {
	words := []struct{ git, person string }{
		{"stale info", "has changed on the remote meanwhile"},
		{"non-fast-forward", "would lose commits"},
		{"hook declined", "was refused by a hook of the remote"},
		{"protected branch", "is protected on the remote"},
	}
	var why []string
	for _, u := range updates {
		said := e.Refs[u.Ref]
		other := inTheWay(u.Ref, e.Output)
		if said == "" || other == "" && strings.Contains(said, "atomic") { // only because of another ref
			continue
		}
		reason := "was rejected " + strings.TrimPrefix(strings.TrimPrefix(said, "[remote rejected] "), "[rejected] ")
		for _, w := range words {
			if strings.Contains(said, w.git) {
				reason = w.person
				break
			}
		}
		if u.Old == "" && strings.Contains(said, "stale info") {
			reason = "exists already on the remote, as something else"
		}
		if other != "" {
			reason = "cannot exist beside " + short(other) + ", whose name is in the way"
		}
		why = append(why, short(u.Ref)+" "+reason)
	}
	if len(why) == 0 {
		return summary(e.Output)
	}
	if said := hookSaid(e.Output); said != "" {
		why = append(why, "it says: "+said)
	}
	return strings.Join(why, "; ")
}

// hookSaid is the first line that a hook of the remote printed for people.
func hookSaid(output string) string {
	for line := range strings.Lines(output) {
		if said, ok := strings.CutPrefix(line, "remote: "); ok && strings.TrimSpace(said) != "" && !strings.HasPrefix(said, "error: ") {
			return fmt.Sprintf("%.200s", clean([]byte(strings.TrimSpace(said)), nil))
		}
	}
	return ""
}

// inTheWay reads the ref out of "cannot lock ref 'a/b': 'a' exists; cannot create 'a/b'".
func inTheWay(ref, output string) string {
	_, rest, ok := strings.Cut(output, "cannot lock ref '"+ref+"': '")
	if !ok {
		return ""
	}
	other, tail, _ := strings.Cut(rest, "'")
	if !strings.HasPrefix(tail, " exists; cannot create") {
		return ""
	}
	return other
}

// short is a ref name as a person says it.
func short(ref string) string {
	if name, ok := strings.CutPrefix(ref, heads); ok {
		return fmt.Sprintf("branch %.200q", name)
	}
	if name, ok := strings.CutPrefix(ref, tags); ok {
		return fmt.Sprintf("tag %.200q", name)
	}
	return fmt.Sprintf("%.200q", ref)
}
