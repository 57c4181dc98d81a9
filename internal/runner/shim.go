package runner

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shuntcd/shunt/internal/delivery"
)

// ShimCommand is the hidden subcommand for which a program must call Shim, as
// the first thing in main.
const ShimCommand = "runner-shim"

// The shim's descriptors besides standard input (control lines from the
// runner) and standard output and error (the steps' output).
const shimStatusFD = 3

// shimSpec is the first line that a shim reads.
type shimSpec struct {
	Steps   [][]byte // scripts
	Env     [][]byte // complete
	Dir     []byte
	Timeout time.Duration // 0 is none
	Grace   time.Duration
	Daemons bool
	Until   time.Duration // sinceBoot at which the runner's lease ends; 0: it has none
}

// control is every further line that a shim reads.
type control struct {
	Go    bool          // start the next step
	Stop  string        // end the job, for this reason
	Until time.Duration // the runner's lease ends then, see shimSpec
}

// shimEvent is a line that a shim writes: a step ended, or the job did.
type shimEvent struct {
	Step   int // 0, 1, ...
	Exit   int
	Millis int64
	Next   bool       // another step follows once the runner says go
	Final  *shimFinal // set in the last event
}

type shimFinal struct {
	State    delivery.AttemptState
	ExitCode int
	Reason   string
}

// leftoverGrace is the time that background processes get between TERM and
// KILL at the end of a job; settleTime is the time that children of a job with
// daemons get to reach setsid before they count as left over.
const (
	leftoverGrace = 2 * time.Second
	settleTime    = time.Second
)

// leaseLook is how often a shim looks at its runner's lease. The timers of a
// process stand still while the machine sleeps; sinceBoot does not.
const leaseLook = 250 * time.Millisecond

// Shim supervises one job: it reads what to do from standard input, runs the
// steps, and leaves nothing behind. It returns the exit code of the process.
//
// It is the leader of a session of its own, so that the steps' processes can
// be told from daemons, and a subreaper, so that nothing escapes from it by a
// double fork. It ends its job when the runner dies, which it learns in two
// ways: by the parent-death signal (TERM, set by the runner's fork; package
// syscall checks the race with a parent that is already dead), and by the end
// of its input.
func Shim() int {
	_ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
	syscall.Umask(0o022)
	closeOnExec()

	signals := make(chan os.Signal, 16)
	signal.Notify(signals, unix.SIGCHLD, unix.SIGTERM, unix.SIGINT, unix.SIGHUP)
	in := bufio.NewReader(os.Stdin)
	var spec shimSpec
	if err := readLine(in, &spec); err != nil {
		return 1 // the runner ended before it had work for this shim
	}
	if !spec.Daemons { // when memory runs out, steps end before the server does
		_ = os.WriteFile("/proc/self/oom_score_adj", []byte("500"), 0)
	}
	// Steps run as the same user; they must not read the memory of their
	// supervisor, and it must not dump core.
	_ = unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
	controls := make(chan control)
	s := &shim{
		spec: spec, until: spec.Until, sid: os.Getpid(), signals: signals,
		controls: controls, events: json.NewEncoder(os.NewFile(shimStatusFD, "status")),
		out: os.Stdout.Fd(),
	}
	go func() {
		defer close(controls)
		for {
			var c control
			if readLine(in, &c) != nil {
				return
			}
			controls <- c
		}
	}()
	return s.run()
}

func readLine(in *bufio.Reader, v any) error {
	line, err := in.ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("reading from the runner: %w", err)
	}
	if err := json.Unmarshal(line, v); err != nil {
		return fmt.Errorf("reading from the runner: %w", err)
	}
	return nil
}

// closeOnExec makes sure that no step inherits a descriptor, wherever it came from.
func closeOnExec() {
	if unix.CloseRange(3, ^uint(0), unix.CLOSE_RANGE_CLOEXEC) == nil {
		return
	}
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		unix.CloseOnExec(shimStatusFD)
		return
	}
	for _, e := range entries {
		var fd int
		if _, err := fmt.Sscan(e.Name(), &fd); err == nil && fd > 2 {
			unix.CloseOnExec(fd)
		}
	}
}

