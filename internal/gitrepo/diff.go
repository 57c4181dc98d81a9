package gitrepo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/shuntcd/shunt/internal/delivery"
)

// plainDiff switches off whatever could run a program or colour the text.
func plainDiff() []string {
	return []string{"--no-ext-diff", "--no-textconv", "--no-color", "--no-renames"}
}

// PatchIDs gives the commits that are reachable from include and not from
// exclude their stable patch ids (git-patch-id(1)): commits with the same id
// make the same change. Merges and commits without a change are left out.
func (r *Repo) PatchIDs(ctx context.Context, include, exclude []string) (map[string]string, error) {
	ids := make(map[string]string)
	if len(include) == 0 {
		return ids, nil
	}
	operands, err := r.ids(ctx, include, exclude)
	if err != nil {
		return nil, err
	}
	pr, pw, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("patch ids: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	failed := make(chan error, 1)
	go func() {
		// No message is printed, only the id, so that a message cannot pass
		// for a patch; the lines of a patch begin with a mark of their own.
		c := r.inside(append([]string{"log", "--no-merges", "--patch", "--full-index", "--format=%H"}, plainDiff()...)...)
		c.operands, c.stdout = operands, pw
		_, err := r.run(ctx, c)
		_ = pw.Close()
		failed <- err
	}()
	c := r.inside("patch-id", "--stable")
	c.stdin = pr
	out, err := r.run(ctx, c)
	_ = pr.Close() // if patch-id died, log must not wait for a reader
	if logErr := <-failed; logErr != nil {
		return nil, r.missing(include, logErr)
	}
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(out)) {
		if patch, commit, ok := strings.Cut(strings.TrimSpace(line), " "); ok && isID(commit) {
			ids[commit] = patch
		}
	}
	return ids, nil
}

// emptyTree is the id of the tree without files, in the repository's own hash.
func emptyTree(like string) string {
	if len(like) == 64 {
		return "6ef19b41225c5369f1c104d45d8d85efa9b057b53b14b4b9b939dd74decc5321"
	}
	return "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
}

// trees resolves the two sides of a diff; an empty from is the empty tree.
func (r *Repo) trees(ctx context.Context, from, to string) ([]string, error) {
	b, err := r.id(ctx, to)
	if err != nil {
		return nil, err
	}
	a := emptyTree(b)
	if from != "" {
		if a, err = r.id(ctx, from); err != nil {
			return nil, err
		}
	}
	return []string{a, b}, nil
}

// DiffStat lists the files that differ between two commits (or trees), with the
// lines added and deleted; an empty from means that all files are new.
func (r *Repo) DiffStat(ctx context.Context, from, to string) ([]delivery.FileChange, error) {
	operands, err := r.trees(ctx, from, to)
	if err != nil {
		return nil, err
	}
	c := r.inside(append([]string{"diff-tree", "-r", "-z", "--numstat"}, plainDiff()...)...)
	c.operands = operands
	out, err := r.run(ctx, c)
	if err != nil {
		return nil, r.missing(operands, err)
	}
	var changes []delivery.FileChange
	for entry := range bytes.SplitSeq(out, []byte{0}) {
		f := bytes.SplitN(entry, []byte{'\t'}, 3)
		if len(f) != 3 {
			continue
		}
		changes = append(changes, delivery.FileChange{Path: text(f[2]), Added: count(f[0]), Deleted: count(f[1])})
	}
	return changes, nil
}

// count reads a number of lines; git writes "-" for a binary file.
func count(b []byte) int {
	n, err := strconv.Atoi(string(b))
	if err != nil {
		return -1
	}
	return n
}

// Diff is the patch between two commits as text, at most maxBytes of it, cut
// behind a whole line when it is longer.
func (r *Repo) Diff(ctx context.Context, from, to string, maxBytes int) (patch string, truncated bool, err error) {
	operands, err := r.trees(ctx, from, to)
	if err != nil || maxBytes <= 0 {
		return "", err == nil, err
	}
	c := r.inside(append([]string{"diff-tree", "-r", "--patch"}, plainDiff()...)...)
	c.operands, c.max = operands, maxBytes
	out, err := r.run(ctx, c)
	switch {
	case errors.Is(err, errTooMuch):
		return text(out[:bytes.LastIndexByte(out, '\n')+1]), true, nil
	case err != nil:
		return "", false, r.missing(operands, err)
	}
	return text(out), false, nil
}
