package runner

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shuntcd/shunt/internal/delivery"
)

// Options are what Main needs.
type Options struct {
	Dir     string // the runner's own directory; made if absent
	Version string // of the program, for Info
	Log     *slog.Logger
	Clock   delivery.Clock // nil is the machine's clock
}

// server is the runner process.
type server struct {
	dir      string
	version  string
	instance string
	log      *slog.Logger
	clock    delivery.Clock
	forks    *forker
	end      <-chan struct{} // closed when long polls must return

	mu       sync.Mutex
	lease    time.Duration // sinceBoot at which the lease ends; 0: there is none to hold (link.go)
	jobs     map[string]*job
	released []string // IDs of the last released jobs, which must not start again
	draining bool
	running  sync.WaitGroup // jobs
	chores   sync.WaitGroup
}

// Main is the runner: it serves the protocol until ctx ends or the process gets
// TERM or INT, then takes no new jobs, and returns when its last job has ended.
// It refuses to share its directory with another runner.
func Main(ctx context.Context, o Options) error {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return fmt.Errorf("the runner's directory: %w", err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "jobs"), 0o700); err != nil {
		return fmt.Errorf("the runner's directory: %w", err)
	}
	// One name for one directory, because jobs carry it in their cookie.
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return fmt.Errorf("the runner's directory: %w", err)
	}
	lock, err := lockDir(dir)
	if err != nil {
		return err
	}
	defer closeFile(lock)
	// What is synced below a directory whose own name is lost is lost with it.
	if err := errors.Join(syncDir(dir), syncDir(filepath.Dir(dir))); err != nil {
		return err
	}
	// Jobs run as the same user and must not read the memory of their runner.
	_ = unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)

	end := make(chan struct{})
	s := &server{
		dir: dir, version: o.Version, instance: rand.Text(), log: o.Log, clock: o.Clock,
		end: end, jobs: map[string]*job{},
	}
	if s.clock == nil {
		s.clock = delivery.SystemClock{}
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if err := s.recover(); err != nil {
		return err
	}
	if _, err := os.Stat(linkPath(dir)); err == nil {
		s.lease = notYet // no job starts before the first renewal
	}
	listener, cleanup, err := listen(ctx, dir)
	if err != nil {
		return err
	}
	defer cleanup()
	s.forks = newForker()
	defer s.forks.close()
	s.warm()

	web := &http.Server{
		Handler: s.routes(), ReadHeaderTimeout: 10 * time.Second,
		ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelWarn),
	}
	served := make(chan error, 1)
	go func() { served <- web.Serve(listener) }()
	links, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut() // not before the last job has ended: its lease is renewed meanwhile
	s.chores.Go(func() { s.keepLinks(links) })
	s.log.Info("runner started", "dir", dir, "pid", os.Getpid(), "instance", s.instance)

	look := time.NewTicker(5 * time.Second)
	defer look.Stop()
	for ctx.Err() == nil {
		select {
		case err := <-served:
			return fmt.Errorf("serving the runner's socket: %w", err)
		case <-look.C:
			if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
				stop() // somebody deleted the data directory: there is nothing left to serve
			}
		case <-ctx.Done():
		}
	}
	s.mu.Lock()
	s.draining = true
	s.mu.Unlock()
	s.log.Info("runner takes no new jobs and ends with its last one")
	s.running.Wait()
	close(end)
	cut()
	shutdown, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if err := web.Shutdown(shutdown); err != nil {
		_ = web.Close()
	}
	s.chores.Wait()
	s.log.Info("runner ended")
	return nil
}

// lockDir holds the directory's lock for as long as the file is open.
func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("the runner's lock: %w", err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	// A runner that was just killed holds its lock until its last thread is gone.
	for tries := 0; err != nil && tries < 25; tries++ {
		time.Sleep(20 * time.Millisecond)
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	}
	if err != nil {
		closeFile(f)
		return nil, &delivery.Error{
			Kind: delivery.KindConflict, What: "cannot start a runner",
			Why: fmt.Sprintf("another runner works in %s", dir), Err: err,
		}
	}
	return f, nil
}

// maxSocketPath is the room for a path in sockaddr_un without its final NUL.
const maxSocketPath = 107

// listen opens the socket DIR/runner.sock. A path that is too long for a socket
// is replaced by one in a private temporary directory, named in DIR/socket.
func listen(ctx context.Context, dir string) (net.Listener, func(), error) {
	path, pointer := filepath.Join(dir, "runner.sock"), filepath.Join(dir, "socket")
	cleanup := func() {}
	if err := errors.Join(removeIfThere(path), removeIfThere(pointer)); err != nil {
		return nil, nil, fmt.Errorf("the runner's socket: %w", err)
	}
	if len(path) > maxSocketPath {
		temp, err := os.MkdirTemp("", "shunt-")
		if err == nil && len(temp)+len("/s") > maxSocketPath {
			_ = os.Remove(temp)
			temp, err = os.MkdirTemp("/tmp", "shunt-")
		}
		if err != nil {
			return nil, nil, fmt.Errorf("the runner's socket: %w", err)
		}
		cleanup = func() { _ = os.RemoveAll(temp); _ = os.Remove(pointer) }
		path = filepath.Join(temp, "s")
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "unix", path)
	if err == nil {
		err = os.Chmod(path, 0o600)
	}
	if err == nil && filepath.Dir(path) != dir {
		err = os.WriteFile(pointer, []byte(path), 0o600)
	}
	if err != nil {
		cleanup()
		return nil, nil, fmt.Errorf("the runner's socket: %w", err)
	}
	return listener, cleanup, nil
}

