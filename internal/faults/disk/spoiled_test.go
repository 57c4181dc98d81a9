package disk

import (
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shuntcd/shunt/internal/api"
	"github.com/shuntcd/shunt/internal/delivery"
)

// F25. A bit of an artifact flips on the disk while its build waits: nothing is
// deployed, and it is said which bytes are not what was approved. When the right
// bytes are back, a person tries again.
func TestAFlippedBitOfAnArtifact(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("plays a story")
	}
	w := newWorld(t, program(t), filepath.Join(t.TempDir(), "data"))
	commit, _ := w.commit("flipped")
	b := w.becomes(commit, delivery.BuildWaiting)
	sha := b.Artifacts[0].SHA256
	blob := filepath.Join(w.data, "blobs", "sha256", sha[:2], sha)
	flip := func() {
		content, err := os.ReadFile(blob)
		if err == nil {
			content[len(content)/2] ^= 0x10
			err = os.Chmod(blob, 0o600)
		}
		if err == nil {
			err = os.WriteFile(blob, content, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	flip()
	if _, err := w.client.Decide(t.Context(), "petstore", b.Number, api.Decide{Promote: true, Reason: "now"}); err != nil {
		t.Logf("the decision: %v", err)
	}
	b = w.becomes(commit, delivery.BuildStopped)
	if !strings.Contains(fmt.Sprint(b.Reason, b.Nodes), "not the recorded") {
		t.Errorf("it does not say that the bytes changed: %s", b.Reason)
	}
	if n := len(w.deploys()); n != 1 {
		t.Errorf("%d deployments, want 1: %v", n, w.deploys())
	}
	if _, err := w.client.Artifact(t.Context(), "petstore", b.Number, b.Artifacts[0].Name); err == nil {
		t.Error("the flipped artifact was handed out")
	}
	flip()
	if out, err := w.shunt("resolve", "petstore", fmt.Sprint(b.Number), "retry", "-m", "the disk was replaced"); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	w.becomes(commit, delivery.BuildSucceeded)
	fmt.Printf("flipped bit of an artifact: refused, and deployed when it was whole; violations: %d\n", violations(t))
}

// F25. Bits of the database's file flip while the server is away. Wherever they
// are, nothing else is deployed than what was approved, and where the database can
// no longer be read nothing is done at all.
func TestFlippedBitsOfTheDatabase(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("plays a story")
	}
	w := newWorld(t, program(t), filepath.Join(t.TempDir(), "data"))
	commit, _ := w.commit("flipped")
	b := w.becomes(commit, delivery.BuildWaiting)
	rnd := rand.New(rand.NewPCG(*seed, 3))
	pid := w.server()
	// Stopped and not started again before the file is changed: its supervisor waits
	// for it, and so does everybody else.
	if err := unix.Kill(pid, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(w.data, "shunt.db")
	// All pages into the file. (A flipped bit of the log beside it is taken for its
	// end, as SQLite does.)
	db, err := sql.Open("sqlite", file)
	if err == nil {
		_, err = db.ExecContext(t.Context(), "pragma wal_checkpoint(truncate)")
		err = errors.Join(err, db.Close())
	}
	content, read := os.ReadFile(file)
	if err := errors.Join(err, read); err != nil {
		t.Fatal(err)
	}
	for page := 4096; page < len(content); page += 4096 { // one bit of the header of every page but the first
		content[page+rnd.IntN(8)] ^= 1 << rnd.IntN(8)
	}
	err = os.WriteFile(file, content, 0o600)
	if rnd.IntN(2) == 0 { // as after a power loss: the next server reads the whole file first
		for _, p := range (&machine{mount: w.data}).processes() {
			if p.role() == "runner" {
				err = errors.Join(err, unix.Kill(p.pid, unix.SIGKILL))
			}
		}
	}
	if err := errors.Join(err, unix.Kill(pid, unix.SIGKILL)); err != nil {
		t.Fatal(err)
	}
	_, err = w.client.Decide(t.Context(), "petstore", b.Number, api.Decide{Promote: true, Reason: "now"})
	if err == nil {
		t.Error("a decision was accepted by a database that cannot be read")
	}
	w.until("the server says that its database is damaged", func() bool {
		log, _ := os.ReadFile(filepath.Join(w.dir, "server.log"))
		return strings.Contains(string(log), "malformed") || strings.Contains(string(log), "the database is damaged")
	})
	if n := len(w.deploys()); n != 1 {
		t.Errorf("%d deployments, want 1: %v", n, w.deploys())
	}
	fmt.Printf("flipped bits of the database: said so, did nothing; violations: %d\n", violations(t))
}

// F24. The server may open no more files: whoever asks gets an error or no answer,
// nothing is done by half, and when it may again all goes on.
func TestNoMoreFiles(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("plays a story")
	}
	w := newWorld(t, program(t), filepath.Join(t.TempDir(), "data"))
	running, _ := w.commit("runs")
	pid := w.server()
	var before unix.Rlimit
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &before); err != nil {
		t.Skipf("limits of another process: %v", err)
	}
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 3, Max: before.Max}, nil); err != nil {
		t.Fatal(err)
	}
	pushed, said := w.commit("late")
	time.Sleep(2 * time.Second) // loops that look at something every second fail meanwhile
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, &before, nil); err != nil {
		t.Logf("the server has ended meanwhile: %v", err)
	}
	w.until("the server answers", func() bool {
		_, err := w.client.Sync(t.Context(), "petstore")
		return err == nil
	})
	b := w.becomes(pushed, delivery.BuildWaiting)
	w.until("the build that ran has ended or waits", func() bool {
		s := w.build(running).Status
		return s == delivery.BuildWaiting || s == delivery.BuildStopped || s.Final()
	})
	if r := w.build(running); r.Status != delivery.BuildWaiting && r.WhyFailed == nil {
		t.Errorf("the build that ran is %s and does not say why: %s", r.Status, r.Reason)
	}
	if _, err := w.client.Decide(t.Context(), "petstore", b.Number, api.Decide{Promote: true, Reason: "now"}); err != nil {
		t.Error(err)
	}
	w.becomes(pushed, delivery.BuildSucceeded)
	if n := len(w.deploys()); n != 2 {
		t.Errorf("%d deployments, want 2: %v", n, w.deploys())
	}
	t.Logf("git said:\n%s", said)
	fmt.Printf("no more files: the build that ran meanwhile is %s; violations: %d\n", w.build(running).Status, violations(t))
}
