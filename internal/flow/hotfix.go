package flow

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/shuntcd/shunt/internal/delivery"
)

// HotfixFacts is what git says of a pushed hotfix branch.
type HotfixFacts struct {
	Project            string
	Branch             string // short name; hostile
	Branches           delivery.Branches
	ProductionTag      string            // "production/41"; empty: nothing is in production
	Production         string            // its commit
	Tip                string            // the pushed commit
	ContainsProduction bool              // Production is an ancestor of Tip, or Tip itself
	StartsAt           string            // the older production tag at which the branch starts; empty: unknown
	BehindTags         []string          // the production tags that Tip lacks, in the order to be shown
	Foreign            []delivery.Commit // of Production..Tip: reachable from integration, and from no tip of this branch that was accepted earlier
	Own                []delivery.Commit // the other commits of Production..Tip, in any order
	ForkPoint          string            // merge base of Tip and Production; empty: no common history
}

// origin is the remote's name in commands: git's own default, which a clone has.
const origin = "origin"

// HotfixPush decides whether a pushed hotfix may be built; nil is yes. The branch
// has to contain what is in production and nothing that waits on the integration
// branch: promoting it would ship that work unseen.
func HotfixPush(f HotfixFacts) *Refusal {
	what := "cannot build " + clean(f.Branch)
	integration := clean(f.Branches.Integration)
	switch {
	case f.Production == "":
		return &Refusal{
			What: what,
			Why:  fmt.Sprintf("nothing of %s is in production yet, so there is nothing that a hotfix could start at", f.Project),
			Next: fmt.Sprintf("The first build reaches production from %s:  git push %s %s", integration, origin, Quote(f.Branches.Integration)),
		}
	case len(f.Foreign) > 0:
		return &Refusal{
			What: what,
			Why: fmt.Sprintf("it carries %s of %s that %s not in production: %s",
				count(len(f.Foreign), "commit"), integration, isAre(len(f.Foreign)), commitWords(f.Foreign)),
			Mend: startAgain(f),
			Next: startAgainWords(f),
		}
	case f.ContainsProduction:
		return nil
	case f.StartsAt == "" && f.ForkPoint == "":
		return &Refusal{
			What: what,
			Why:  fmt.Sprintf("it shares no history with %s, which is in production", productionName(f)),
			Mend: startAgain(f),
			Next: startAgainWords(f),
		}
	}
	return behind(f, what)
}

func behind(f HotfixFacts, what string) *Refusal {
	shipped := f.BehindTags
	if len(shipped) == 0 {
		shipped = []string{productionName(f)}
	}
	start := "it started at " + clean(f.StartsAt)
	upstream := f.StartsAt
	if upstream == "" {
		start, upstream = "it left production at "+delivery.ShortHash(f.ForkPoint), f.ForkPoint
	}
	branch := localBranch(f.Branch)
	return &Refusal{
		What: what,
		Why:  fmt.Sprintf("%s, and %s shipped since", start, list(cleanAll(shipped))),
		Mend: []string{
			fetch(origin),
			fmt.Sprintf("git rebase --onto %s %s %s", word(productionName(f)), word(upstream), branch),
			forcePush(f.Branch),
		},
		Next: fmt.Sprintf("Rebase it (or, on the branch, git merge %s and push):", word(productionName(f))),
	}
}

// startAgain puts the branch's own commits on a fresh branch at production. Merges
// are left out: they are what brought the foreign work in. Commits that are
// empty, or become so, are kept, because git would stop and ask otherwise.
func startAgain(f HotfixFacts) []string {
	commands := []string{fetch(origin)}
	if dashed(f.Branch) {
		commands = append(commands, "git checkout --detach "+word(productionName(f)))
	} else {
		commands = append(commands, fmt.Sprintf("git checkout -B %s %s", Quote(f.Branch), word(productionName(f))))
	}
	if own := ownOldestFirst(f); len(own) > 0 {
		commands = append(commands, "git cherry-pick --keep-redundant-commits "+strings.Join(own, " "))
	}
	return append(commands, forcePush(f.Branch))
}

func startAgainWords(f HotfixFacts) string {
	if len(ownOldestFirst(f)) == 0 {
		return fmt.Sprintf("It has no commit of its own. Start it again at %s, then commit the fix:", clean(productionName(f)))
	}
	return fmt.Sprintf("Put its own work on %s:", clean(productionName(f)))
}

// ownOldestFirst orders the branch's own commits so that a parent comes before its
// child, and leaves merges out.
func ownOldestFirst(f HotfixFacts) []string {
	byID := make(map[string]delivery.Commit, len(f.Own))
	for _, c := range f.Own {
		byID[c.ID] = c
	}
	var ordered []string
	seen := map[string]bool{}
	// An explicit stack: a pushed history may be a million commits deep.
	type visit struct {
		id   string
		done bool // its parents are placed
	}
	var stack []visit
	for _, c := range slices.Backward(f.Own) {
		stack = append(stack, visit{id: c.ID})
		for len(stack) > 0 {
			v := stack[len(stack)-1]
			stack = stack[:len(stack)-1]
			commit, own := byID[v.id]
			switch {
			case v.done:
				if len(commit.Parents) < 2 {
					ordered = append(ordered, v.id)
				}
			case own && !seen[v.id]:
				seen[v.id] = true
				stack = append(stack, visit{v.id, true})
				for _, parent := range slices.Backward(commit.Parents) {
					stack = append(stack, visit{id: parent})
				}
			}
		}
	}
	return ordered
}

func productionName(f HotfixFacts) string {
	return cmp.Or(f.ProductionTag, f.Production)
}

func fetch(remote string) string { return "git fetch " + word(remote) + " --tags" }

// dashed names exist in git (plumbing makes them) but its porcelain takes them for
// options, so that commands have to reach them by their full name.
func dashed(branch string) bool { return strings.HasPrefix(branch, "-") }

func localBranch(branch string) string {
	if dashed(branch) {
		return Quote("refs/heads/" + branch)
	}
	return Quote(branch)
}

func pushed(branch string) string {
	if dashed(branch) {
		return Quote("HEAD:refs/heads/" + branch)
	}
	return Quote(branch)
}

// forcePush is for the person's own branch; the lease keeps what others pushed.
// Shunt itself never forces.
func forcePush(branch string) string {
	return "git push --force-with-lease " + origin + " " + pushed(branch)
}

func isAre(n int) string {
	if n == 1 {
		return "is"
	}
	return "are"
}

func cleanAll(words []string) []string {
	out := make([]string, len(words))
	for i, w := range words {
		out[i] = clean(w)
	}
	return out
}
