package faults

import (
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
)

const shop = "shop"

// patience is how long the detours wait for what must come.
const patience = 2 * time.Minute

// world is an installation that is played with: a server that is started again
// whenever it dies, and a person who looks before they click again.
type world struct {
	ctx      context.Context
	suite    suite
	dir      string
	data     string
	database string
	bare     string
	clone    string
	url      string
	token    string
	env      []string
	api      *api.Client
	commits  map[int64]string // by build
	down     context.CancelFunc
	gone     chan struct{}
	pid      atomic.Int64 // of the server
}

func (s suite) newWorld(ctx context.Context, dir, database string, env []string, files map[string]string) (*world, error) {
	w := &world{ctx: ctx, suite: s, dir: dir, data: filepath.Join(dir, "data"), database: database, bare: filepath.Join(dir, "shop.git"), clone: filepath.Join(dir, "shop"), commits: map[int64]string{}}
	w.env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "GIT_CONFIG_NOSYSTEM=1", "GIT_AUTHOR_NAME=Ana", "GIT_AUTHOR_EMAIL=ana@example.org", "GIT_COMMITTER_NAME=Ana", "GIT_COMMITTER_EMAIL=ana@example.org"}, env...)
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", fmt.Sprintf("127.%d.%d.%d:0", 1+rand.IntN(250), rand.IntN(250), 1+rand.IntN(250)))
	if err != nil {
		return nil, err
	}
	defer l.Close()
	w.url = "http://" + l.Addr().String()
	for _, args := range [][]string{{"init", "--quiet", "--bare", "--initial-branch=master", w.bare}, {"init", "--quiet", "--initial-branch=master", w.clone}} {
		if _, err := w.git(dir, args...); err != nil {
			return nil, err
		}
	}
	for _, args := range [][]string{{"remote", "add", "origin", w.bare}, {"commit", "--quiet", "--allow-empty", "--message", "An empty shop"}, {"push", "--quiet", "origin", "master"}, {"switch", "--quiet", "--create", "develop"}} {
		if _, err := w.git(w.clone, args...); err != nil {
			return nil, err
		}
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(w.clone, name), []byte(w.expand(text)), 0o755); err != nil {
			return nil, err
		}
	}
	return w, nil
}

func (w *world) in(name string) string { return filepath.Join(w.dir, name) }

func (w *world) expand(text string) string { return strings.ReplaceAll(text, "@DIR@", w.dir) }

func (w *world) lines(name string) []string {
	b, _ := os.ReadFile(w.in(name))
	return strings.FieldsFunc(string(b), func(r rune) bool { return r == '\n' })
}

func (w *world) run(dir string, args ...string) (string, error) {
	cmd := exec.CommandContext(w.ctx, args[0], args[1:]...)
	cmd.Dir, cmd.Env = dir, append(w.env, "SHUNT_SERVER="+w.url, "SHUNT_TOKEN="+w.token, "SHUNT_PROJECT="+shop)
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%q: %w: %s", args, err, out)
	}
	return strings.TrimSpace(string(out)), err
}

func (w *world) git(dir string, args ...string) (string, error) {
	return w.run(dir, append([]string{"git"}, args...)...)
}

func (w *world) shunt(args ...string) error {
	_, err := w.run(w.clone, append([]string{w.suite.bin}, args...)...)
	return err
}

// until tries again until there is no error.
func (w *world) until(what string, try func() error) error {
	for end := time.Now().Add(patience); ; {
		err := try()
		if err == nil {
			return nil
		}
		if time.Now().After(end) || w.ctx.Err() != nil {
			return fmt.Errorf("waited in vain until %s: %w", what, err)
		}
		time.Sleep(25 * time.Millisecond)
	}
}

