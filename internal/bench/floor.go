package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// git runs git without the configuration of the machine's user.
func git(ctx context.Context, dir string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "git", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL="+os.DevNull, "GIT_CONFIG_NOSYSTEM=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("git %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out)), nil
}

func gits(ctx context.Context, dir string, commands ...[]string) error {
	for _, args := range commands {
		if _, err := git(ctx, dir, args...); err != nil {
			return err
		}
	}
	return nil
}

// makeRepo makes a bare repository and a clone with files on develop, not pushed yet.
func (b *bench) makeRepo(ctx context.Context, dir, pipeline string) (bare, clone string, err error) {
	bare, clone = filepath.Join(dir, "shop.git"), filepath.Join(dir, "shop")
	if err := os.MkdirAll(filepath.Join(clone, "src"), 0o750); err != nil {
		return "", "", err
	}
	for i := range b.files {
		if err := os.WriteFile(filepath.Join(clone, "src", fmt.Sprintf("file%d", i)), []byte(strings.Repeat(fmt.Sprintln("line of file", i), 50)), 0o600); err != nil {
			return "", "", err
		}
	}
	if err := os.WriteFile(filepath.Join(clone, ".shunt.yml"), []byte(pipeline), 0o600); err != nil {
		return "", "", err
	}
	return bare, clone, gits(ctx, clone,
		[]string{"init", "--quiet", "--bare", "--initial-branch=master", bare}, []string{"init", "--quiet", "--initial-branch=develop", "."},
		[]string{"config", "user.name", "Bench"}, []string{"config", "user.email", "bench@example.org"}, []string{"remote", "add", "origin", bare},
		[]string{"add", "--all"}, []string{"commit", "--quiet", "--message", "Shop"})
}

// floor is what each part takes by itself, and all of it one after the other.
type floor struct{ push, fetch, checkout, fork, tag, sync, sum time.Duration }

// floorRepo is a repository with an empty post-receive hook, and a mirror of it.
func (b *bench) floorRepo(ctx context.Context, name string) (bare, clone, mirror string, err error) {
	dir := filepath.Join(b.dir, "floor-"+name)
	if bare, clone, err = b.makeRepo(ctx, dir, ""); err != nil {
		return "", "", "", err
	}
	if err := os.WriteFile(filepath.Join(bare, "hooks", "post-receive"), []byte("#!/bin/sh\nexec cat >/dev/null\n"), 0o755); err != nil {
		return "", "", "", err
	}
	mirror = filepath.Join(dir, "mirror.git")
	return bare, clone, mirror, gits(ctx, clone, []string{"push", "--quiet", "origin", "develop"}, []string{"clone", "--quiet", "--mirror", bare, mirror})
}

// floorOfPush measures what git and fork alone take for what a push starts.
func (b *bench) floorOfPush(ctx context.Context, jobs int) (f floor, err error) {
	bare, clone, mirror, err := b.floorRepo(ctx, fmt.Sprint(jobs))
	if err != nil {
		return f, err
	}
	var lists [6][]time.Duration
	for i := range b.runs {
		if _, err := git(ctx, clone, "commit", "--quiet", "--allow-empty", "--message", fmt.Sprint("Push ", i)); err != nil {
			return f, err
		}
		for k, part := range []func() error{
			func() error { return gits(ctx, clone, []string{"push", "--quiet", "origin", "develop"}) },
			func() error { return gits(ctx, mirror, []string{"fetch", "--quiet", "--prune", "origin"}) },
			func() error {
				return parallel(jobs, jobs, func(k int) error { return checkout(ctx, mirror, fmt.Sprintf("%s-tree-%d", mirror, k)) })
			},
			func() error { return parallel(jobs, jobs, func(int) error { return sh(ctx) }) },
			func() error { return tag(ctx, mirror, bare, i) },
			func() error { return b.synced(4) },
		} {
			begin := b.clock.Now()
			if err := part(); err != nil {
				return f, err
			}
			lists[k] = append(lists[k], b.since(begin))
		}
		for k := range jobs {
			if err := os.RemoveAll(fmt.Sprintf("%s-tree-%d", mirror, k)); err != nil {
				return f, err
			}
		}
	}
	f = floor{push: median(lists[0]), fetch: median(lists[1]), checkout: median(lists[2]), fork: median(lists[3]), tag: median(lists[4]), sync: median(lists[5])}
	f.sum = f.push + f.fetch + f.checkout + f.fork + f.tag + f.sync
	return f, nil
}

// floorOfQueue measures the same for a queue, with as many at once as Shunt has
// workers.
func (b *bench) floorOfQueue(ctx context.Context, n int) (time.Duration, error) {
	bare, _, mirror, err := b.floorRepo(ctx, "queue")
	if err != nil {
		return 0, err
	}
	begin := b.clock.Now()
	err = parallel(n, workers, func(i int) error {
		dir := fmt.Sprintf("%s-tree-%d", mirror, i)
		return errors.Join(checkout(ctx, mirror, dir), sh(ctx), os.RemoveAll(dir), tag(ctx, mirror, bare, i), b.synced(4))
	})
	return b.since(begin), err
}

func parallel(n, atOnce int, f func(i int) error) error {
	var g errgroup.Group
	g.SetLimit(atOnce)
	for i := range n {
		g.Go(func() error { return f(i) })
	}
	return g.Wait()
}

// checkout makes a work tree from a mirror without copying objects.
func checkout(ctx context.Context, mirror, dir string) error {
	if err := os.Mkdir(dir, 0o750); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "sh", "-c", "git archive develop | tar -x -C \"$0\"", dir)
	cmd.Dir = mirror
	return cmd.Run()
}

func sh(ctx context.Context) error { return exec.CommandContext(ctx, "/bin/sh", "-e", "-c", ":").Run() }

// tag makes an annotated tag and pushes it.
func tag(ctx context.Context, mirror, bare string, i int) error {
	name := fmt.Sprint("build/", i)
	return gits(ctx, mirror, []string{"-c", "user.name=Bench", "-c", "user.email=bench@example.org", "tag", "--annotate", "--message", "Build", name, "develop"}, []string{"-c", "remote.origin.mirror=false", "push", "--quiet", bare, "refs/tags/" + name})
}

// synced makes writes that are on the disk when it returns.
func (b *bench) synced(n int) error {
	f, err := os.CreateTemp(b.dir, "synced")
	if err != nil {
		return err
	}
	for range n {
		_, write := f.Write(make([]byte, 4096))
		err = errors.Join(err, write, f.Sync())
	}
	return errors.Join(err, f.Close(), os.Remove(f.Name()))
}
