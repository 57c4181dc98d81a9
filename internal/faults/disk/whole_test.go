package disk

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/shuntcd/shunt/internal/artifact"
	"github.com/shuntcd/shunt/internal/delivery"
	"github.com/shuntcd/shunt/internal/store"
)

// whole looks at what the machine's disk holds when the story has ended.
func (m *machine) whole(ctx context.Context, ended bool) error {
	dir, err := os.MkdirTemp("", "shunt-dump-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := m.disk.Dump(ctx, dir); err != nil {
		return err
	}
	return whole(ctx, filepath.Join(dir, "data"), ended)
}

// whole checks a data directory whose server has ended: the database and its
// chain of audits, the bytes of each artifact, the whole log of each attempt, and
// that nothing is left that nobody owns. ended tells that the story went to its
// end, and so all builds have ended.
func whole(ctx context.Context, data string, ended bool) (err error) {
	file := filepath.Join(data, "shunt.db")
	raw, err := sql.Open("sqlite", file)
	if err != nil {
		return err
	}
	var verdict string
	err = errors.Join(raw.QueryRowContext(ctx, "pragma integrity_check").Scan(&verdict), raw.Close())
	if err != nil || verdict != "ok" {
		return errors.Join(err, fmt.Errorf("the database: %s", verdict))
	}
	st, err := store.Open(ctx, store.Config{Database: file, Clock: delivery.SystemClock{}, Log: slog.New(slog.DiscardHandler), Fatal: func(err error) { panic(err) }})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	if rows, broken, err := st.VerifyAudit(ctx); err != nil || broken != 0 || rows == 0 {
		return errors.Join(err, fmt.Errorf("the audit has %d rows and is broken at %d", rows, broken))
	}
	blobs, err := artifact.NewStore(filepath.Join(data, "blobs"))
	if err != nil {
		return err
	}
	var wrong []error
	for number := int64(1); ; number++ {
		b, err := st.BuildByNumber(ctx, "petstore", number)
		if delivery.IsKind(err, delivery.KindNotFound) {
			break
		}
		if err != nil {
			return err
		}
		if ended && !b.Status.Final() {
			wrong = append(wrong, fmt.Errorf("build %d is %s", number, b.Status))
		}
		artifacts, err := st.Artifacts(ctx, b.ID)
		if err != nil {
			return err
		}
		for _, a := range artifacts {
			wrong = append(wrong, blobs.Verify(ctx, a.SHA256))
		}
		attempts, err := st.Attempts(ctx, b.ID)
		if err != nil {
			return err
		}
		for _, a := range attempts {
			if err := logged(data, a); err != nil {
				wrong = append(wrong, fmt.Errorf("the log of %s (%s): %w", a.ID, a.State, err))
			}
		}
	}
	jobs, err := os.ReadDir(filepath.Join(data, "runner", "jobs"))
	wrong = append(wrong, err)
	for _, j := range jobs { // what still has a work directory is released at the next start
		if _, err := os.Stat(filepath.Join(data, "work", j.Name())); err != nil && ended {
			wrong = append(wrong, fmt.Errorf("the runner still has %s", j.Name()))
		}
	}
	return errors.Join(wrong...)
}

// ofTheDisk tells whether words say that the disk failed.
func ofTheDisk(words string) bool {
	for _, say := range []string{"no space left on device", "input/output error", "the disk is full", "disk I/O error"} {
		if strings.Contains(words, say) {
			return true
		}
	}
	return false
}

// logged tells whether the log of an attempt that has ended is there to its end.
func logged(data string, a delivery.Attempt) error {
	log, err := os.ReadFile(filepath.Join(data, "logs", a.ID+".log"))
	if (a.State == delivery.AttemptLost || a.State == delivery.AttemptRunning) && errors.Is(err, os.ErrNotExist) {
		return nil // it died with its runner, or the story stopped, before it printed anything
	}
	if err != nil {
		if a.State == delivery.AttemptFailed && ofTheDisk(a.Reason) {
			return nil // it did not begin
		}
		return err
	}
	if a.State == delivery.AttemptLost {
		return nil // it died with its machine before its log was synced: what is there of it is luck
	}
	if bytes.IndexByte(log, 0) >= 0 {
		return errors.New("it has holes")
	}
	if len(log) > 0 && log[len(log)-1] != '\n' {
		return errors.New("its last line is cut")
	}
	lines := strings.Split(strings.TrimSpace(string(log)), "\n")
	steps := 0
	for _, line := range lines {
		stamp, rest, _ := strings.Cut(line, " ")
		if len(stamp) != 16 || rest == "" {
			return fmt.Errorf("the line %q is none of ours", line)
		}
		if strings.HasPrefix(rest, "#step 1 ") && !strings.Contains(rest, "ended") {
			steps++
		}
	}
	last := lines[len(lines)-1]
	switch a.State {
	case delivery.AttemptSucceeded, delivery.AttemptFailed:
		if a.State == delivery.AttemptFailed && ofTheDisk(a.Reason) {
			return nil // its log could not be kept, and it says so
		}
		if steps != 1 || !strings.Contains(last, "ended with exit code") && !strings.Contains(last, "#failed: step") {
			return fmt.Errorf("it begins %d times and ends with %q", steps, last)
		}
	default:
	}
	return nil
}