// serve starts the server, and again whenever it ends, until stop.
func (w *world) serve() error {
	log, err := os.OpenFile(w.in("server.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	ctx, down := context.WithCancel(w.ctx)
	w.down, w.gone = down, make(chan struct{})
	data, gone := w.data, w.gone
	go func() {
		defer close(gone)
		defer log.Close()
		runtime.LockOSThread() // its end would be the server's
		for ctx.Err() == nil {
			cmd := exec.CommandContext(ctx, w.suite.bin, "serve", "--data", data, "--listen", strings.TrimPrefix(w.url, "http://"), "--mail-dir", w.in("mail"), "--database", w.database)
			cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = w.dir, w.env, log, log
			cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
			cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
			cmd.WaitDelay = 20 * time.Second
			if cmd.Start() == nil {
				w.pid.Store(int64(cmd.Process.Pid))
				_ = cmd.Wait()
			}
			time.Sleep(20 * time.Millisecond)
		}
	}()
	return w.until("the server answers", func() error {
		req, err := http.NewRequestWithContext(w.ctx, http.MethodGet, w.url+"/readyz", nil)
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return errors.New(resp.Status)
		}
		return nil
	})
}

// stop ends the server and its runner.
func (w *world) stop() {
	if w.down == nil {
		return
	}
	w.down()
	<-w.gone
	w.down = nil
	// The runner outlives its server; whatever has the story's folder in its command line is ours.
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		line, _ := os.ReadFile(filepath.Join(dir, "cmdline"))
		var pid int
		if _, err := fmt.Sscan(filepath.Base(dir), &pid); err == nil && strings.Contains(string(line), w.dir+"/") {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}

// begin starts the server and takes the repository over.
func (w *world) begin(hook string) error {
	if err := w.serve(); err != nil {
		return err
	}
	err := w.until("there is a token", func() (err error) {
		w.token, err = w.run(w.clone, w.suite.bin, "token", "create", "test", "--data", w.data)
		return err
	})
	if err != nil {
		return err
	}
	w.api = api.NewClient(w.url, w.token, &http.Client{Timeout: time.Minute})
	err = w.until("the project is there", func() error {
		_, err := w.api.AddProject(w.ctx, api.AddProject{Name: shop, URL: w.bare, Local: true})
		if delivery.IsKind(err, delivery.KindConflict) {
			return nil // an answer was lost
		}
		return err
	})
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(w.bare, "hooks", "post-receive"), []byte(w.expand(hook)), 0o755); err != nil {
		return err
	}
	return w.push(1)
}

// push commits and pushes what becomes build number, and tells the server until it
// has seen it: nobody else does.
func (w *world) push(number int64) error {
	err := os.WriteFile(filepath.Join(w.clone, "text"), fmt.Appendln(nil, number), 0o600)
	for _, args := range [][]string{{"add", "--all"}, {"commit", "--quiet", "--message", "More pets"}, {"push", "--quiet", "origin", "develop"}} {
		if err == nil {
			_, err = w.git(w.clone, args...)
		}
	}
	if err != nil {
		return err
	}
	if w.commits[number], err = w.git(w.clone, "rev-parse", "HEAD"); err != nil {
		return err
	}
	return w.until("the push is seen", func() error {
		if _, err := w.api.Sync(w.ctx, shop); err != nil {
			return err
		}
		b, err := w.api.Build(w.ctx, shop, number)
		if err == nil && b.Commit != w.commits[number] {
			err = fmt.Errorf("build %d is of %s", number, b.Commit)
		}
		return err
	})
}

func (w *world) reach(number int64, status delivery.BuildStatus) error {
	return w.until(fmt.Sprintf("build %d is %s", number, status), func() error {
		b, err := w.api.Build(w.ctx, shop, number)
		if err == nil && b.Status != status {
			err = fmt.Errorf("it is %s: %s", b.Status, b.Reason)
		}
		return err
	})
}

// click is what a person does: look whether it is done, click, and look again.
func (w *world) click(what string, done func(api.BuildDetail) bool, number int64, act func() error) error {
	return w.until(what, func() error {
		b, err := w.api.Build(w.ctx, shop, number)
		if err != nil || done(b) {
			return err
		}
		if err := act(); err != nil {
			return err
		}
		if b, err = w.api.Build(w.ctx, shop, number); err == nil && !done(b) {
			err = errors.New("it was answered, and is not so")
		}
		return err
	})
}

// told is what the server tells of its builds, for a story that failed.
func (w *world) told() string {
	if w.api == nil {
		return ""
	}
	var out strings.Builder
	list, _ := w.api.Builds(context.WithoutCancel(w.ctx), shop, api.BuildFilter{Limit: 10})
	for _, b := range list {
		fmt.Fprintf(&out, "build %d %s: %s\n", b.Number, b.Status, b.Reason)
		d, _ := w.api.Build(context.WithoutCancel(w.ctx), shop, b.Number)
		for _, n := range d.Nodes {
			fmt.Fprintf(&out, "  %s %s: %s\n", n.Name, n.State, n.Reason)
		}
	}
	return out.String()
}
