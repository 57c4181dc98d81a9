package runner

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shuntcd/shunt/internal/delivery"
)

const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// job is a job that this runner knows. One goroutine (run) owns its life; the
// fields under mu are what others may read meanwhile.
type job struct {
	dir    jobDir
	clock  delivery.Clock
	log    *slog.Logger
	record record
	ready  chan struct{} // closed when the job has been started, or could not be

	mu       sync.Mutex
	changed  chan struct{} // closed and renewed with every change, if somebody waits
	waiting  bool
	startErr error
	until    time.Duration // sinceBoot at which the runner's lease ended when the job began; 0: it has none
	shim     *supervisor   // nil once the steps have ended
	logSize  int64
	result   *Result
}

func newJob(dir jobDir, rec record, clock delivery.Clock, log *slog.Logger) *job {
	return &job{dir: dir, record: rec, clock: clock, log: log.With("job", rec.ID), ready: make(chan struct{}), changed: make(chan struct{})}
}

func (j *job) status() Status {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.statusLocked()
}

func (j *job) statusLocked() Status {
	return Status{ID: j.record.ID, Fence: j.record.Fence, Running: j.result == nil, Result: j.result, LogSize: j.logSize}
}

// watch is the status, and a channel that is closed at the next change.
func (j *job) watch() (Status, <-chan struct{}) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.waiting = true
	return j.statusLocked(), j.changed
}

// update changes the job and wakes those who wait.
func (j *job) update(change func()) {
	j.mu.Lock()
	defer j.mu.Unlock()
	change()
	if j.waiting {
		close(j.changed)
		j.changed, j.waiting = make(chan struct{}), false
	}
}

func (j *job) grow(size int64) {
	j.update(func() { j.logSize = size })
}

// adopt accepts a server by its fence: an older one than the newest is refused.
func (j *job) adopt(fence int64) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if fence < j.record.Fence {
		return &delivery.Error{
			Kind: delivery.KindConflict, What: fmt.Sprintf("cannot take over job %s", j.record.ID),
			Why: fmt.Sprintf("fence %d is older than %d", fence, j.record.Fence), Err: delivery.ErrLeaseLost,
		}
	}
	if fence > j.record.Fence {
		rec := j.record
		rec.Fence = fence
		if err := save(j.dir.spec(), rec); err != nil {
			return err
		}
		j.record = rec
	}
	return nil
}

// stop interrupts the steps, if they still run.
func (j *job) stop(reason string) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.shim == nil {
		return nil
	}
	if reason == "" {
		reason = "it was stopped"
	}
	return j.shim.send(control{Stop: reason})
}

// extend tells the steps' supervisor of a renewed lease.
func (j *job) extend(until time.Duration) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.shim != nil {
		_ = j.shim.send(control{Until: until}) // one that is gone needs none
	}
}

// start makes the job's directory and binds a shim to the job, durably: from
// here on the job has been started, and never will be again. The log is handed
// to run.
func (j *job) start(forks *forker, spec Spec) (*pump, error) {
	file, err := j.dir.create()
	if err != nil {
		return nil, err
	}
	shim, err := forks.take()
	if err != nil {
		closeFile(file)
		return nil, err
	}
	j.record.ShimPID, j.record.Start = shim.self.pid, shim.self.start
	j.record.Began = j.clock.Now().UnixMicro()
	out, err := newPump(shim.output, file, spec.Secrets, spec.LogLimit, j.clock, j.grow)
	if err == nil {
		err = save(j.dir.spec(), j.record)
	}
	if err != nil {
		closeFile(file)
		shim.discard()
		return nil, err
	}
	j.shim = shim
	return out, nil
}

// run sees the job through, from its first step to its result on disk.
// finished is called then; what follows only empties the pipe of daemons.
func (j *job) run(spec Spec, runnerDir string, out *pump, finished func()) {
	shim := j.shim
	go out.run()
	out.marker(stepMarker(spec, 0))
	final := j.supervise(shim, spec, runnerDir, out)
	j.mu.Lock()
	j.shim = nil
	j.mu.Unlock()
	closeFile(shim.in)
	closeFile(shim.status)

	out.drained()
	result := j.collect(spec, final, out)
	if spec.Daemons {
		j.warnOfDaemons(runnerDir, shim.output, out)
	}
	if result.State != delivery.AttemptSucceeded {
		out.marker(strings.ReplaceAll(string(result.State), "_", " ") + ": " + result.Reason)
	}
	size, err := out.finish()
	switch {
	case err == nil:
	case result.State == delivery.AttemptSucceeded:
		result.State, result.Reason = delivery.AttemptFailed, err.Error()
	default:
		result.Reason += "; its log is not complete: " + err.Error()
	}
	result.LogSize, result.FinishedAt = size, j.clock.Now()
	j.finish(result)
	finished()
	_ = shim.cmd.Wait() // it ended with its last event
	if spec.Daemons {
		<-out.done // a daemon that still prints there would be killed by a closed pipe
	}
	closeFile(shim.output)
	<-out.done
}

// finish saves the result before anybody is told. It cannot give up: a job
// without a result would be called lost although it is known how it ended.
func (j *job) finish(result Result) {
	for {
		err := save(j.dir.result(), result)
		if err == nil {
			break
		}
		j.log.Error("the result of a job cannot be saved; trying again", "err", err)
		time.Sleep(time.Second)
	}
	j.update(func() { j.result, j.logSize = &result, result.LogSize })
	j.log.Info("job finished", "state", result.State, "exit", result.ExitCode, "reason", result.Reason)
}

