package flow

import (
	"cmp"
	"fmt"
	"time"

	"github.com/shuntcd/shunt/internal/delivery"
)

// CandidateFacts is what is known of a build that asks for production.
type CandidateFacts struct {
	Project  string
	Number   int64
	Lane     delivery.Lane
	Branch   string // short name of the branch it was pushed to; hostile
	Commit   string
	Branches delivery.Branches

	Production         string // commit in production; empty: nothing is
	ProductionNumber   int64
	ProductionTag      string
	ProductionTitle    string            // "hotfix cart-500"; empty: a build of the main lane
	ContainsProduction bool              // Production is an ancestor of Commit, or Commit itself
	Missing            []delivery.Commit // commits of Production that Commit lacks
	EqualPatch         bool              // every missing commit that is no merge has an equal patch-id in the candidate
	Without            int64             // the production build that a person accepted as only an equal patch; 0: none

	BranchTip   string // production branch on the remote now; empty: there is none
	ExpectedTip string // as Shunt last left or accepted it; empty: never seen
	FastForward bool   // Commit contains BranchTip

	Hold       string // why the main lane's promotions wait; empty: they do not
	Freezes    []delivery.Freeze
	Now        time.Time // by which freezes are judged
	Incident   string    // why nothing ships; empty: nothing is wrong
	Trunk      bool      // integration and production are one branch
	TagBlocked string    // the remote ref in the way of the production tag, or that tag at another commit; empty: the way is free
}

// MayPromote decides whether a candidate may go to production; nil is yes. It is
// asked before the gate opens, at the decision, and again right before the deploy.
func MayPromote(f CandidateFacts) *Refusal {
	r := refuseCandidate(f)
	if r != nil {
		r.What = fmt.Sprintf("cannot promote build %d", f.Number)
	}
	return r
}

func refuseCandidate(f CandidateFacts) *Refusal {
	switch {
	case f.Incident != "":
		return &Refusal{
			Why:  fmt.Sprintf("nothing of %s ships until a person has looked: %s", f.Project, clean(f.Incident)),
			Mend: []string{"shunt status " + word(f.Project)},
			Next: "See:",
		}
	case f.Hold != "" && f.Lane == delivery.LaneMain:
		return &Refusal{
			Why:  "promotions of the main lane are on hold: " + clean(f.Hold),
			Next: "Release the hold on the page of the project. A hotfix ships all the same.",
		}
	case Frozen(f.Freezes, f.Now) != nil && f.Lane == delivery.LaneMain:
		return refuseFrozen(*Frozen(f.Freezes, f.Now))
	case f.TagBlocked != "":
		return &Refusal{
			Why:  fmt.Sprintf("the remote has %s, which is in the way of the production tag of build %d", clean(f.TagBlocked), f.Number),
			Mend: []string{fmt.Sprintf("git ls-remote %s %s", origin, Quote(f.TagBlocked))},
			Next: "Find out who made it and rename or delete it; Shunt deletes no tag. Look at it:",
		}
	case f.Production == "" && f.Lane == delivery.LaneHotfix:
		return &Refusal{
			Why:  fmt.Sprintf("nothing of %s is in production yet, so there is nothing to fix", f.Project),
			Next: fmt.Sprintf("The first build reaches production from %s.", clean(f.Branches.Integration)),
		}
	case f.Production != "" && !f.ContainsProduction:
		if r := refuseMissing(f); r != nil {
			return r
		}
	}
	return refuseMovedBranch(f)
}

// refuseMissing says no to a candidate that lacks what is in production, unless a
// person accepted the equal patch of exactly that build.
func refuseMissing(f CandidateFacts) *Refusal {
	inProduction := fmt.Sprintf("build %d (%s)", f.ProductionNumber, delivery.ShortHash(f.Production))
	if f.ProductionTitle != "" {
		inProduction = fmt.Sprintf("%s (build %d, %s)", clean(f.ProductionTitle), f.ProductionNumber, delivery.ShortHash(f.Production))
	}
	r := &Refusal{Why: fmt.Sprintf("it does not contain %s, which is in production", inProduction)}
	if f.EqualPatch {
		r.EqualPatch = f.ProductionNumber
	}
	switch {
	case f.Without != 0 && f.Without != f.ProductionNumber:
		r.Why = fmt.Sprintf("build %d was to be left out, but it does not contain %s, which is in production now", f.Without, inProduction)
	case f.Without != 0 && !f.EqualPatch:
		r.Why += fmt.Sprintf(", and has no equal patch for each of its commits: %s", commitWords(f.Missing))
	case f.Without != 0:
		return nil
	}
	switch {
	case f.Lane == delivery.LaneHotfix:
		r.Next, r.Mend = "Merge it:", mergeInto(f.Branch, origin, cmp.Or(f.ProductionTag, f.Production))
	case f.Number < f.ProductionNumber && f.ProductionTitle == "":
		r.Next = fmt.Sprintf("Production only moves forward: promote a newer build of %s. To go back:", clean(f.Branches.Integration))
		r.Mend = []string{rollbackCommand(f.Project, f.Number)}
	default:
		r.Next, r.Mend = "Merge it:", []string{"shunt backmerge " + word(f.Project)}
	}
	return r
}

// refuseMovedBranch says no where somebody else moved the production branch and
// the candidate would bury what they pushed. A trunk moves with every push, and
// Shunt does not move it.
func refuseMovedBranch(f CandidateFacts) *Refusal {
	branch := clean(f.Branches.Production)
	switch {
	case f.Trunk || f.BranchTip == f.ExpectedTip:
		return nil
	case f.BranchTip == "":
		return &Refusal{
			Why:  fmt.Sprintf("%s was deleted on the remote; it was at %s", branch, delivery.ShortHash(f.ExpectedTip)),
			Mend: []string{fmt.Sprintf("git push %s %s", origin, Quote(f.ExpectedTip+":refs/heads/"+f.Branches.Production))},
			Next: "Bring it back:",
		}
	case f.FastForward:
		return nil
	}
	was := "Shunt has never seen it"
	if f.ExpectedTip != "" {
		was = "Shunt left it at " + delivery.ShortHash(f.ExpectedTip)
	}
	into := f.Branches.Integration
	if f.Lane == delivery.LaneHotfix {
		into = f.Branch
	}
	return &Refusal{
		Why:  fmt.Sprintf("%s is at %s, which build %d does not contain; %s", branch, delivery.ShortHash(f.BranchTip), f.Number, was),
		Mend: mergeInto(into, origin, origin+"/"+f.Branches.Production),
		Next: "Merge it, so that nothing is lost:",
	}
}

// MergeKind is how the production branch gets to a candidate.
type MergeKind string

// The ways of the production branch. A merge commit has the candidate's tree,
// because what was approved is what the branch has to show.
const (
	MergeNone        MergeKind = "none" // it contains the candidate already, or it is a trunk
	MergeFastForward MergeKind = "fast-forward"
	MergeCommit      MergeKind = "merge"
)

// ProductionMove says how the production branch gets to the candidate. A trunk is
// never moved: a merge with the candidate's tree would drop everybody's work on
// it, so a hotfix is owed to it as a back-merge instead.
func ProductionMove(f CandidateFacts) MergeKind {
	switch {
	case f.Trunk || f.BranchTip == f.Commit:
		return MergeNone
	case f.BranchTip == "" || f.FastForward:
		return MergeFastForward
	}
	return MergeCommit
}
