package engine

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/shuntcd/shunt/internal/artifact"
	"github.com/shuntcd/shunt/internal/delivery"
	"github.com/shuntcd/shunt/internal/runlog"
	"github.com/shuntcd/shunt/internal/testkit/s3"
)

// sharedLogs are the logs of one server of several.
func sharedLogs(t *testing.T, server *s3.Server) *Logs {
	t.Helper()
	remote, err := artifact.OpenObjects(server.URL("p"))
	if err != nil {
		t.Fatal(err)
	}
	return NewLogs(t.TempDir(), remote, slog.New(slog.DiscardHandler))
}

func (l *Logs) text(t *testing.T, id string) string {
	t.Helper()
	b, err := os.ReadFile(l.Path(id))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return string(b)
}

func (l *Logs) begun(t *testing.T, id string) *logWriter {
	t.Helper()
	w, err := l.write(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// A log grows on one server and is read on another; its driver dies, a third goes
// on from what is there, with chunks that overlap, and ends it.
func TestLogsOfSeveralServers(t *testing.T) {
	t.Parallel()
	server := s3.Start(t)
	a, b, c, ctx := sharedLogs(t, server), sharedLogs(t, server), sharedLogs(t, server), t.Context()
	var all bytes.Buffer
	for i := range 60_000 { // more than two chunks
		fmt.Fprintf(&all, "%d |line %d of the log\n", 1700000000000000+i, i)
	}
	whole := all.String()
	third, most := len(whole)/3, len(whole)*2/3

	first := a.begun(t, "x-1")
	if _, err := io.WriteString(first, whole[:third]); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(time.Minute); b.text(t, "x-1") != whole[:third]; time.Sleep(20 * time.Millisecond) {
		if err := b.Sync(ctx, "x-1", false); err != nil {
			t.Fatal(err)
		}
		if time.Now().After(end) {
			t.Fatalf("the reader has %d of %d bytes", len(b.text(t, "x-1")), third)
		}
	}
	second := c.begun(t, "x-1")
	if got := second.size.Load(); got != int64(third) {
		t.Errorf("who takes over has %d of %d bytes", got, third)
	}
	// The first was only paused: it copies and ships on, with cuts of its own.
	_, err1 := io.WriteString(first, whole[third:third+100])
	_, err2 := io.WriteString(second, whole[third:most])
	if err := first.ship(ctx); err != nil || err1 != nil || err2 != nil {
		t.Fatal(err, err1, err2)
	}
	second.shipped = int64(third - 50)
	if err := second.ship(ctx); err != nil {
		t.Fatal(err)
	}
	if err := b.Sync(ctx, "x-1", true); err != nil || b.text(t, "x-1") != whole[:most] {
		t.Errorf("the reader has %d of %d bytes: %v", len(b.text(t, "x-1")), most, err)
	}
	if _, err := io.WriteString(second, whole[most:]); err != nil {
		t.Fatal(err)
	}
	if err := second.finish(ctx); err != nil {
		t.Fatal(err)
	}
	if err := first.finish(ctx); err != nil { // it knows less, and must not cut the log
		t.Fatal(err)
	}
	for _, w := range []*logWriter{first, second} {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	}
	for name, l := range map[string]*Logs{"reader": b, "driver": c, "first": a, "new": sharedLogs(t, server)} {
		if err := l.Sync(ctx, "x-1", true); err != nil || l.text(t, "x-1") != whole || !l.whole("x-1") {
			t.Errorf("%s has %d of %d bytes: %v", name, len(l.text(t, "x-1")), len(whole), err)
		}
	}
	if chunks, err := a.chunks(ctx, "x-1"); err != nil || len(chunks) > 0 {
		t.Errorf("chunks are left: %v %v", chunks, err)
	}
	again := b.begun(t, "x-1") // a driver that died before it saved the result
	if err := again.finish(ctx); err != nil || again.size.Load() != int64(len(whole)) {
		t.Errorf("taken up again: %d %v", again.size.Load(), err)
	}
	if err := again.Close(); err != nil {
		t.Error(err)
	}

	ids := map[string]bool{"x-1": true, "x": true}
	if n, size, err := b.Remove(ctx, ids, true); n != 1 || size != int64(len(whole)) || err != nil {
		t.Errorf("would remove %d, %d bytes: %v", n, size, err)
	}
	if n, _, err := b.Remove(ctx, ids, false); n != 1 || err != nil {
		t.Errorf("removed %d: %v", n, err)
	}
	if left, err := os.ReadDir(b.dir); err != nil || len(left) > 0 {
		t.Errorf("left beside the log: %v %v", left, err)
	}
	if _, err := a.remote.Stat(ctx, logKey("x-1")); err == nil {
		t.Error("it is still in the object store")
	}
}

// An object store that is down holds up only the end of a log.
func TestLogWaitsForTheObjectStore(t *testing.T) {
	t.Parallel()
	server := s3.Start(t)
	a, b, ctx := sharedLogs(t, server), sharedLogs(t, server), t.Context()
	server.Kill()
	w := a.begun(t, "y-1")
	defer w.Close()
	if _, err := io.WriteString(w, "written meanwhile\n"); err != nil {
		t.Fatal(err)
	}
	if err := b.Sync(ctx, "y-1", true); !delivery.IsKind(err, delivery.KindUnavailable) {
		t.Errorf("a reader is told %v", err)
	}
	short, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
	defer cancel()
	if err := w.finish(short); err == nil {
		t.Error("the log has ended without an object store")
	}
	server.Run()
	if err := w.finish(ctx); err != nil {
		t.Fatal(err)
	}
	if err := b.Sync(ctx, "y-1", true); err != nil || !strings.Contains(b.text(t, "y-1"), "meanwhile") {
		t.Errorf("%q %v", b.text(t, "y-1"), err)
	}
}

// TestALongLogIsIndexedBeforeSomebodyOpensIt: who opens it does not wait until it
// was read once.
func TestALongLogIsIndexedBeforeSomebodyOpensIt(t *testing.T) {
	t.Parallel()
	logs := NewLogs(t.TempDir(), nil, slog.New(slog.DiscardHandler))
	w, err := logs.write(t.Context(), "long")
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if _, err := io.WriteString(w, strings.Repeat("1 |line\n", 2*runlog.IndexEvery+1)); err != nil {
		t.Fatal(err)
	}
	if err := w.finish(t.Context()); err != nil {
		t.Fatal(err)
	}
	kept, err := os.ReadFile(logs.Path("long") + ".index")
	if err != nil {
		t.Fatal(err)
	}
	x := runlog.DecodeIndex(kept, w.size.Load())
	grown, err := x.Extend(t.Context(), w.file, w.size.Load())
	if err != nil || grown {
		t.Errorf("the index lacks something: %v", err)
	}
	if at, err := x.Offset(t.Context(), w.file, w.size.Load(), 2*runlog.IndexEvery+1); at != 8*2*runlog.IndexEvery || err != nil {
		t.Errorf("the last line begins at %d, %v", at, err)
	}
	for _, line := range []int64{1, 2 * runlog.IndexEvery} {
		if at, err := x.Offset(t.Context(), w.file, w.size.Load(), line); at != 8*(line-1) || err != nil {
			t.Errorf("line %d begins at %d, %v", line, at, err)
		}
	}
	empty, _ := os.ReadDir(logs.dir)
	if len(empty) != 2 {
		t.Errorf("there are %d files, not the log and its index", len(empty))
	}
}