// supervise hands the job to the shim and follows it until the steps have ended.
func (j *job) supervise(shim *supervisor, spec Spec, runnerDir string, out *pump) shimFinal {
	work := shimSpec{
		Env: byteLists(j.environment(spec, runnerDir)), Dir: []byte(spec.Dir),
		Timeout: spec.Timeout, Grace: spec.Grace, Daemons: spec.Daemons, Until: j.until,
	}
	for _, step := range spec.Steps {
		work.Steps = append(work.Steps, []byte(step.Run))
	}
	if err := j.send(shim, work); err != nil {
		j.log.Warn("the job's supervisor takes no work", "err", err)
	}
	close(j.ready)
	events := json.NewDecoder(shim.status)
	for {
		var event shimEvent
		if err := events.Decode(&event); err != nil {
			return j.bereaved(shim, runnerDir, err)
		}
		if event.Final != nil {
			return *event.Final
		}
		out.marker(fmt.Sprintf("step %d ended with exit code %d after %s", event.Step+1, event.Exit, time.Duration(event.Millis)*time.Millisecond))
		if event.Next {
			out.marker(stepMarker(spec, event.Step+1))
			if err := j.send(shim, control{Go: true}); err != nil {
				j.log.Warn("the job's supervisor takes no more steps", "err", err)
			}
		}
	}
}

func (j *job) send(shim *supervisor, v any) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return shim.send(v)
}

// bereaved cleans up behind a shim that ended without a word, which only a kill
// from outside can bring about: the job itself, or a machine out of memory.
func (j *job) bereaved(shim *supervisor, runnerDir string, err error) shimFinal {
	_ = unix.Kill(shim.self.pid, unix.SIGKILL)
	state, waitErr := shim.cmd.Process.Wait()
	j.log.Warn("the job's supervisor is gone", "err", errors.Join(err, waitErr), "state", state.String())
	killAll(func() []process { return remains(runnerDir, j.record) })
	return shimFinal{State: delivery.AttemptLost, ExitCode: -1, Reason: "the job's supervisor process was killed (" + state.String() + ")"}
}

func stepMarker(spec Spec, i int) string {
	return strings.TrimSpace(fmt.Sprintf("step %d %s", i+1, spec.Steps[i].Name))
}

// environment is all that a step sees: nothing of the runner's own environment
// or of the server's gets in. Later entries win.
func (j *job) environment(spec Spec, runnerDir string) []string {
	all := slices.Concat([]string{"PATH=" + defaultPath, "LANG=C.UTF-8"}, spec.Env, []string{
		"HOME=" + j.dir.home(), "TMPDIR=" + j.dir.tmp(), "SHUNT_OUTPUT=" + j.dir.output(),
		"SHUNT_JOB=" + spec.ID, "SHUNT_RUNNER=" + runnerDir,
	})
	at := map[string]int{}
	var env []string
	for _, kv := range all {
		key, _, _ := strings.Cut(kv, "=")
		if i, ok := at[key]; ok {
			env[i] = kv
			continue
		}
		at[key] = len(env)
		env = append(env, kv)
	}
	return env
}

// collect takes over what the steps have made.
func (j *job) collect(spec Spec, final shimFinal, out *pump) Result {
	result := Result{State: final.State, ExitCode: final.ExitCode, Reason: final.Reason, StartedAt: time.UnixMicro(j.record.Began).UTC()}
	result.Outputs = readOutputs(j.dir.output(), spec.Secrets, out.marker)
	_ = os.Remove(j.dir.output()) // it may hold what must not stay on disk
	if len(spec.Artifacts) == 0 && len(spec.Reports) == 0 {
		return result
	}
	c, err := newCollector(spec.Dir, j.dir.out())
	if err == nil {
		defer c.close()
		result.Reports = c.reports(spec.Reports, out.marker)
		if result.State == delivery.AttemptSucceeded {
			result.Artifacts, err = c.artifacts(spec.Artifacts, spec.MaxOutput)
		}
	}
	if err != nil && result.State == delivery.AttemptSucceeded {
		result.State, result.Reason = delivery.AttemptFailed, strings.ToValidUTF8(err.Error(), "\uFFFD")
	}
	return result
}

// warnOfDaemons says which daemons still print into the job's log, because
// what they print there is lost, and they end with this runner.
func (j *job) warnOfDaemons(runnerDir string, output *os.File, out *pump) {
	var stat unix.Stat_t
	var err error
	raw, rawErr := output.SyscallConn()
	if rawErr != nil || raw.Control(func(fd uintptr) { err = unix.Fstat(int(fd), &stat) }) != nil || err != nil {
		return
	}
	name := fmt.Sprintf("pipe:[%d]", stat.Ino)
	said := map[int]bool{} // sessions
	for _, p := range withCookie(runnerDir, j.record.ID) {
		for fd := 1; fd <= 2; fd++ {
			if target, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", p.pid, fd)); err == nil && target == name && !said[p.session] {
				said[p.session] = true
				out.marker(fmt.Sprintf("process %d lives on and still prints here; what it prints from now on is lost, and it may end when Shunt restarts: redirect its output to a file", p.session))
			}
		}
	}
}

// remains lists what is left of a job whose shim cannot look after it.
func remains(runnerDir string, rec record) []process {
	list := withCookie(runnerDir, rec.ID)
	if p, ok := readProcess(rec.ShimPID); ok && p.start == rec.Start {
		list = append(append(list, descendants(p.pid)...), p)
	}
	if !rec.Daemons {
		return list
	}
	return slices.DeleteFunc(list, func(p process) bool { return p.session != rec.ShimPID })
}
