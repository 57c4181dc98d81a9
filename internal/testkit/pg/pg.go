// Package pg starts a real PostgreSQL for tests, from Debian's package, in a
// directory of its own and reachable only through a socket in it.
package pg

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// Server is a running PostgreSQL.
type Server struct {
	dir  string
	bin  string
	cred *syscall.Credential
	cmd  *exec.Cmd
	n    atomic.Int64
	// Listen is an address to be reached at over TCP as well, by whoever is in
	// its /24 network; "": only through the socket. Set it before Run.
	Listen string
}

// Available tells where PostgreSQL's programs are; "" when it is not installed.
func Available() string {
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	if err != nil || len(found) == 0 {
		return ""
	}
	return filepath.Dir(found[len(found)-1])
}

// Start makes a cluster and starts it. Stop removes both.
func Start() (*Server, error) {
	s := &Server{bin: Available()}
	if s.bin == "" {
		return nil, fmt.Errorf("PostgreSQL is not installed: apt-get install postgresql")
	}
	dir, err := os.MkdirTemp("", "shunt-pg-")
	if err != nil {
		return nil, err
	}
	s.dir = dir
	if os.Getuid() == 0 { // postgres refuses to run as root
		u, err := user.Lookup("postgres")
		if err != nil {
			return nil, err
		}
		uid, _ := strconv.ParseUint(u.Uid, 10, 32)
		gid, _ := strconv.ParseUint(u.Gid, 10, 32)
		s.cred = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		if err := os.Chown(dir, int(uid), int(gid)); err != nil {
			return nil, err
		}
	}
	if out, err := s.command("initdb", "-D", s.data(), "-A", "trust", "-U", "shunt", "-E", "UTF8", "--locale=C", "--no-sync").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("initdb: %w\n%s", err, out)
	}
	return s, s.Run()
}

// ForTest starts a server that ends with the test. Where PostgreSQL is not
// installed the test is skipped, and in CI it fails.
func ForTest(tb testing.TB) *Server {
	tb.Helper()
	if Available() == "" && os.Getenv("CI") == "" {
		tb.Skip("PostgreSQL is not installed: apt-get install postgresql")
	}
	s, err := Start()
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(s.Stop)
	return s
}

func (s *Server) data() string { return filepath.Join(s.dir, "data") }

func (s *Server) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(s.bin, name), args...)
	cmd.Dir = s.dir
	cmd.Env = []string{"PATH=/usr/bin:/bin", "LANG=C"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.cred, Pdeathsig: syscall.SIGQUIT}
	return cmd
}

// Run starts the server on its cluster, also after Kill.
func (s *Server) Run() error {
	if s.Listen != "" {
		hba := "local all all trust\nhost all all " + s.Listen + "/24 trust\n"
		if err := os.WriteFile(filepath.Join(s.data(), "pg_hba.conf"), []byte(hba), 0o600); err != nil {
			return err
		}
		if s.cred != nil {
			if err := os.Chown(filepath.Join(s.data(), "pg_hba.conf"), int(s.cred.Uid), int(s.cred.Gid)); err != nil {
				return err
			}
		}
	}
	log, err := os.OpenFile(filepath.Join(s.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o666)
	if err != nil {
		return err
	}
	s.cmd = s.command("postgres", "-D", s.data(), "-k", s.dir, "-c", "listen_addresses="+s.Listen, "-c", "max_connections=100")
	s.cmd.Stdout, s.cmd.Stderr = log, log
	s.cmd.SysProcAttr.Pdeathsig = 0 // bound to a thread; Stop ends it
	if err := s.cmd.Start(); err != nil {
		return err
	}
	for deadline := time.Now().Add(60 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if s.command("pg_isready", "-h", s.dir, "-U", "shunt", "-q").Run() == nil {
			return nil
		}
		if time.Now().After(deadline) {
			text, _ := os.ReadFile(filepath.Join(s.dir, "log"))
			return fmt.Errorf("postgres does not start:\n%s", text)
		}
	}
}

// Database makes an empty database and returns its URL.
func (s *Server) Database(ctx context.Context) (string, error) {
	name := fmt.Sprintf("t%d", s.n.Add(1))
	if out, err := s.command("createdb", "-h", s.dir, "-U", "shunt", name).CombinedOutput(); err != nil {
		return "", fmt.Errorf("createdb: %w\n%s", err, out)
	}
	q := url.Values{"host": {s.dir}, "user": {"shunt"}}
	return "postgres:///" + name + "?" + q.Encode(), ctx.Err()
}

// Temporary makes an empty database and returns its URL, and how to remove it:
// a cluster that serves hundreds of stories would fill the disk.
func (s *Server) Temporary(ctx context.Context) (url string, drop func() error, err error) {
	name := ""
	if url, err = s.Database(ctx); err == nil {
		name, _, _ = strings.Cut(strings.TrimPrefix(url, "postgres:///"), "?")
	}
	return url, func() error {
		return s.command("dropdb", "--force", "-h", s.dir, "-U", "shunt", name).Run()
	}, err
}

// Kill ends the server at once, as a crash does.
func (s *Server) Kill() {
	_ = s.cmd.Process.Signal(syscall.SIGQUIT) // "immediate shutdown": no checkpoint, clients are cut
	_ = s.cmd.Wait()
}

// Signal sends a signal to all of the server's processes.
func (s *Server) Signal(sig syscall.Signal) error {
	children, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", s.cmd.Process.Pid))
	for _, file := range children {
		pids, _ := os.ReadFile(file)
		for pid := range strings.FieldsSeq(string(pids)) {
			if n, err := strconv.Atoi(pid); err == nil {
				_ = syscall.Kill(n, sig)
			}
		}
	}
	return errors.Join(err, s.cmd.Process.Signal(sig))
}

// Stop ends the server and removes its directory.
func (s *Server) Stop() {
	s.Kill()
	_ = os.RemoveAll(s.dir)
}