// shim is the state of a running Shim; one goroutine owns it, which also
// does all the waiting for children, so that no exit is missed or taken twice.
type shim struct {
	spec     shimSpec
	sid      int
	signals  chan os.Signal
	controls chan control // closed when the runner is gone
	events   *json.Encoder
	out      uintptr

	until    time.Duration   // see shimSpec
	step     int             // process of the running step
	status   unix.WaitStatus // how it ended,
	ended    bool            // if it did
	orphaned bool            // the runner is gone
	verdict  *shimFinal
	timeout  <-chan time.Time
	kill     <-chan time.Time // end of the grace
	killAt   time.Time
}

func (s *shim) run() int {
	if s.spec.Timeout > 0 {
		s.timeout = time.After(s.spec.Timeout)
	}
	final := s.steps()
	s.sweep()
	if s.orphaned || s.events.Encode(shimEvent{Final: &final}) != nil {
		return 1
	}
	return 0
}

func (s *shim) steps() shimFinal {
	for i, script := range s.spec.Steps {
		began := time.Now() //nolint:forbidigo // a duration of the monotonic clock, for display
		if err := s.start(string(script)); err != nil {
			return shimFinal{State: delivery.AttemptFailed, ExitCode: 126, Reason: fmt.Sprintf("step %d could not be started: %v", i+1, err)}
		}
		s.await(false)
		exit, how := describe(s.status)
		next := s.verdict == nil && exit == 0 && i+1 < len(s.spec.Steps)
		event := shimEvent{Step: i, Exit: exit, Millis: time.Since(began).Milliseconds(), Next: next}
		if s.events.Encode(event) != nil {
			s.orphaned = true
		}
		if next && !s.orphaned {
			s.await(true) // for the runner's go, or for the end
		}
		switch {
		case s.orphaned:
			return shimFinal{State: delivery.AttemptLost, Reason: "the runner ended"}
		case s.verdict != nil:
			s.verdict.ExitCode = exit
			return *s.verdict
		case exit != 0:
			return shimFinal{State: delivery.AttemptFailed, ExitCode: exit, Reason: fmt.Sprintf("step %d %s", i+1, how)}
		}
	}
	return shimFinal{State: delivery.AttemptSucceeded}
}

// start runs one script. It has its own process group, which an interrupt
// reaches as a whole, in the session of the shim. Its data comes only by the
// environment; the script is the pipeline's own text.
func (s *shim) start(script string) error {
	null, err := os.Open(os.DevNull)
	if err != nil {
		return fmt.Errorf("standard input: %w", err)
	}
	defer null.Close() //nolint:errcheck // opened for reading
	pid, err := syscall.ForkExec("/bin/sh", []string{"sh", "-e", "-c", script}, &syscall.ProcAttr{
		Dir: string(s.spec.Dir), Env: stringLists(s.spec.Env),
		Files: []uintptr{null.Fd(), s.out, s.out},
		Sys:   &syscall.SysProcAttr{Setpgid: true},
	})
	if err != nil {
		return fmt.Errorf("/bin/sh: %w", err)
	}
	s.step, s.ended = pid, false
	return nil
}

// await handles what happens until the step has ended, or, between two steps,
// until the runner says go or the job is over.
func (s *shim) await(between bool) {
	for {
		s.reap()
		if !between && s.ended || between && (s.verdict != nil || s.orphaned) {
			return
		}
		select {
		case sig := <-s.signals:
			if sig != unix.SIGCHLD {
				s.abandon()
			}
		case c, ok := <-s.controls:
			switch {
			case !ok:
				s.abandon()
			case c.Go && between:
				return
			case c.Stop != "":
				s.interrupt(shimFinal{State: delivery.AttemptCancelled, Reason: c.Stop})
			case c.Until > 0:
				s.until = c.Until
			}
		case <-s.leaseCheck():
			if sinceBoot() >= s.until {
				// Somewhere else this job counts as lost from now on. The runner may be
				// stopped or cut off, so its shims see to it themselves.
				s.verdict = &shimFinal{State: delivery.AttemptLost, Reason: "its runner could not renew its lease"}
				s.until, s.killAt = 0, time.Now() //nolint:forbidigo // the monotonic clock
				killAll(s.leftovers)
			}
		case <-s.timeout:
			s.interrupt(shimFinal{State: delivery.AttemptTimedOut, Reason: fmt.Sprintf("it took longer than %s", s.spec.Timeout)})
		case <-s.kill:
			s.kill = nil
			killAll(s.leftovers)
		}
	}
}

