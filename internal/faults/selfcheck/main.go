// Command selfcheck shows that the suite can fail. It plants bugs in the server,
// one at a time, and runs the test that should see each. A bug is a small piece of
// text in one file that is replaced by another (bugs.go); the changed file is laid
// over the sources with `go build -overlay`, and nothing in the repository changes.
//
//	go run ./internal/faults/selfcheck [-bugs WORDS] [-jobs 2] [-list]
//
// First all those tests run without a bug and must pass. A bug is caught when the
// package with it compiles and a test fails. One that is not caught means that a
// test is missing; one whose text is not found exactly once, that the code has
// changed and the bug must be planted anew. Both end the program with 1.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

func main() {
	var c check
	flag.StringVar(&c.only, "bugs", "", "only bugs whose name has this text")
	flag.IntVar(&c.jobs, "jobs", 2, "bugs at a time")
	list := flag.Bool("list", false, "only list the bugs")
	flag.Parse()
	c.out = os.Stdout
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if *list {
		for _, b := range bugs() {
			fmt.Printf("%-60s %s\n", b.name, b.by)
		}
		return
	}
	if err := c.run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "selfcheck:", err)
		os.Exit(1)
	}
}

// check is one run of the program.
type check struct {
	only string
	jobs int
	out  io.Writer
	root string // of the repository
	temp string
	mu   sync.Mutex // of out
}

// most is how long a test may take with a bug in the server: one that waits in
// vain has caught it too, by its own deadline.
const most = 4 * time.Minute

func (c *check) run(ctx context.Context) (err error) {
	out, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return fmt.Errorf("find the repository: %w", err)
	}
	c.root = strings.TrimSpace(string(out))
	if c.temp, err = os.MkdirTemp("", "shunt-selfcheck-"); err != nil {
		return err
	}
	defer os.RemoveAll(c.temp)
	list := bugs()
	list = slices.DeleteFunc(list, func(b bug) bool { return !strings.Contains(b.name, c.only) })
	for _, b := range list { // before anything takes time
		if _, err := c.planted(b); err != nil {
			return err
		}
	}
	began := time.Now()
	if err := c.baseline(ctx, list); err != nil {
		return err
	}
	fmt.Fprintf(c.out, "without a bug: all pass, %.0f s\n", time.Since(began).Seconds())
	caught := 0
	failures := c.each(list, func(i int) error {
		began := time.Now()
		by, err := c.plant(ctx, i, list[i])
		c.mu.Lock()
		defer c.mu.Unlock()
		switch {
		case err != nil:
			fmt.Fprintf(c.out, "BROKEN    %s: %v\n", list[i].name, err)
			return err
		case by == "":
			fmt.Fprintf(c.out, "SURVIVED  %s (%s)\n", list[i].name, list[i].by)
		default:
			caught++
			fmt.Fprintf(c.out, "caught    %-58s %5.1f s  %s\n", list[i].name, time.Since(began).Seconds(), by)
		}
		return nil
	})
	fmt.Fprintf(c.out, "caught: %d of %d\n", caught, len(list))
	if failures == nil && caught < len(list) {
		failures = errors.New("a bug survived: the test that would see it is missing")
	}
	return failures
}

// each does something for each bug, a few at a time.
func (c *check) each(list []bug, do func(i int) error) error {
	next := make(chan int)
	errs := make([]error, len(list))
	var wg sync.WaitGroup
	for range c.jobs {
		wg.Go(func() {
			for i := range next {
				errs[i] = do(i)
			}
		})
	}
	for i := range list {
		next <- i
	}
	close(next)
	wg.Wait()
	return errors.Join(errs...)
}

// baseline runs the tests without a bug.
func (c *check) baseline(ctx context.Context, list []bug) error {
	var tests []bug
	for _, b := range list {
		if !slices.ContainsFunc(tests, func(t bug) bool { return t.by.String() == b.by.String() }) {
			tests = append(tests, b)
		}
	}
	return c.each(tests, func(i int) error {
		dir := filepath.Join(c.temp, fmt.Sprint("baseline", i))
		by, out, err := c.try(ctx, dir, tests[i].by, "")
		if err == nil && by != "" {
			err = fmt.Errorf("%s fails without a bug\n%s", tests[i].by, out)
		}
		return err
	})
}

