package demo

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/shuntcd/shunt/internal/delivery"
)

// supervisor keeps the server running until its context ends. It owns the
// process: one goroutine starts it, waits for it and starts it again.
type supervisor struct {
	exe  string
	args []string
	env  []string
	log  string // file
	done chan struct{}
	err  error // why it gave up; read after done

	starts atomic.Int64 // how often the server was started
}

const (
	// serverEnd is how long the server may take to end before it is killed.
	serverEnd = 20 * time.Second
	// quickDeaths in a row, each within quickTime, make the supervisor give up.
	quickDeaths = 10
	quickTime   = 300 * time.Millisecond
)

func supervise(ctx context.Context, s *supervisor, clock delivery.Clock) error {
	output, err := os.OpenFile(s.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	s.done = make(chan struct{})
	go func() {
		defer close(s.done)
		defer output.Close() //nolint:errcheck // a log
		// The parent-death signal is sent when the thread that forked ends, so the
		// thread must stay.
		runtime.LockOSThread()
		s.loop(ctx, output, clock)
	}()
	return nil
}

func (s *supervisor) loop(ctx context.Context, output *os.File, clock delivery.Clock) {
	quick := 0
	for ctx.Err() == nil {
		cmd := exec.CommandContext(ctx, s.exe, s.args...)
		cmd.Env = s.env
		cmd.Stdout, cmd.Stderr = output, output
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
		cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
		cmd.WaitDelay = serverEnd
		begin := clock.Now()
		s.starts.Add(1)
		err := cmd.Run()
		if ctx.Err() != nil {
			return
		}
		if clock.Now().Sub(begin) > quickTime {
			quick = 0
		}
		if quick++; quick >= quickDeaths {
			s.err = fmt.Errorf("the server does not stay up: %w\n%s", err, lastLines(s.log))
			return
		}
	}
}

// lastLines is the end of a log.
func lastLines(file string) string {
	const keep = 2000
	b, err := os.ReadFile(file)
	if err != nil {
		return err.Error()
	}
	b = b[max(0, len(b)-keep):]
	return string(bytes.TrimSpace(b))
}

// holdPort reserves a port among the demos of this machine until the process
// ends: production listens on it only later, when another demo may have found it
// free too.
func holdPort(port int) bool {
	name := filepath.Join(os.TempDir(), fmt.Sprintf("shunt-demo-%d.lock", port))
	fd, err := syscall.Open(name, syscall.O_CREAT|syscall.O_RDWR|syscall.O_NOFOLLOW|syscall.O_CLOEXEC, 0o600) // never closed: the lock ends with the process
	return err == nil && syscall.Flock(fd, syscall.LOCK_EX|syscall.LOCK_NB) == nil
}

// freePort returns the wanted port of localhost, or another one when it is taken.
func freePort(ctx context.Context, wanted int) (int, error) {
	var lc net.ListenConfig
	ports := []int{wanted}
	if wanted == 0 {
		ports = nil
	}
	for range 50 { // below the range from which the kernel gives ports to clients
		ports = append(ports, 20000+rand.IntN(12000)) //nolint:gosec // any will do
	}
	for _, port := range ports {
		l, err := lc.Listen(ctx, "tcp", "localhost:"+strconv.Itoa(port))
		if err != nil {
			continue
		}
		defer l.Close() //nolint:errcheck // it was only asked whether it is free
		if a, ok := l.Addr().(*net.TCPAddr); ok {
			return a.Port, nil
		}
	}
	return 0, delivery.Errf(delivery.KindUnavailable, "cannot make the demo", "no port of localhost can be listened on")
}
