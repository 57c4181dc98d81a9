package flow_test

import (
	"bytes"
	"compress/zlib"
	"crypto/sha1"
	"encoding/hex"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/shuntcd/shunt/internal/delivery"
	"github.com/shuntcd/shunt/internal/flow"
)

// The facts of these tests come from real git, asked with git's own queries. The
// oracle is a model in Go: every commit adds one file of its own, so that sets of
// commits and sets of files say what a branch carries.

// tester is what *testing.T and *rapid.T share.
type tester interface {
	Helper()
	Fatalf(format string, args ...any)
}

type modelCommit struct {
	parents []string
	files   map[string]bool
	added   string // the file that this commit adds; empty: merge or empty commit
	develop bool   // made on develop or a feature branch
}

type shipped struct {
	number int64
	commit string
	title  string
}

type candidate struct {
	number int64
	lane   delivery.Lane
	branch string
	commit string
}

// world is one remote repository and the model of it.
type world struct {
	t        tester
	dir      string // holds remote.git, and clones of persons
	remote   string
	commits  map[string]modelCommit
	refs     map[string]string
	accepted map[string][]string // tips of a hotfix branch that were accepted
	released []shipped
	builds   []candidate
	expected string // master as last left or accepted
	serial   int
	log      []string
}

var branches = delivery.Branches{Integration: "develop", Production: "master", Hotfix: "hotfix/*"}

func newWorld(t tester, dir string) *world {
	w := &world{
		t: t, dir: dir, remote: filepath.Join(dir, "remote.git"),
		commits: map[string]modelCommit{}, refs: map[string]string{}, accepted: map[string][]string{},
	}
	w.git("init", "-q", "--bare", "--initial-branch=develop", w.remote)
	root := w.commit(true, "root")
	w.setRef("heads/develop", root)
	w.setRef("heads/master", root)
	w.expected = root
	return w
}

func gitEnv(dir string) []string {
	return []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "GIT_CONFIG_NOSYSTEM=1", "LC_ALL=C",
		"GIT_AUTHOR_NAME=Ana", "GIT_AUTHOR_EMAIL=ana@example.org",
		"GIT_COMMITTER_NAME=Ana", "GIT_COMMITTER_EMAIL=ana@example.org",
	}
}

func (w *world) git(args ...string) []string {
	w.t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir, cmd.Env = w.dir, gitEnv(w.dir)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		w.t.Fatalf("git %q: %v: %s", args, err, stderr.String())
	}
	return strings.FieldsFunc(string(out), func(r rune) bool { return r == '\n' })
}

func (w *world) ask(args ...string) []string {
	w.t.Helper()
	return w.git(append([]string{"--git-dir=" + w.remote}, args...)...)
}

// object writes a loose object without a process.
func (w *world) object(kind string, body []byte) string {
	raw := append(fmt.Appendf(nil, "%s %d\x00", kind, len(body)), body...)
	sum := sha1.Sum(raw)
	id := hex.EncodeToString(sum[:])
	var z bytes.Buffer
	zw := zlib.NewWriter(&z)
	if _, err := zw.Write(raw); err != nil {
		w.t.Fatalf("%v", err)
	}
	if err := zw.Close(); err != nil {
		w.t.Fatalf("%v", err)
	}
	w.write(filepath.Join("objects", id[:2], id[2:]), z.Bytes())
	return id
}

func (w *world) write(name string, body []byte) {
	name = filepath.Join(w.remote, name)
	err := os.MkdirAll(filepath.Dir(name), 0o750)
	if err == nil {
		err = os.WriteFile(name, body, 0o600)
	}
	if err != nil {
		w.t.Fatalf("%v", err)
	}
}

func (w *world) setRef(ref, id string) {
	w.refs[ref] = id
	w.write("refs/"+ref, []byte(id+"\n"))
}

// commit makes a commit that adds one file (none if empty) to the union of its
// parents' files.
func (w *world) commit(develop bool, file string, parents ...string) string {
	files := map[string]bool{}
	for _, p := range parents {
		maps.Copy(files, w.commits[p].files)
	}
	added := ""
	if file != "" && !files[file] {
		files[file], added = true, file
	}
	return w.commitFiles(develop, files, added, parents...)
}

func (w *world) commitFiles(develop bool, files map[string]bool, added string, parents ...string) string {
	var tree []byte
	for _, name := range slices.Sorted(maps.Keys(files)) {
		id, err := hex.DecodeString(w.object("blob", []byte(name+"\n")))
		if err != nil {
			w.t.Fatalf("%v", err)
		}
		tree = append(append(tree, "100644 "+name+"\x00"...), id...)
	}
	w.serial++
	body := fmt.Appendf(nil, "tree %s\n", w.object("tree", tree))
	for _, p := range parents {
		body = fmt.Appendf(body, "parent %s\n", p)
	}
	body = fmt.Appendf(body, "author A <a@x> %[1]d +0000\ncommitter A <a@x> %[1]d +0000\n\nwork %[1]d\n", 1_700_000_000+w.serial)
	id := w.object("commit", body)
	w.commits[id] = modelCommit{parents: parents, files: files, added: added, develop: develop}
	return id
}

