package gitrepo

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"github.com/shuntcd/shunt/internal/delivery"
)

// Version asks a git binary for its version: "2.39.5".
func Version(ctx context.Context, bin string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if bin == "" {
		bin = "git"
	}
	cmd := exec.CommandContext(ctx, bin, "version")
	cmd.Env = baseEnv("/nonexistent", "false")
	out, err := cmd.Output()
	if err != nil {
		return "", &delivery.Error{
			Kind: delivery.KindUnavailable, What: "git does not run", Why: "`git version` failed",
			Next: "Install git 2.39.4 or newer.", Err: err,
		}
	}
	fields := strings.Fields(clean(out, nil))
	if len(fields) < 3 || fields[0] != "git" || fields[1] != "version" {
		return "", delivery.Errf(delivery.KindUnavailable, "git does not tell its version", "`git version` said something else")
	}
	return fields[2], nil
}

// CheckVersion refuses a git that lacks what Shunt uses (merge-tree
// --write-tree, safe.bareRepository) or that is known to run a repository's code
// during a checkout (CVE-2024-32002). 2.43.0 to 2.43.3 pass although the original
// is affected: they are what Ubuntu 24.04 calls its repaired git, and Shunt never
// fetches submodules, by which that attack comes.
func CheckVersion(v string) error {
	var major, minor, patch int
	if n, err := fmt.Sscanf(v, "%d.%d.%d", &major, &minor, &patch); n < 2 {
		return &delivery.Error{Kind: delivery.KindInvalid, What: "cannot read git's version", Why: fmt.Sprintf("%q is not a version", v), Err: err}
	}
	fixed := map[int]int{39: 4, 40: 2, 41: 1, 42: 2, 44: 1, 45: 1}
	switch {
	case major < 2 || major == 2 && minor < 39:
		return &delivery.Error{
			Kind: delivery.KindUnavailable, What: "git " + v + " is too old", Why: "Shunt needs 2.39.4 or newer to forecast merges",
			Next: "Upgrade git and start again.",
		}
	case major == 2 && patch < fixed[minor]:
		return &delivery.Error{
			Kind: delivery.KindUnavailable, What: "git " + v + " is not safe",
			Why:  "a repository can make it run code during a checkout (CVE-2024-32002)",
			Next: fmt.Sprintf("Upgrade git to 2.%d.%d or newer and start again.", minor, fixed[minor]),
		}
	}
	return nil
}
