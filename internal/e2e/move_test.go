package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/shuntcd/shunt/internal/api"
	"github.com/shuntcd/shunt/internal/delivery"
	"github.com/shuntcd/shunt/internal/testkit/pg"
)

// A living installation moves to PostgreSQL with a gate that waits, and back.
func TestAnInstallationMovesToPostgresAndBack(t *testing.T) {
	t.Parallel()
	server := pg.ForTest(t)
	url, err := server.Database(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, shop(nil))
	file := filepath.Join(w.data, "shunt.db")
	w.add(api.AddProject{InstallHook: true})
	b := w.push("develop")
	w.reach(b.Number, delivery.BuildWaiting)
	if out := w.shuntCode(1, "migrate-data", "--from", file, "--to", url); !strings.Contains(out, "another Shunt server uses this data directory") {
		t.Error(out)
	}
	w.kill(syscall.SIGTERM)
	if out := w.shunt("migrate-data", "--from", file, "--to", url); !strings.Contains(out, "read back and compared") {
		t.Error(out)
	}
	if out := w.shuntCode(1, "serve", "--data", w.data, "--listen", w.listen); !strings.Contains(out, "its rows were moved to PostgreSQL") {
		t.Error(out)
	}
	w.flags = []string{"--database", url}
	w.start()
	w.promote(b.Number)
	if out := w.shuntCode(1, "backup", "--data", w.data, "--to", w.at("b.tar")); !strings.Contains(out, "pg_dump") {
		t.Error(out)
	}
	w.shunt("backup", "--files-only", "--data", w.data, "--to", w.at("b.tar"))
	if out := w.shuntCode(2, "restore", w.at("b.tar"), "--data", w.at("r")); !strings.Contains(out, "pg_restore") {
		t.Error(out)
	}
	w.kill(syscall.SIGTERM)
	if out := w.shuntCode(1, "migrate-data", "--from", url, "--to", file); !strings.Contains(out, "not empty") {
		t.Error(out)
	}
	w.must(os.Rename(file, w.at("old.db")))
	w.shunt("migrate-data", "--from", url, "--to", file)
	w.flags = nil
	w.start()
	got := w.reach(b.Number, delivery.BuildSucceeded)
	if got.Gates[0].DecidedBy != "operator" {
		t.Errorf("the gate came back as %+v", got.Gates[0])
	}
	w.write(map[string]string{"text": "two"})
	w.commit("two")
	w.promote(w.push("develop").Number)
}
