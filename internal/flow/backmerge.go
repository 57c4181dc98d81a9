package flow

import (
	"fmt"

	"github.com/shuntcd/shunt/internal/delivery"
)

// BackMergeOwed tells whether a production commit is owed to the integration
// branch. That the branch is a trunk is no excuse: Shunt never moves a trunk, so a
// hotfix is owed to it just the same.
func BackMergeOwed(integrationContains bool, _ bool) bool { return !integrationContains }

// ForecastWords says how a merge into a branch would go: "clean into develop".
func ForecastWords(f delivery.Forecast, branch string) string {
	branch = clean(branch)
	switch {
	case f.Contained:
		return "already in " + branch
	case len(f.Conflicts) == 0:
		return "clean into " + branch
	}
	return fmt.Sprintf("conflicts with %s in %s: %s", branch, count(len(f.Conflicts), "file"), list(cleanAll(f.Conflicts)))
}

// BackMergeCommands lists the commands that pay a back-merge; none when nothing is
// owed. They may be pasted at once: `git commit` refuses while conflicts are left,
// so that no conflict marker is ever committed by them.
func BackMergeCommands(b delivery.Branches, remote string, f delivery.Forecast) []string {
	if f.Contained {
		return nil
	}
	source := remote + "/" + b.Production
	if b.Production == b.Integration {
		source = f.Commit // a trunk: the hotfix is on no other branch
	}
	commands := mergeInto(b.Integration, remote, source)
	if len(f.Conflicts) > 0 {
		push := commands[len(commands)-1]
		commands = append(commands[:len(commands)-1], "git mergetool", "git commit --no-edit", push)
	}
	return commands
}

// mergeInto lists the commands that merge a commit, tag or remote branch into a
// branch of the remote and push it.
func mergeInto(branch, remote, source string) []string {
	tracking := Quote(remote + "/" + branch)
	commands := []string{fetch(remote)}
	if dashed(branch) {
		commands = append(commands, "git checkout --detach "+tracking)
	} else {
		commands = append(commands, "git checkout "+Quote(branch), "git merge --ff-only "+tracking)
	}
	return append(commands, "git merge --no-edit "+Quote(source), "git push "+word(remote)+" "+pushed(branch))
}
