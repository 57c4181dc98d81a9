package demo

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// State is what shop.json in a shop's state directory holds.
type State struct {
	Address string            `json:"address"` // localhost:9001
	Token   string            `json:"token"`   // by which this very process is asked to end
	PID     int               `json:"pid"`     // for people; nothing is ever killed by it
	Labels  map[string]string `json:"labels"`
}

// URL is where the shop is.
func (s State) URL() string { return "http://" + s.Address }

const (
	stateFile   = "shop.json"
	tokenHeader = "Shop-Token"
	startTime   = 20 * time.Second
	stopTime    = 20 * time.Second
	lookAgain   = 10 * time.Millisecond
)

// ReadState reads a state directory. An error of fs.ErrNotExist says that no
// shop runs from it.
func ReadState(dir string) (State, error) {
	var s State
	b, err := os.ReadFile(filepath.Join(dir, stateFile))
	if err == nil {
		err = json.Unmarshal(b, &s)
	}
	return s, err
}

// Serve serves a shop until ctx ends or the holder of its token asks it to.
type Serve struct {
	Source  Source
	State   string // state directory
	Address string // host:port
	AnyPort bool   // take another port when that one is taken
	Labels  map[string]string
}

// Run serves. It says where in its state directory once it listens.
func (s Serve) Run(ctx context.Context) error {
	shop, err := s.Source.Open(s.Labels)
	if err != nil {
		return err
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", s.Address)
	if errors.Is(err, syscall.EADDRINUSE) && s.AnyPort {
		l, err = lc.Listen(ctx, "tcp", "localhost:0")
	}
	if err != nil {
		return err
	}
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		return err
	}
	shop.labels["instance"] = rand.Text() // this very process, wherever it listens
	state := State{Address: "localhost:" + port, Token: rand.Text(), PID: os.Getpid(), Labels: shop.labels}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	mux := http.NewServeMux()
	mux.Handle("/", shop.Handler())
	mux.HandleFunc("POST /-/quit", func(w http.ResponseWriter, r *http.Request) {
		if subtle.ConstantTimeCompare([]byte(r.Header.Get(tokenHeader)), []byte(state.Token)) != 1 {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		w.WriteHeader(http.StatusNoContent)
		stop()
	})
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: askTime}
	go func() {
		<-ctx.Done()
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		if srv.Shutdown(end) != nil {
			_ = srv.Close()
		}
	}()
	if err := writeState(s.State, state); err != nil {
		_ = l.Close()
		return err
	}
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func writeState(dir string, s State) error {
	b, err := json.Marshal(s)
	if err != nil {
		return err
	}
	tmp := filepath.Join(dir, fmt.Sprintf(".%s.%d", stateFile, os.Getpid()))
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, filepath.Join(dir, stateFile))
}

// Start starts a shop as a process of its own, with a session of its own, which
// lives on when the deploy script has ended, and waits until it answers. One
// that runs already with the same labels is left alone; any other one that was
// started from this state directory is ended first.
func Start(ctx context.Context, exe string, s Serve) (State, error) {
	if err := os.MkdirAll(s.State, 0o750); err != nil {
		return State{}, err
	}
	unlock, err := lock(s.State)
	if err != nil {
		return State{}, err
	}
	defer unlock()
	if old, err := ReadState(s.State); err == nil {
		if wants(s.Labels, old.Labels) && alive(ctx, old) {
			return old, nil
		}
		if err := quit(ctx, s.State, old); err != nil {
			return State{}, err
		}
	}
	cmd, err := s.spawn(ctx, exe)
	if err != nil {
		return State{}, err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for over := time.After(startTime); ; {
		if now, err := ReadState(s.State); err == nil && now.PID == cmd.Process.Pid && alive(ctx, now) {
			return now, nil
		}
		select {
		case err := <-ended:
			return State{}, fmt.Errorf("the shop did not start (%v): %s", err, lastLines(filepath.Join(s.State, "shop.log"))) //nolint:errorlint // it may be nil
		case <-over:
			return State{}, errors.New("the shop did not answer in time")
		case <-ctx.Done():
			return State{}, ctx.Err()
		case <-time.After(lookAgain):
		}
	}
}

// spawn starts the process. Its environment is empty but for the path: it shall
// not carry the job that started it along.
func (s Serve) spawn(ctx context.Context, exe string) (*exec.Cmd, error) {
	output, err := os.Create(filepath.Join(s.State, "shop.log"))
	if err != nil {
		return nil, err
	}
	defer output.Close() //nolint:errcheck // the child has its own copy
	args := []string{"demo-shop", "serve", "--state", s.State, "--addr", s.Address}
	if s.AnyPort {
		args = append(args, "--any-port")
	}
	if s.Source.Archive != "" {
		args = append(args, "--archive", s.Source.Archive)
	} else {
		args = append(args, "--dir", s.Source.Dir)
	}
	for k, v := range s.Labels {
		args = append(args, "--label", k+"="+v)
	}
	cmd := exec.CommandContext(context.WithoutCancel(ctx), exe, args...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	cmd.Stdout, cmd.Stderr = output, output
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	return cmd, cmd.Start()
}

// Stop ends the shop of a state directory and returns when it is gone. None is
// running: done.
func Stop(ctx context.Context, dir string) error {
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	unlock, err := lock(dir)
	if err != nil {
		return err
	}
	defer unlock()
	s, err := ReadState(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return quit(ctx, dir, s)
}

func quit(ctx context.Context, dir string, s State) error {
	ctx, cancel := context.WithTimeout(ctx, stopTime)
	defer cancel()
	for alive(ctx, s) {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.URL()+"/-/quit", nil)
		if err != nil {
			return err
		}
		req.Header.Set(tokenHeader, s.Token)
		if resp, err := http.DefaultClient.Do(req); err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusForbidden {
				break // another shop has that port now; ours is gone
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the shop at %s does not end: %w", s.Address, ctx.Err())
		case <-time.After(lookAgain):
		}
	}
	return os.Remove(filepath.Join(dir, stateFile))
}

// alive tells whether something answers where the shop was.
func alive(ctx context.Context, s State) bool {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL()+"/healthz", nil)
	if err != nil {
		return false
	}
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return !errors.Is(err, syscall.ECONNREFUSED) && ctx.Err() == nil && !errors.Is(err, syscall.ECONNRESET)
	}
	_ = resp.Body.Close()
	return true
}

func wants(labels, has map[string]string) bool {
	for k, v := range labels {
		if has[k] != v {
			return false
		}
	}
	return true
}

// lock keeps two scripts from starting and ending the same shop at once.
func lock(dir string) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		_ = f.Close()
		return nil, err
	}
	return func() { _ = f.Close() }, nil
}

// Labels asks the shop that runs from a state directory what it is. An error of
// fs.ErrNotExist says that none runs.
func Labels(ctx context.Context, dir string) (map[string]string, error) {
	s, err := ReadState(dir)
	if err != nil {
		return nil, err
	}
	if !alive(ctx, s) {
		return nil, fs.ErrNotExist
	}
	return labelsAt(ctx, s.URL())
}

func labelsAt(ctx context.Context, url string) (map[string]string, error) {
	status, body, err := get(ctx, url+"/version")
	if err != nil {
		return nil, err
	}
	var labels map[string]string
	if err := json.Unmarshal([]byte(body), &labels); err != nil || status != http.StatusOK {
		return nil, fmt.Errorf("%s/version answered %d and no JSON", url, status)
	}
	return labels, nil
}