// ancestors is the model's set of commits reachable from tips, tips included.
func (w *world) ancestors(tips ...string) map[string]bool {
	seen, stack := map[string]bool{}, slices.Clone(tips)
	for len(stack) > 0 {
		id := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		if id != "" && !seen[id] {
			seen[id] = true
			stack = append(stack, w.commits[id].parents...)
		}
	}
	return seen
}

func (w *world) newFile() string {
	w.serial++
	return fmt.Sprintf("f%04d", w.serial)
}

func (w *world) production() shipped {
	if len(w.released) == 0 {
		return shipped{}
	}
	return w.released[len(w.released)-1]
}

func (p shipped) tag() string { return delivery.ExpandTag("production/$N", p.number) }

// ---- facts, with git's own queries

func (w *world) described(ids []string) []delivery.Commit {
	commits := make([]delivery.Commit, len(ids))
	for i, line := range ids {
		fields := strings.Fields(line)
		commits[i] = delivery.Commit{ID: fields[0], Parents: fields[1:], Subject: "work"}
	}
	return commits
}

func (w *world) hotfixFacts(branch string) flow.HotfixFacts {
	w.t.Helper()
	tip, p := w.refs["heads/"+branch], w.production()
	f := flow.HotfixFacts{Project: "petstore", Branch: branch, Branches: branches, Production: p.commit, Tip: tip}
	if p.commit == "" {
		return f
	}
	f.ProductionTag = p.tag()
	f.ContainsProduction = len(w.ask("rev-list", "-1", p.commit, "^"+tip)) == 0
	notIntegrated := w.ask("rev-list", "--parents", tip, "^"+p.commit, "^refs/heads/develop")
	args := []string{"rev-list", "--parents", tip, "^" + p.commit}
	for _, a := range w.accepted[branch] {
		args = append(args, "^"+a)
	}
	foreign := slices.DeleteFunc(w.ask(args...), func(l string) bool { return slices.Contains(notIntegrated, l) })
	own := slices.DeleteFunc(w.ask("rev-list", "--parents", tip, "^"+p.commit), func(l string) bool { return slices.Contains(foreign, l) })
	f.Foreign, f.Own = w.described(foreign), w.described(own)
	f.ForkPoint = w.ask("merge-base", tip, p.commit)[0]
	if !f.ContainsProduction {
		if tags := w.ask("tag", "--points-at", f.ForkPoint); len(tags) > 0 {
			f.StartsAt = tags[0]
		}
		f.BehindTags = w.ask("tag", "--no-merged", tip)
	}
	return f
}

func (w *world) candidateFacts(c candidate) flow.CandidateFacts {
	w.t.Helper()
	p, tip := w.production(), w.refs["heads/master"]
	f := flow.CandidateFacts{
		Project: "petstore", Number: c.number, Lane: c.lane, Branch: c.branch, Commit: c.commit, Branches: branches,
		Production: p.commit, ProductionNumber: p.number, ProductionTitle: p.title,
		BranchTip: tip, ExpectedTip: w.expected, FastForward: len(w.ask("rev-list", "-1", tip, "^"+c.commit)) == 0,
	}
	if p.commit != "" {
		f.ProductionTag = p.tag()
		f.Missing = w.described(w.ask("rev-list", "--parents", p.commit, "^"+c.commit))
		f.ContainsProduction = len(f.Missing) == 0
		f.EqualPatch = !f.ContainsProduction &&
			len(w.ask("rev-list", "--right-only", "--cherry-pick", "--no-merges", c.commit+"..."+p.commit)) == 0
	}
	return f
}

// ---- persons, who paste commands into a shell

func (w *world) paste(branch string, commands []string) {
	w.t.Helper()
	w.serial++
	clone := filepath.Join(w.dir, fmt.Sprintf("clone%d", w.serial))
	w.git("clone", "-q", w.remote, clone)
	if branch != "develop" { // whoever pushed it has it
		w.git("-C", clone, "update-ref", "refs/heads/"+branch, "refs/remotes/origin/"+branch)
	}
	cmd := exec.Command("sh", "-ec", strings.Join(commands, "\n"))
	cmd.Dir, cmd.Env = clone, gitEnv(w.dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		w.t.Fatalf("pasting\n%s\n%v\n%s", strings.Join(commands, "\n"), err, out)
	}
	w.learn(branch)
	if err := os.RemoveAll(clone); err != nil {
		w.t.Fatalf("%v", err)
	}
}

// learn takes what git pushed into the model.
func (w *world) learn(branch string) {
	w.t.Helper()
	tip := w.ask("rev-parse", "--verify", "refs/heads/"+branch)[0]
	w.refs["heads/"+branch] = tip
	for _, line := range w.ask("rev-list", "--reverse", "--topo-order", "--parents", tip) {
		ids := strings.Fields(line)
		if _, known := w.commits[ids[0]]; known {
			continue
		}
		c := modelCommit{parents: ids[1:], files: map[string]bool{}, develop: branch == "develop"}
		for _, name := range w.ask("ls-tree", "--name-only", ids[0]) {
			c.files[name] = true
			if len(c.parents) == 1 && !w.commits[c.parents[0]].files[name] {
				c.added = name
			}
		}
		w.commits[ids[0]] = c
	}
}
