package runner

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/shuntcd/shunt/internal/delivery"
	"github.com/shuntcd/shunt/internal/runlog"
)

// recover takes over what an earlier runner left in the directory: results are
// kept for their server; a job without one is killed and called lost.
func (s *server) recover() error {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return fmt.Errorf("the runner's directory: %w", err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "trash-") {
			_ = RemoveAll(filepath.Join(s.dir, e.Name()))
		}
	}
	entries, err = os.ReadDir(filepath.Join(s.dir, "jobs"))
	if err != nil {
		return fmt.Errorf("the runner's directory: %w", err)
	}
	trees, err := os.ReadDir(filepath.Join(s.dir, "work"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("the runner's directory: %w", err)
	}
	for _, e := range trees { // whoever sent it sends it again before it starts the job
		if _, err := os.Stat(filepath.Join(s.dir, "jobs", e.Name())); errors.Is(err, fs.ErrNotExist) {
			_ = RemoveAll(s.tree(e.Name()))
		}
	}
	for _, e := range entries {
		dir := jobDir(filepath.Join(s.dir, "jobs", e.Name()))
		var rec record
		err := load(dir.spec(), &rec)
		if errors.Is(err, fs.ErrNotExist) {
			_ = RemoveAll(string(dir)) // it was never started: spec.json comes first
			continue
		}
		if err != nil || rec.ID != e.Name() {
			return &delivery.Error{
				Kind: delivery.KindInternal, What: "cannot start the runner",
				Why: fmt.Sprintf("%s is damaged", dir.spec()), Next: "Look for what is left of that job, then remove its directory.", Err: err,
			}
		}
		j := newJob(dir, rec, s.clock, s.log)
		close(j.ready)
		var result Result
		if err := load(dir.result(), &result); err == nil {
			j.result, j.logSize = &result, result.LogSize
		} else {
			s.bury(j)
		}
		s.jobs[rec.ID] = j
	}
	return nil
}

// bury kills what is left of a job whose runner died, and records that nobody
// knows how it ended.
func (s *server) bury(j *job) {
	// The shim is at it already; give it a moment, so that both do not race.
	for end := time.After(500 * time.Millisecond); ; {
		if p, alive := readProcess(j.record.ShimPID); !alive || p.start != j.record.Start {
			break
		}
		select {
		case <-end:
		case <-time.After(5 * time.Millisecond):
			continue
		}
		break
	}
	reason := "its runner died, and nobody knows how it ended"
	if !killAll(func() []process { return remains(s.dir, j.record) }) {
		reason += "; some of its processes could not be killed"
	}
	_ = os.Remove(j.dir.output())
	size, err := closeLog(j.dir.log(), s.clock, reason)
	if err != nil {
		s.log.Warn("the log of a lost job is not complete", "job", j.record.ID, "err", err)
	}
	j.finish(Result{
		State: delivery.AttemptLost, ExitCode: -1, Reason: reason, LogSize: size,
		StartedAt: time.UnixMicro(j.record.Began).UTC(), FinishedAt: s.clock.Now(),
	})
}

// closeLog cuts a half-written last line off a log and adds a marker.
func closeLog(path string, clock delivery.Clock, reason string) (size int64, err error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return 0, fmt.Errorf("opening the log: %w", err)
	}
	defer func() { err = errors.Join(err, f.Sync(), f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return 0, fmt.Errorf("opening the log: %w", err)
	}
	tail := make([]byte, min(info.Size(), 2*runlog.MaxText))
	from := info.Size() - int64(len(tail))
	if _, err := f.ReadAt(tail, from); err != nil {
		return 0, fmt.Errorf("reading the log: %w", err)
	}
	size = from + int64(bytes.LastIndexByte(tail, '\n')) + 1
	if err := f.Truncate(size); err != nil {
		return size, fmt.Errorf("cutting the log: %w", err)
	}
	if _, err := f.Seek(size, 0); err != nil {
		return size, fmt.Errorf("writing the log: %w", err)
	}
	w := runlog.NewWriter(f, clock, 0)
	err = w.Marker("lost: " + reason)
	return size + w.Size(), err
}
