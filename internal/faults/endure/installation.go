package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/shuntcd/shunt/internal/api"
	"github.com/shuntcd/shunt/internal/delivery"
	"github.com/shuntcd/shunt/internal/runner"
)

// patience is how long is waited for what must come.
const patience = 2 * time.Minute

// installation is a server with its data directory, and repositories.
type installation struct {
	tools
	ctx     context.Context
	dir     string
	data    string
	address string
	flags   []string
	token   string
	api     *api.Client

	server *exec.Cmd
	ended  chan struct{}
	pid    atomic.Int64
}

// install prepares an installation in a directory of its own; start starts it.
func (t tools) install(ctx context.Context, name string, flags ...string) (*installation, error) {
	dir := filepath.Join(t.dir, name)
	in := &installation{tools: t, ctx: ctx, dir: dir, data: filepath.Join(dir, "data"), flags: flags}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", fmt.Sprintf("127.%d.%d.%d:0", 1+rand.IntN(250), rand.IntN(250), 1+rand.IntN(250)))
	if err != nil {
		return nil, err
	}
	in.address = l.Addr().String()
	return in, errors.Join(l.Close(), os.MkdirAll(in.data, 0o700))
}

func (in *installation) at(name string) string { return filepath.Join(in.dir, name) }

// start starts the server and tells how long it took until it was ready.
func (in *installation) start() (time.Duration, error) {
	log, err := os.OpenFile(in.at("server.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return 0, err
	}
	defer log.Close()
	cmd := exec.Command(in.exe, append([]string{"serve", "--data", in.data, "--listen", in.address, "--mail-dir", in.at("mail")}, in.flags...)...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + in.dir, "GIT_CONFIG_NOSYSTEM=1", "TMPDIR=" + os.TempDir(), "ENDURE_GOROUTINES=" + in.at("goroutines")}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	ended, started, began := make(chan struct{}), make(chan error), time.Now()
	go func() {
		runtime.LockOSThread() // the parent-death signal comes with the thread's end
		started <- cmd.Start()
		_ = cmd.Wait()
		close(ended)
	}()
	if err := <-started; err != nil {
		return 0, err
	}
	in.server, in.ended = cmd, ended
	in.pid.Store(int64(cmd.Process.Pid))
	err = in.until("the server is ready", func() error {
		resp, err := http.Get("http://" + in.address + "/readyz")
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return errors.New(resp.Status)
		}
		return nil
	})
	took := time.Since(began)
	if err == nil && in.token == "" {
		in.token, err = in.run(in.dir, in.exe, "token", "create", "test", "--data", in.data)
		in.api = api.NewClient("http://"+in.address, in.token, &http.Client{Timeout: 20 * time.Second})
	}
	return took, err
}

// kill ends the server and waits until it is gone.
func (in *installation) kill(sig syscall.Signal) {
	_ = in.server.Process.Signal(sig)
	<-in.ended
}

// end ends all that belongs to the installation, jobs too.
func (in *installation) end() {
	if in.server != nil {
		in.kill(syscall.SIGTERM)
	}
	for pid := range processes(filepath.Dir(in.data) + "/") {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
}

// runner is the process of the runner; 0: there is none right now.
func (in *installation) runner() int {
	c := runner.NewClient(filepath.Join(in.data, "runner"))
	defer c.Close()
	ctx, cancel := context.WithTimeout(in.ctx, 2*time.Second)
	defer cancel()
	info, err := c.Info(ctx)
	if err != nil {
		return 0
	}
	return info.PID
}

// until tries again until there is no error.
func (in *installation) until(what string, try func() error) error {
	for end := time.Now().Add(patience); ; {
		err := try()
		if err == nil {
			return nil
		}
		if time.Now().After(end) || in.ctx.Err() != nil {
			return fmt.Errorf("waited in vain until %s: %w", what, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func (in *installation) run(dir string, args ...string) (string, error) {
	cmd := exec.CommandContext(in.ctx, args[0], args[1:]...)
	cmd.Dir = dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + in.dir, "GIT_CONFIG_NOSYSTEM=1", "GIT_AUTHOR_NAME=Ana", "GIT_AUTHOR_EMAIL=ana@example.org", "GIT_COMMITTER_NAME=Ana", "GIT_COMMITTER_EMAIL=ana@example.org"}
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%q: %w: %s", args, err, out)
	}
	return strings.TrimSpace(string(out)), err
}

func (in *installation) git(dir string, args ...string) (string, error) {
	return in.run(dir, append([]string{"git"}, args...)...)
}

// repository makes a project's repository: bare, with a clone of it on develop.
// @DIR@ in the pipeline file is the installation's directory.
func (in *installation) repository(project, pipeline string) error {
	bare, clone := in.at(project+".git"), in.at(project)
	for _, args := range [][]string{{"init", "--quiet", "--bare", "--initial-branch=master", bare}, {"init", "--quiet", "--initial-branch=master", clone}} {
		if _, err := in.git(in.dir, args...); err != nil {
			return err
		}
	}
	for _, args := range [][]string{{"remote", "add", "origin", bare}, {"commit", "--quiet", "--allow-empty", "--message", "An empty shop"}, {"push", "--quiet", "origin", "master"}, {"switch", "--quiet", "--create", "develop"}} {
		if _, err := in.git(clone, args...); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(clone, ".shunt.yml"), []byte(strings.ReplaceAll(pipeline, "@DIR@", in.dir)), 0o600)
}

// commit commits a change in a project's clone.
func (in *installation) commit(project, text string) (string, error) {
	clone := in.at(project)
	if err := os.WriteFile(filepath.Join(clone, "text"), []byte(text), 0o600); err != nil {
		return "", err
	}
	for _, args := range [][]string{{"add", "--all"}, {"commit", "--quiet", "--message", text}} {
		if _, err := in.git(clone, args...); err != nil {
			return "", err
		}
	}
	return in.git(clone, "rev-parse", "HEAD")
}

func (in *installation) push(project string) error {
	_, err := in.git(in.at(project), "push", "--quiet", "origin", "develop")
	return err
}

func (in *installation) add(project string) error {
	return in.until("project "+project+" is there", func() error {
		_, err := in.api.AddProject(in.ctx, api.AddProject{Name: project, URL: in.at(project + ".git"), Local: true})
		if delivery.IsKind(err, delivery.KindConflict) {
			return nil
		}
		return err
	})
}

// lines of a file that scripts write.
func (in *installation) lines(name string) []string {
	b, _ := os.ReadFile(in.at(name))
	return strings.FieldsFunc(string(b), func(r rune) bool { return r == '\n' })
}

// processes lists those whose command line or environment has a text.
func processes(text string) map[int]string {
	out := map[int]string{}
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		line, _ := os.ReadFile(filepath.Join(dir, "cmdline"))
		env, _ := os.ReadFile(filepath.Join(dir, "environ"))
		var pid int
		if _, err := fmt.Sscan(filepath.Base(dir), &pid); err == nil && pid != os.Getpid() && (bytes.Contains(line, []byte(text)) || bytes.Contains(env, []byte(text))) {
			out[pid] = string(bytes.ReplaceAll(line, []byte{0}, []byte{' '}))
		}
	}
	return out
}
