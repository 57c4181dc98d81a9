package fill

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// Repo is a bare repository whose history fits what Database writes: develop is
// ahead of master, which is in production, and a hotfix branch starts there.
type Repo struct {
	Dir      string
	Develop  []string // commits, oldest first
	Hotfix   []string // commits behind the one in production, oldest first
	Released string   // what is in production: the tip of master, a commit of Develop
}

// HotfixRef is the branch of Hotfix.
const HotfixRef = "refs/heads/hotfix/cart-500"

// commits is how many each branch has.
const commits = 60

// MakeRepo makes the repository.
func MakeRepo(ctx context.Context, dir, pipeline string) (Repo, error) {
	r := Repo{Dir: dir}
	if out, err := exec.CommandContext(ctx, "git", "init", "--quiet", "--bare", "--initial-branch=master", dir).CombinedOutput(); err != nil {
		return r, fmt.Errorf("git init: %w\n%s", err, out)
	}
	var in strings.Builder
	mark := 0
	commit := func(ref, from, subject string, files map[string]string) {
		mark++
		fmt.Fprintf(&in, "commit %s\nmark :%d\nauthor Ana Ruiz <ana@example.org> %d +0000\ncommitter Ana Ruiz <ana@example.org> %[3]d +0000\ndata %d\n%s\n%s", ref, mark, 1_790_000_000+mark, len(subject), subject, from)
		for name, text := range files {
			fmt.Fprintf(&in, "M 100644 inline %s\ndata %d\n%s\n", name, len(text), text)
		}
	}
	page := func(i int) map[string]string {
		return map[string]string{fmt.Sprintf("shop/page%d.html", i%20): strings.Repeat(fmt.Sprintf("<p>line of version %d</p>\n", i), 40)}
	}
	commit("refs/heads/develop", "", "A shop", map[string]string{".shunt.yml": pipeline, "migrations/1.sql": "create table carts (id bigint);\n"})
	for i := 1; i < commits; i++ {
		commit("refs/heads/develop", "", fmt.Sprintf("SHOP-%d Change page %d", 100+i, i), page(i))
	}
	const released = commits / 3
	fmt.Fprintf(&in, "reset refs/heads/master\nfrom :%d\n\n", released)
	for i := range commits {
		from := ""
		if i == 0 {
			from = fmt.Sprintf("from :%d\n", released)
		}
		commit(HotfixRef, from, fmt.Sprintf("SHOP-%d Cart answers 500, part %d", 500+i, i), map[string]string{"shop/cart.html": fmt.Sprintln("part", i)})
	}
	cmd := exec.CommandContext(ctx, "git", "fast-import", "--quiet", "--export-marks=marks")
	cmd.Dir, cmd.Stdin = dir, strings.NewReader(in.String())
	if out, err := cmd.CombinedOutput(); err != nil {
		return r, fmt.Errorf("git fast-import: %w\n%s", err, out)
	}
	marks, err := os.ReadFile(dir + "/marks")
	if err != nil {
		return r, err
	}
	at := map[int]string{}
	for line := range bytes.Lines(marks) {
		var n int
		var id string
		if _, err := fmt.Sscanf(string(line), ":%d %s", &n, &id); err != nil {
			return r, fmt.Errorf("marks of git fast-import: %w", err)
		}
		at[n] = id
	}
	for i := 1; i <= commits; i++ {
		r.Develop, r.Hotfix = append(r.Develop, at[i]), append(r.Hotfix, at[commits+i])
	}
	r.Released = at[released]
	return r, nil
}
