package flow

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/shuntcd/shunt/internal/delivery"
)

// MayDecide tells whether a decision may be taken on a gate; nil is yes. The
// store's compare-and-set still has the last word. The error is a *delivery.Error:
// conflict where the gate is no longer what the person saw, invalid where the
// decision lacks something, refused where a stale candidate is promoted.
func MayDecide(g delivery.Gate, d delivery.Decision, now time.Time) error {
	verb := "reject"
	if d.Promote {
		verb = "promote"
	}
	what := "cannot " + verb
	if g.ID != "" {
		what += " " + clean(g.ID)
	}
	fail := func(kind delivery.Kind, why, next string) error {
		return &delivery.Error{Kind: kind, What: what, Why: why, Next: next}
	}
	const again = "Look again, then decide."
	switch {
	case d.GateID != "" && d.GateID != g.ID:
		return fail(delivery.KindInvalid, "the decision names another request: "+clean(d.GateID), again)
	case d.By == "":
		return fail(delivery.KindInvalid, "a decision needs its author", "Sign in.")
	case g.State != delivery.GateOpen:
		return fail(delivery.KindConflict, decidedWords(g), "The first decision counts.")
	case !g.ExpiresAt.IsZero() && !now.Before(g.ExpiresAt):
		return fail(delivery.KindConflict, "the request expired at "+stamp(g.ExpiresAt), "Push again or re-run the build to ask anew.")
	case d.Version != 0 && d.Version != g.Version:
		return fail(delivery.KindConflict, fmt.Sprintf("the request was opened again meanwhile: you saw version %d, it is version %d now", d.Version, g.Version), again)
	case d.Commit != "" && d.Commit != g.Binding.Commit:
		return fail(delivery.KindConflict, fmt.Sprintf("the commit changed: you saw %s, it is %s now", clean(delivery.ShortHash(d.Commit)), delivery.ShortHash(g.Binding.Commit)), again)
	case d.Without < 0:
		return fail(delivery.KindInvalid, "--without takes the number of a build", "")
	case !d.Promote && d.Without != 0:
		return fail(delivery.KindInvalid, "--without goes only with promote", "")
	case !d.Promote && strings.TrimSpace(d.Reason) == "":
		return fail(delivery.KindInvalid, "a rejection needs a reason", `Say why:  -m "reason"`)
	case d.Without != 0 && strings.TrimSpace(d.Reason) == "":
		return fail(delivery.KindInvalid, fmt.Sprintf("leaving out build %d needs a reason", d.Without), `Say why:  -m "reason"`)
	case d.Promote && g.Stale != "" && d.Without == 0:
		return fail(delivery.KindRefused, g.Stale, "")
	}
	return nil
}

func decidedWords(g delivery.Gate) string {
	var words string
	switch g.State {
	case delivery.GatePromoted, delivery.GateRejected, delivery.GateCancelled:
		words = "it was " + string(g.State)
		if g.DecidedBy != "" {
			words += " by " + clean(g.DecidedBy)
		}
	case delivery.GateExpired:
		words = "it expired"
	case delivery.GateOpen:
		words = "it is open"
	default:
		words = "it is not open"
	}
	if !g.DecidedAt.IsZero() {
		words += " at " + stamp(g.DecidedAt)
	}
	if g.Reason != "" {
		words += ": " + clean(g.Reason)
	}
	return words
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 MST") }

// BindingChanged words each difference between what a decision was about and what
// is there now; none means that the decision holds.
func BindingChanged(bound, now delivery.Binding) []string {
	var changes []string
	differ := func(what, was, is string) {
		if was != is {
			changes = append(changes, fmt.Sprintf("%s changed from %s to %s", what, shown(was), shown(is)))
		}
	}
	differ("the commit", bound.Commit, now.Commit)
	differ("the tree", bound.Tree, now.Tree)
	differ("the policy", bound.PolicyDigest, now.PolicyDigest)
	names := slices.Sorted(maps.Keys(bound.Artifacts))
	for _, name := range slices.Sorted(maps.Keys(now.Artifacts)) {
		if _, known := bound.Artifacts[name]; !known {
			names = append(names, name)
		}
	}
	for _, name := range names {
		was, before := bound.Artifacts[name]
		is, after := now.Artifacts[name]
		switch {
		case !before:
			changes = append(changes, "artifact "+clean(name)+" is new")
		case !after:
			changes = append(changes, "artifact "+clean(name)+" is gone")
		default:
			differ("artifact "+clean(name), was, is)
		}
	}
	differ("production", bound.Production, now.Production)
	differ("the production branch", bound.Branch, now.Branch)
	return changes
}

func shown(id string) string {
	if id == "" {
		return "nothing"
	}
	return clean(delivery.ShortHash(id))
}