func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("removing an old file: %w", err)
	}
	return nil
}

// warm starts a shim ahead, in the background.
func (s *server) warm() {
	s.chores.Go(func() {
		if err := s.forks.prepare(); err != nil {
			s.log.Warn("no supervisor could be started ahead", "err", err)
		}
	})
}

// find gives a known job once its start has been decided.
func (s *server) find(id string) (*job, error) {
	s.mu.Lock()
	j := s.jobs[id]
	s.mu.Unlock()
	if j == nil {
		return nil, unknownJob(id)
	}
	<-j.ready
	if j.startErr != nil {
		return nil, unknownJob(id)
	}
	return j, nil
}

// start starts a job, or answers the status of one that has been started before.
func (s *server) start(spec Spec) (Status, error) {
	if err := spec.check(); err != nil {
		s.mu.Lock()
		known := s.jobs[spec.ID] != nil
		s.mu.Unlock()
		if !known { // the directory of a known job may be gone by now
			return Status{}, err
		}
	}
	s.mu.Lock()
	j, known := s.jobs[spec.ID]
	if !known {
		if err := s.mayStart(spec); err != nil {
			s.mu.Unlock()
			return Status{}, err
		}
		dir := jobDir(filepath.Join(s.dir, "jobs", spec.ID))
		j = newJob(dir, record{ID: spec.ID, Fence: spec.Fence, Daemons: spec.Daemons}, s.clock, s.log)
		j.until = s.lease
		s.jobs[spec.ID] = j
		s.running.Add(1)
	}
	s.mu.Unlock()
	if known {
		<-j.ready
		if j.startErr != nil {
			return Status{}, j.startErr
		}
		if err := j.adopt(spec.Fence); err != nil {
			return Status{}, err
		}
		return j.status(), nil
	}

	out, err := j.start(s.forks, spec)
	if err != nil {
		j.startErr = &delivery.Error{Kind: delivery.KindUnavailable, What: "cannot start the job", Why: err.Error(), Err: err}
		close(j.ready)
		s.mu.Lock()
		delete(s.jobs, spec.ID)
		s.mu.Unlock()
		_ = RemoveAll(string(j.dir))
		s.running.Done()
		return Status{}, j.startErr
	}
	go j.run(spec, s.dir, out, s.running.Done)
	<-j.ready
	s.warm()
	return j.status(), nil
}

func (s *server) mayStart(spec Spec) error {
	if spec.Asked > 0 && sinceBoot()-spec.Asked > AskedTime {
		return &delivery.Error{Kind: delivery.KindConflict, What: "cannot start the job", Why: "whoever asks may not drive the build any more", Err: delivery.ErrLeaseLost}
	}
	if s.lease > 0 && sinceBoot() >= s.lease {
		return &delivery.Error{Kind: delivery.KindUnavailable, What: "cannot start the job", Why: "the runner could not renew its lease", Err: ErrNoLease}
	}
	if s.draining {
		return delivery.Errf(delivery.KindUnavailable, "cannot start the job", "this runner is about to end and takes no new jobs")
	}
	if slices.Contains(s.released, spec.ID) {
		return delivery.Errf(delivery.KindConflict, "cannot start the job", fmt.Sprintf("job %s has run and was released", spec.ID))
	}
	return nil
}

// release forgets a finished job and removes its files.
func (s *server) release(id string) error {
	const remember = 1000
	s.mu.Lock()
	j := s.jobs[id]
	s.mu.Unlock()
	if j == nil {
		return nil
	}
	if j.status().Running {
		return delivery.Errf(delivery.KindConflict, "cannot release the job", fmt.Sprintf("job %s is running", id))
	}
	// Out of sight in one step, so that a crash leaves no half of a job.
	trash := filepath.Join(s.dir, "trash-"+rand.Text())
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.jobs[id] != j {
		return nil // released meanwhile
	}
	if err := os.Rename(string(j.dir), trash); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("releasing a job: %w", err)
	}
	delete(s.jobs, id)
	s.released = append(s.released, id)
	s.released = s.released[max(0, len(s.released)-remember):]
	s.chores.Go(func() {
		if err := errors.Join(RemoveAll(trash), RemoveAll(s.tree(id))); err != nil {
			s.log.Warn("files of a released job stay", "job", id, "err", err)
		}
	})
	return nil
}

func unknownJob(id string) error {
	return &delivery.Error{Kind: delivery.KindNotFound, What: "no such job", Why: fmt.Sprintf("the runner does not know job %q", id), Err: ErrUnknownJob}
}
