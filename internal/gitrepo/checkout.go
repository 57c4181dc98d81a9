package gitrepo

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/shuntcd/shunt/internal/delivery"
)

// CheckoutSpec says what a work tree shall hold.
type CheckoutSpec struct {
	Dir    string            // absolute; new or empty
	Commit string            // object id
	Branch string            // short name ("hotfix/cart") of the branch that HEAD is on; "": detached
	Tags   map[string]string // full tag ref -> object id, to be seen in the work tree
	Whole  bool              // with objects of its own, so that it can be moved to another machine
}

// workConfig is the .git/config of a work tree. It is what the build's own git
// commands see, so it takes the teeth out of LFS filters and submodules.
const workConfig = `[core]
	repositoryformatversion = %d
	bare = false
	filemode = true
	logallrefupdates = true
	fsmonitor = false
[gc]
	auto = 0
[submodule]
	recurse = false
[filter "lfs"]
	clean =
	smudge =
	process =
	required = false
[remote "origin"]
	url = "%s"
	fetch = +refs/heads/*:refs/remotes/origin/*
`

// Checkout makes a work tree for a build. Objects are not copied: the work tree
// borrows them from the mirror. Git runs once; the rest of .git is written here.
// No hook, filter or submodule of the repository is used, and the URL that the
// work tree knows has no credentials. When it fails, what is in Dir is rubbish.
func (r *Repo) Checkout(ctx context.Context, spec CheckoutSpec) error {
	if r.invalid != nil {
		return r.invalid
	}
	if err := checkID(spec.Commit); err != nil {
		return err
	}
	if !filepath.IsAbs(spec.Dir) || strings.ContainsRune(spec.Dir, 0) {
		return delivery.Errf(delivery.KindInvalid, "bad work tree", "its directory is not absolute")
	}
	err := r.checkout(ctx, spec)
	if !delivery.IsKind(err, delivery.KindNotFound) {
		return err
	}
	// A mirror that was made anew after a power loss may not have it yet.
	if _, err := r.Fetch(ctx); err != nil {
		return err
	}
	if err := os.RemoveAll(spec.Dir); err != nil {
		return fmt.Errorf("checkout: %w", err)
	}
	return r.checkout(ctx, spec)
}

func (r *Repo) checkout(ctx context.Context, spec CheckoutSpec) error {
	if err := os.MkdirAll(spec.Dir, 0o700); err != nil {
		return fmt.Errorf("checkout: %w", err)
	}
	// What an earlier build left, hooks above all, must not meet this one.
	switch entries, err := os.ReadDir(spec.Dir); {
	case err != nil:
		return fmt.Errorf("checkout: %w", err)
	case len(entries) > 0:
		return delivery.Errf(delivery.KindConflict, "bad work tree", "its directory is not empty")
	}
	if r.git.shared { // another server may have fetched the commit and made the tags
		if _, err := r.Resolve(ctx, spec.Commit); err != nil {
			return err
		}
		for _, id := range spec.Tags {
			if _, _, err := r.object(ctx, id); err != nil {
				return err
			}
		}
	}
	if err := r.gitDir(filepath.Join(spec.Dir, ".git"), spec); err != nil {
		return err
	}
	if spec.Whole {
		if err := r.ownObjects(ctx, spec); err != nil {
			return err
		}
	}
	// read-tree is the plumbing under `reset --hard`; it takes --end-of-options
	// and knows no post-checkout hook.
	c := r.inside("read-tree", "--reset", "-u", "--no-recurse-submodules")
	c.gitDir, c.workTree = filepath.Join(spec.Dir, ".git"), spec.Dir
	c.operands = []string{spec.Commit}
	c.timeout = r.git.timeout * firstFetchFactor
	if _, err := r.run(ctx, c); err != nil {
		return r.missing([]string{spec.Commit}, err)
	}
	return nil
}

// ownObjects packs what the commit and the tags reach into the work tree and ends
// the borrowing.
func (r *Repo) ownObjects(ctx context.Context, spec CheckoutSpec) error {
	var revs strings.Builder
	revs.WriteString(spec.Commit + "\n")
	for _, id := range spec.Tags {
		if err := checkID(id); err != nil {
			return err
		}
		revs.WriteString(id + "\n")
	}
	objects := filepath.Join(spec.Dir, ".git", "objects")
	if err := os.MkdirAll(filepath.Join(objects, "pack"), 0o700); err != nil {
		return fmt.Errorf("checkout: %w", err)
	}
	c := r.inside("pack-objects", "--quiet", "--revs", "--delta-base-offset")
	c.operands, c.stdin = []string{filepath.Join(objects, "pack", "pack")}, strings.NewReader(revs.String())
	c.timeout = r.git.timeout * firstFetchFactor
	if _, err := r.git.run(ctx, c); err != nil {
		return r.missing([]string{spec.Commit}, err)
	}
	if err := os.Remove(filepath.Join(objects, "info", "alternates")); err != nil {
		return fmt.Errorf("checkout: %w", err)
	}
	return nil
}

// gitDir writes the .git of a work tree.
func (r *Repo) gitDir(dir string, spec CheckoutSpec) error {
	refs := make(map[string]string, len(spec.Tags)+1)
	for ref, id := range spec.Tags {
		if !strings.HasPrefix(ref, tags) {
			return delivery.Errf(delivery.KindInvalid, "bad tag", fmt.Sprintf("%.200q is not a full tag ref", ref))
		}
		refs[ref] = id
	}
	head := spec.Commit + "\n"
	if spec.Branch != "" {
		branch := heads + spec.Branch
		head = "ref: " + branch + "\n"
		refs[branch] = spec.Commit
	}
	packed := make([]string, 0, len(refs))
	for ref, id := range refs {
		if err := checkRef(ref); err != nil {
			return err
		}
		if err := checkID(id); err != nil {
			return err
		}
		packed = append(packed, ref)
	}
	slices.Sort(packed)
	for i, ref := range packed {
		packed[i] = refs[ref] + " " + ref + "\n"
	}
	version, extension := 0, ""
	if len(spec.Commit) == 64 {
		version, extension = 1, sha256Config
	}
	url := strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(r.url)
	if err := skeleton(dir, head, fmt.Sprintf(workConfig, version, url)+extension); err != nil {
		return fmt.Errorf("checkout: %w", err)
	}
	files := map[string]string{
		"packed-refs":             "# pack-refs with: sorted \n" + strings.Join(packed, ""),
		"objects/info/alternates": filepath.Join(r.mirror, "objects") + "\n",
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			return fmt.Errorf("checkout: %w", err)
		}
	}
	return nil
}
