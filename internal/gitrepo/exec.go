package gitrepo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/shuntcd/shunt/internal/delivery"
)

const (
	maxStderr = 64 << 10
	maxStdout = 64 << 20
	killGrace = 2 * time.Second // between SIGTERM, on which git removes its lock files, and SIGKILL
)

// errTooMuch says that git wrote more than the caller wanted; it was stopped.
var errTooMuch = errors.New("output is too long")

// exitError is a git process that ended with a code other than 0.
type exitError struct {
	sub    string
	code   int // -1: killed by a signal
	stdout []byte
	stderr string
}

func (e *exitError) Error() string {
	return fmt.Sprintf("git %s: exit %d: %s", e.sub, e.code, e.stderr)
}

// exitCode is the exit code in err's chain, or -2 when git did not run to an end.
func exitCode(err error) int {
	if e, ok := errors.AsType[*exitError](err); ok {
		return e.code
	}
	return -2
}

// inherited are the only variables of the server that git sees: where programs
// are, the ssh agent, and the way out of the building.
func inherited() []string {
	return []string{
		"PATH", "TMPDIR", "SSH_AUTH_SOCK", "SSL_CERT_FILE", "SSL_CERT_DIR",
		"http_proxy", "https_proxy", "HTTPS_PROXY", "no_proxy", "NO_PROXY",
	}
}

func baseEnv(home, ssh string) []string {
	env := []string{
		"HOME=" + home,
		"LANG=C", "LC_ALL=C", // messages are parsed in a few places
		"GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_ATTR_NOSYSTEM=1",
		"GIT_TERMINAL_PROMPT=0", "GIT_SSH_COMMAND=" + ssh,
		"GIT_NO_REPLACE_OBJECTS=1", "GIT_LITERAL_PATHSPECS=1", "GIT_OPTIONAL_LOCKS=0",
		"GIT_LFS_SKIP_SMUDGE=1", "GIT_ADVICE=0", "GIT_NO_LAZY_FETCH=1",
	}
	for _, name := range inherited() {
		if v, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+v)
		}
	}
	return env
}

// safeOptions come before every subcommand. safe.* and core.hooksPath count
// only when they come from here, never from a repository.
func safeOptions() []string {
	return []string{
		"-c", "core.hooksPath=/dev/null",
		"-c", "safe.bareRepository=explicit",
		"-c", "core.fsmonitor=false",
		"-c", "core.attributesFile=/dev/null",
		"-c", "core.quotePath=false",
		"-c", "submodule.recurse=false",
		"-c", "core.fsync=objects,derived-metadata,reference", // git's default leaves loose objects and refs to luck
		"-c", "gc.auto=0",
		"-c", "maintenance.auto=false",
		"-c", "credential.helper=",
		"-c", "http.followRedirects=false", // what was registered is what is asked
		"-c", "http.lowSpeedLimit=1", "-c", "http.lowSpeedTime=60",
		"-c", "protocol.allow=never", // GIT_ALLOW_PROTOCOL opens what the URL needs
	}
}

// command is one git process.
type command struct {
	gitDir   string   // always given, except for `git version`
	workTree string   // of a checkout
	args     []string // subcommand and its options: ours, never data alone
	operands []string // data; behind --end-of-options
	env      []string // added to the allow-list
	secrets  []string // cut out of what git says
	stdin    io.Reader
	stdout   io.Writer     // nil: collected and returned
	max      int           // bytes of stdout to collect; 0: 64 MiB
	timeout  time.Duration // 0: the default of Git
}

// run starts git and waits for it. It returns what git wrote, also together
// with errTooMuch. The error is an *exitError when git ran to an end, and wraps
// the context's error when it did not.
func (g *Git) run(ctx context.Context, c command) ([]byte, error) {
	argv := safeOptions()
	if c.gitDir != "" {
		argv = append(argv, "--git-dir="+c.gitDir)
	}
	if c.workTree != "" {
		argv = append(argv, "--work-tree="+c.workTree)
	}
	argv = append(argv, c.args...)
	if len(c.operands) > 0 {
		argv = append(argv, "--end-of-options")
	}
	for _, o := range c.operands {
		if strings.HasPrefix(o, "-") || strings.ContainsRune(o, 0) {
			return nil, delivery.Errf(delivery.KindInvalid, "bad operand for git", "it begins with a dash or has a NUL in it")
		}
		argv = append(argv, o)
	}
	if c.timeout == 0 {
		c.timeout = g.timeout
	}
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	if c.max == 0 {
		c.max = maxStdout
	}
	out := &capped{max: c.max, full: cancel}
	errs := &capped{max: maxStderr, full: func() {}}

	cmd := exec.CommandContext(ctx, g.bin, argv...)
	cmd.Dir = g.dir
	cmd.Env = append(append(make([]string, 0, len(g.env)+len(c.env)), g.env...), c.env...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = c.stdin, out, errs
	if c.stdout != nil {
		cmd.Stdout = c.stdout
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = killGrace
	sub := c.args[0]
	g.log.DebugContext(ctx, "git", "args", c.args, "operands", c.operands)
	if err := cmd.Start(); err != nil {
		return nil, &startError{fmt.Errorf("git %s: %w", sub, err)}
	}
	err := cmd.Wait()
	if ctx.Err() != nil {
		// Whoever of the group outlived SIGTERM goes now. A group id is not
		// given to others while the group has a member; an empty one is ESRCH.
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	}
	stderr := clean(errs.buf.Bytes(), c.secrets)
	switch exit, isExit := errors.AsType[*exec.ExitError](err); {
	case out.over:
		return out.buf.Bytes(), fmt.Errorf("git %s: %w", sub, errTooMuch)
	case err == nil:
		return out.buf.Bytes(), nil
	case ctx.Err() != nil:
		return out.buf.Bytes(), fmt.Errorf("git %s: %w: %s", sub, ctx.Err(), stderr)
	case isExit:
		return out.buf.Bytes(), &exitError{sub: sub, code: exit.ExitCode(), stdout: out.buf.Bytes(), stderr: stderr}
	}
	return out.buf.Bytes(), fmt.Errorf("git %s: %w: %s", sub, err, stderr)
}

// startError says that no process was started, so that nothing can have happened.
type startError struct{ err error }

func (e *startError) Error() string { return e.err.Error() }
func (e *startError) Unwrap() error { return e.err }

// capped keeps the first max bytes and swallows the rest; full is called once
// when there is a rest.
type capped struct {
	buf  bytes.Buffer
	max  int
	over bool
	full func()
}

func (c *capped) Write(p []byte) (int, error) {
	room := c.max - c.buf.Len()
	if room >= len(p) {
		return c.buf.Write(p)
	}
	c.buf.Write(p[:room])
	if !c.over {
		c.over = true
		c.full()
	}
	return len(p), nil
}

// clean makes what git said fit for an error: valid UTF-8, no control
// characters but line breaks, no secrets.
func clean(b []byte, secrets []string) string {
	s := strings.Map(func(r rune) rune {
		switch {
		case r == '\n':
			return r
		case r == '\t' || r == '\r':
			return ' '
		case r < ' ' || r >= 0x7f && r < 0xa0:
			return -1
		}
		return r
	}, text(b))
	for _, secret := range secrets {
		s = strings.ReplaceAll(s, secret, "***")
	}
	return strings.TrimSpace(s)
}

// text makes bytes of a repository valid UTF-8.
func text(b []byte) string { return strings.ToValidUTF8(string(b), "\uFFFD") }