// planted is the file of a bug with the bug in it.
func (c *check) planted(b bug) ([]byte, error) {
	text, err := os.ReadFile(filepath.Join(c.root, b.file))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", b.name, err)
	}
	if n := bytes.Count(text, []byte(b.old)); n != 1 {
		return nil, fmt.Errorf("%s: its text is %d times in %s; plant it anew:\n%s", b.name, n, b.file, b.old)
	}
	return bytes.Replace(text, []byte(b.old), []byte(b.bad), 1), nil
}

// plant plants a bug and tells which test failed; "": none.
func (c *check) plant(ctx context.Context, i int, b bug) (by string, err error) {
	text, err := c.planted(b)
	if err != nil {
		return "", err
	}
	dir := filepath.Join(c.temp, fmt.Sprint(i))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	changed, overlay := filepath.Join(dir, filepath.Base(b.file)), filepath.Join(dir, "overlay.json")
	j, err := json.Marshal(map[string]map[string]string{"Replace": {filepath.Join(c.root, b.file): changed}})
	if err != nil {
		return "", err
	}
	if err := errors.Join(os.WriteFile(changed, text, 0o600), os.WriteFile(overlay, j, 0o600)); err != nil {
		return "", err
	}
	by, _, err = c.try(ctx, dir, b.by, overlay)
	return by, err
}

// try compiles a package's tests and runs some. It tells the first that failed.
// An error says that they could not be run at all.
func (c *check) try(ctx context.Context, dir string, t test, overlay string) (failed, said string, err error) {
	if err := os.MkdirAll(filepath.Join(dir, "tmp"), 0o700); err != nil {
		return "", "", err
	}
	defer func() {
		sweep(dir + "/")
		_ = os.RemoveAll(dir)
	}()
	env := append(os.Environ(), "CGO_ENABLED=0", "TMPDIR="+filepath.Join(dir, "tmp"))
	if overlay != "" {
		env = append(env, "GOFLAGS=-overlay="+overlay) // also for what the tests build
	}
	binary, pkg := filepath.Join(dir, "test"), filepath.Join(c.root, t.pkg)
	build := exec.CommandContext(ctx, "go", "test", "-c", "-vet=off", "-o", binary, ".")
	build.Dir, build.Env = pkg, env
	if out, err := build.CombinedOutput(); err != nil {
		return "", "", fmt.Errorf("%s does not compile: %w\n%s", t.pkg, err, out)
	}
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, append([]string{"-test.run", t.run, "-test.failfast"}, t.flags...)...)
	cmd.Dir, cmd.Env = pkg, env
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	err = cmd.Run()
	switch text := out.String(); {
	case err == nil && strings.Contains(text, "no tests to run"):
		return "", "", fmt.Errorf("%s: there is no such test", t)
	case err == nil:
		return "", "", nil
	case errors.Is(ctx.Err(), context.Canceled):
		return "", "", ctx.Err()
	case ctx.Err() != nil:
		return t.String() + " (did not end)", text, nil
	default:
		return who(text, t), text, nil
	}
}

// who finds the innermost test that failed in what a package's tests said.
func who(said string, t test) string {
	name := ""
	for line := range strings.Lines(said) {
		if after, ok := strings.CutPrefix(strings.TrimSpace(line), "--- FAIL: "); ok {
			name, _, _ = strings.Cut(after, " (")
		}
	}
	if name == "" {
		return t.String() + " (the process ended)"
	}
	return strings.TrimPrefix(t.pkg, "internal/") + " " + name
}

// sweep ends what a test that was cut short has left: runners and jobs outlive
// whoever started them.
func sweep(dir string) {
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, d := range dirs {
		line, _ := os.ReadFile(filepath.Join(d, "cmdline"))
		env, _ := os.ReadFile(filepath.Join(d, "environ"))
		var pid int
		if _, err := fmt.Sscan(filepath.Base(d), &pid); err == nil && pid != os.Getpid() && (bytes.Contains(line, []byte(dir)) || bytes.Contains(env, []byte(dir))) {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}
