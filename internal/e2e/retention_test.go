package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shuntcd/shunt/internal/api"
	"github.com/shuntcd/shunt/internal/delivery"
)

// What production runs, its last five builds before and what is open survive any
// retention; what is older goes, and neither a backup nor a rollback suffers.
func TestRetentionKeepsWhatProductionNeeds(t *testing.T) {
	t.Parallel()
	w := newWorld(t, shop(nil))
	w.add(api.AddProject{InstallHook: true})
	digest := map[int64]string{}
	build := func(n int64) {
		w.write(map[string]string{"text": fmt.Sprint("release ", n)})
		w.commit("a release")
		if b := w.push("develop"); b.Number != n {
			t.Fatalf("build %d has number %d", n, b.Number)
		}
		digest[n] = w.reach(n, delivery.BuildWaiting).Artifacts[0].SHA256
	}
	for n := int64(1); n <= 8; n++ {
		build(n)
		w.promote(n)
	}
	build(9)
	w.shunt("reject", "9", "-m", "no")
	w.reach(9, delivery.BuildRejected)
	build(10) // waits
	there := func(n int64) (blob, log bool) {
		_, err := os.Stat(filepath.Join(w.data, "blobs", "sha256", digest[n][:2], digest[n]))
		logs, _ := filepath.Glob(filepath.Join(w.data, "logs", fmt.Sprintf("%s-%d-job-build-*.log", petshop, n)))
		return err == nil, len(logs) > 0
	}
	gc := func(want string, more ...string) {
		t.Helper()
		args := append([]string{w.exe, "gc", "--data", w.data, "--keep-logs", "1ms", "--keep-artifacts", "1ms"}, more...)
		if out := w.run(w.dir, args...); !strings.Contains(out, want) {
			t.Errorf("%v says %s", more, out)
		}
	}
	w.shuntCode(2, "gc", "--data", w.data)
	w.shuntCode(2, "gc", "--data", w.data, "--keep-logs", "ninety days")
	gc("0 artifacts", "--dry-run") // their bytes are younger than a day
	blobs, err := filepath.Glob(filepath.Join(w.data, "blobs", "sha256", "*", "*"))
	w.must(err)
	for _, b := range blobs {
		w.must(os.Chtimes(b, time.Time{}, time.Now().Add(-25*time.Hour)))
	}
	gc("3 artifacts and", "--dry-run")
	if blob, log := there(1); !blob || !log {
		t.Error("a dry run has removed something")
	}
	gc("3 artifacts and")
	for n := int64(1); n <= 10; n++ {
		keep := n >= 3 && n != 9
		if blob, log := there(n); blob != keep || log != keep {
			t.Errorf("of build %d the bytes are there: %v, the log: %v", n, blob, log)
		}
	}
	gc("0 artifacts and 0 logs")
	w.shunt("backup", "--data", w.data, "--to", w.at("b.tar")) // exit code 0: nothing was lost
	w.shunt("rollback", "--to", "3", "-m", "the oldest that is kept")
	w.until("build 3 runs again", func() bool {
		p, err := w.api.Project(t.Context(), petshop)
		return err == nil && p.Production != nil && p.Production.Build == 3
	})
	if out := w.shuntCode(1, "rollback", "--to", "1", "-m", "too old"); !strings.Contains(out, "artifact") {
		t.Error(out)
	}
	// What was not removed on purpose is missed.
	w.must(os.Remove(filepath.Join(w.data, "blobs", "sha256", digest[8][:2], digest[8])))
	if out := w.shuntCode(1, "backup", "--data", w.data, "--to", w.at("c.tar")); !strings.Contains(out, digest[8]) {
		t.Error(out)
	}
}
