package disk

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shuntcd/shunt/internal/api"
	"github.com/shuntcd/shunt/internal/delivery"
	"github.com/shuntcd/shunt/internal/testkit/disk"
)

// F05. Each sync of the database takes 300 ms, and now and then 5 s, which is
// nearly a lease: no lease is lost by it, no job runs twice, and pages are read
// while a sync is under way.
func TestASlowDisk(t *testing.T) {
	t.Parallel()
	if *faults != "all" {
		t.Skip("takes a minute and a half; -faults all")
	}
	mount := t.TempDir()
	var slow atomic.Bool
	var syncs, under atomic.Int64
	d, err := disk.Mount(mount, disk.Ordered, func(op disk.Op) disk.Verdict {
		if slow.Load() && op.Kind == disk.Sync && strings.Contains(op.Path, "shunt.db") {
			under.Add(1)
			defer under.Add(-1)
			if syncs.Add(1)%10 == 5 {
				time.Sleep(5 * time.Second)
			} else {
				time.Sleep(300 * time.Millisecond)
			}
		}
		return disk.Verdict{}
	})
	if errors.Is(err, disk.ErrCannot) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	w := newWorld(t, program(t), filepath.Join(mount, "data"))
	slow.Store(true)
	commit, _ := w.commit("slow")
	read, worst := 0, time.Duration(0)
	w.until("the build waits", func() bool {
		if under.Load() > 0 {
			began := time.Now()
			if status, body := w.page("/petstore"); status != 200 {
				t.Errorf("a page answers %d while a sync is under way: %.300s", status, body)
			}
			if under.Load() > 0 {
				read, worst = read+1, max(worst, time.Since(began))
			}
		}
		return w.build(commit).Status == delivery.BuildWaiting
	})
	if read == 0 {
		t.Error("no page was read while a sync was under way")
	}
	b := w.build(commit)
	if _, err := w.client.Decide(t.Context(), "petstore", b.Number, api.Decide{Promote: true, Reason: "now"}); err != nil {
		t.Error(err)
	}
	b = w.becomes(commit, delivery.BuildSucceeded)
	slow.Store(false)
	for _, n := range b.Nodes {
		if len(n.Attempts) > 1 {
			t.Errorf("%s has %d attempts: %+v", n.Name, len(n.Attempts), n.Attempts)
		}
	}
	if n := len(w.deploys()); n != 2 {
		t.Errorf("%d deployments, want 2: %v", n, w.deploys())
	}
	if log, err := os.ReadFile(filepath.Join(w.dir, "server.log")); err != nil || strings.Contains(string(log), "lease") {
		t.Errorf("the server speaks of leases: %v\n%s", err, log)
	}
	fmt.Printf("disk slow: %d syncs of 0.3 to 5 s, %d pages read meanwhile, the slowest in %s; violations: %d\n", syncs.Load(), read, worst.Round(time.Millisecond), violations(t))
}
