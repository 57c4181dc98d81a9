package runner

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// forker starts shims from one thread that lives as long as the runner,
// because the parent-death signal is tied to the thread that forked and not to
// its process. It keeps one shim started ahead, waiting for its job, which
// hides the start of the program from the job.
type forker struct {
	calls chan func()
	wg    sync.WaitGroup

	mu     sync.Mutex
	warm   *supervisor
	closed bool
}

// supervisor is a shim seen from the runner.
type supervisor struct {
	cmd    *exec.Cmd
	in     *os.File // control lines to it
	status *os.File // events from it
	output *os.File // what the steps print
	self   process
}

func newForker() *forker {
	f := &forker{calls: make(chan func())}
	f.wg.Go(func() {
		runtime.LockOSThread() // never unlocked
		for call := range f.calls {
			call()
		}
	})
	return f
}

// close ends the waiting shim and the thread. No start may follow.
func (f *forker) close() {
	f.mu.Lock()
	f.closed = true
	warm := f.warm
	f.warm = nil
	f.mu.Unlock()
	if warm != nil {
		warm.discard()
	}
	close(f.calls)
	f.wg.Wait()
}

// take gives the shim that was started ahead, or a new one.
func (f *forker) take() (*supervisor, error) {
	f.mu.Lock()
	warm := f.warm
	f.warm = nil
	f.mu.Unlock()
	if warm != nil {
		if _, alive := readProcess(warm.self.pid); alive {
			return warm, nil
		}
		warm.discard()
	}
	return f.start()
}

// prepare starts a shim ahead if there is none.
func (f *forker) prepare() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed || f.warm != nil {
		return nil
	}
	warm, err := f.start()
	f.warm = warm
	return err
}

func (f *forker) start() (*supervisor, error) {
	var s *supervisor
	var err error
	done := make(chan struct{})
	f.calls <- func() {
		defer close(done)
		s, err = startShim()
	}
	<-done
	return s, err
}

func startShim() (*supervisor, error) {
	var s supervisor
	var theirs [3]*os.File
	var err error
	defer func() {
		for _, file := range theirs {
			closeFile(file)
		}
		if err != nil {
			s.close()
		}
	}()
	if theirs[0], s.in, err = pipe(1); err != nil {
		return nil, err
	}
	if s.output, theirs[1], err = pipe(0); err != nil {
		return nil, err
	}
	if s.status, theirs[2], err = pipe(0); err != nil {
		return nil, err
	}
	// /proc/self/exe is this very program, also after an upgrade replaced its file.
	s.cmd = exec.Command("/proc/self/exe", ShimCommand) //nolint:noctx // it ends by its input or its parent's death
	s.cmd.Env = []string{"PATH=" + defaultPath, "GOMAXPROCS=1"}
	s.cmd.Dir = "/"
	s.cmd.Stdin, s.cmd.Stdout, s.cmd.Stderr = theirs[0], theirs[1], theirs[1]
	s.cmd.ExtraFiles = []*os.File{theirs[2]}
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGTERM}
	if err = s.cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting the job's supervisor: %w", err)
	}
	self, ok := readProcess(s.cmd.Process.Pid)
	if !ok {
		_ = s.cmd.Wait()
		err = fmt.Errorf("starting the job's supervisor: it ended at once")
		return nil, err
	}
	s.self = self
	return &s, nil
}

// pipe makes a pipe of which end number ours (0 reads, 1 writes) belongs to
// this process and can time out, and the other one goes to a child and blocks.
func pipe(ours int) (r, w *os.File, err error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return nil, nil, fmt.Errorf("pipe: %w", err)
	}
	if err := unix.SetNonblock(fds[ours], true); err != nil {
		_, _ = unix.Close(fds[0]), unix.Close(fds[1])
		return nil, nil, fmt.Errorf("pipe: %w", err)
	}
	return os.NewFile(uintptr(fds[0]), "|r"), os.NewFile(uintptr(fds[1]), "|w"), nil
}

// send writes one control line.
func (s *supervisor) send(v any) error {
	w := bufio.NewWriter(s.in)
	if err := json.NewEncoder(w).Encode(v); err != nil {
		return fmt.Errorf("to the job's supervisor: %w", err)
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("to the job's supervisor: %w", err)
	}
	return nil
}

// discard ends a shim that has no job.
func (s *supervisor) discard() {
	s.close()
	_ = s.cmd.Wait()
}

func (s *supervisor) close() {
	closeFile(s.in)
	closeFile(s.status)
	closeFile(s.output)
}

func closeFile(f *os.File) {
	if f != nil {
		_ = f.Close()
	}
}