// leaseCheck fires now and then while there is a lease that may end.
func (s *shim) leaseCheck() <-chan time.Time {
	if s.until == 0 {
		return nil
	}
	return time.After(min(leaseLook, max(0, s.until-sinceBoot())))
}

// interrupt asks the step to end, once; the first reason counts.
func (s *shim) interrupt(verdict shimFinal) {
	if s.verdict != nil {
		return
	}
	s.verdict = &verdict
	s.killAt = time.Now().Add(s.spec.Grace) //nolint:forbidigo // the monotonic clock
	s.kill = time.After(s.spec.Grace)
	if !s.ended {
		_ = unix.Kill(-s.step, unix.SIGTERM)
	}
}

// abandon kills the job because its runner is gone: nobody would learn how it
// ended.
func (s *shim) abandon() {
	s.orphaned, s.controls = true, nil
	killAll(s.leftovers)
}

// leftovers lists the processes of the job that must not outlive it.
func (s *shim) leftovers() []process {
	s.reap()
	list := descendants(s.sid)
	if !s.spec.Daemons {
		return list
	}
	inSession := list[:0]
	for _, p := range list {
		if p.session == s.sid {
			inSession = append(inSession, p)
		}
	}
	return inSession
}

// sweep ends what the steps have left behind: TERM, a grace, KILL.
func (s *shim) sweep() {
	if _, err := unix.Wait4(-1, nil, unix.WNOHANG, nil); err == unix.ECHILD || s.orphaned {
		if s.orphaned {
			killAll(s.leftovers)
		}
		return // the usual case, at the cost of one system call
	}
	grace := leftoverGrace
	if s.verdict != nil {
		grace = max(0, time.Until(s.killAt))
	}
	if s.spec.Daemons && s.verdict == nil && s.gone(settleTime) {
		return
	}
	for _, p := range s.leftovers() {
		_ = unix.Kill(p.pid, unix.SIGTERM)
	}
	if !s.gone(grace) {
		killAll(s.leftovers)
	}
}

// gone waits until nothing is left over, or until the runner is gone.
func (s *shim) gone(wait time.Duration) bool {
	for end := time.After(wait); ; {
		if len(s.leftovers()) == 0 {
			return true
		}
		select {
		case sig := <-s.signals:
			if sig != unix.SIGCHLD {
				s.orphaned = true
				return false
			}
		case c, ok := <-s.controls:
			if !ok {
				s.orphaned, s.controls = true, nil
				return false
			}
			if c.Until > 0 {
				s.until = c.Until
			}
		case <-s.leaseCheck():
			if sinceBoot() >= s.until {
				return false
			}
		case <-time.After(10 * time.Millisecond): // grandchildren send no signal
		case <-end:
			return false
		}
	}
}

// reap collects every child that has ended, and notes the end of the step.
func (s *shim) reap() {
	for {
		var ws unix.WaitStatus
		got, err := unix.Wait4(-1, &ws, unix.WNOHANG, nil)
		switch {
		case err == unix.EINTR:
		case err != nil || got == 0:
			return
		case got == s.step:
			s.status, s.ended = ws, true
		}
	}
}

// describe gives the exit code that a shell would show, and the words.
func describe(status unix.WaitStatus) (exit int, how string) {
	if status.Signaled() {
		name := strings.TrimPrefix(unix.SignalName(status.Signal()), "SIG")
		return 128 + int(status.Signal()), fmt.Sprintf("was killed by signal %d (%s)", int(status.Signal()), name)
	}
	return status.ExitStatus(), fmt.Sprintf("exited with code %d", status.ExitStatus())
}
