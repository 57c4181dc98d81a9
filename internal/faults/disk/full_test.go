package disk

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/shuntcd/shunt/internal/api"
	"github.com/shuntcd/shunt/internal/delivery"
)

// fill takes all room of a file system.
func fill(t *testing.T, file string) {
	t.Helper()
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for size := 1 << 20; size > 0; {
		if _, err := f.Write(make([]byte, size)); err != nil {
			size /= 2
		}
	}
}

// F04. The disk is full while a build runs: nothing new is accepted, and it is
// said why; pages are readable; the build fails cleanly or waits. When there is
// room again all goes on, and nobody has to repair anything.
func TestAFullDisk(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("takes half a minute")
	}
	mount := t.TempDir()
	if err := syscall.Mount("shunt-full", mount, "tmpfs", 0, "size=64m"); err != nil {
		t.Skipf("mounting a small disk needs root: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(mount, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	w := newWorld(t, program(t), filepath.Join(mount, "data"))
	open, _ := w.commit("waits")
	waiting := w.becomes(open, delivery.BuildWaiting)
	running, _ := w.commit("runs")
	filler := filepath.Join(mount, "filler")
	fill(t, filler)

	// What cannot be saved is not accepted, in words that say why.
	fill(t, filler+"2") // what was given free meanwhile
	_, err := w.client.Decide(t.Context(), "petstore", waiting.Number, api.Decide{Promote: true, Reason: "now"})
	if !isWords(err, delivery.KindUnavailable) || !strings.Contains(fmt.Sprint(err), "the disk is full") {
		t.Fatalf("a promotion while the disk is full answers %v", err)
	}
	late, said := w.commit("late")
	if b := w.build(late); b.Number != 0 {
		t.Errorf("a push became build %d while the disk was full; git said:\n%s", b.Number, said)
	}
	for _, path := range []string{"/", "/petstore", fmt.Sprintf("/petstore/%d", waiting.Number), "/livez"} {
		if status, body := w.page(path); status != 200 {
			t.Errorf("GET %s answers %d while the disk is full: %.300s", path, status, body)
		}
	}

	for _, f := range []string{filler, filler + "2"} {
		if err := os.Remove(f); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.client.Sync(t.Context(), "petstore"); err != nil {
		t.Logf("the first look after it: %v", err)
	}
	w.becomes(late, delivery.BuildWaiting)
	w.until("the build that ran has ended or waits", func() bool {
		b := w.build(running)
		return b.Status == delivery.BuildWaiting || b.Status.Final() || b.Status == delivery.BuildStopped
	})
	if b := w.build(running); b.Status != delivery.BuildWaiting && b.WhyFailed == nil {
		t.Errorf("the build that ran is %s, and does not say why: %s", b.Status, b.Reason)
	}
	if out, err := w.shunt("promote", "petstore", fmt.Sprint(waiting.Number), "-m", "now"); err != nil {
		t.Errorf("after there was room again: %v\n%s", err, out)
	}
	w.becomes(open, delivery.BuildSucceeded)
	if n := len(w.deploys()); n != 2 {
		t.Errorf("%d deployments, want 2: %v", n, w.deploys())
	}
	fmt.Printf("disk full: the build that ran meanwhile is %s; violations: %d\n", w.build(running).Status, violations(t))
}

// violations is what a test that is one story prints at its end.
func violations(t *testing.T) int {
	t.Helper()
	if t.Failed() {
		return 1
	}
	return 0
}
