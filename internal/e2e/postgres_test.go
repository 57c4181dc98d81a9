package e2e

import (
	"syscall"
	"testing"

	"github.com/shuntcd/shunt/internal/api"
	"github.com/shuntcd/shunt/internal/delivery"
	"github.com/shuntcd/shunt/internal/testkit/pg"
)

// The rows are in a real PostgreSQL, the server is killed between release and
// hotfix, the database is killed while a hotfix waits, and all goes on.
func TestTheStoryOnPostgres(t *testing.T) {
	t.Parallel()
	server := pg.ForTest(t)
	database, err := server.Database(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, shop(nil), "--database", database)
	w.add(api.AddProject{InstallHook: true})
	release := w.push("develop")
	w.promote(release.Number)
	w.shipped(release.Number, 1)

	w.kill(syscall.SIGKILL)
	w.start()
	w.git("fetch", "--quiet", "--tags", "origin")
	w.git("switch", "--quiet", "--create", "hotfix/cart-500", "production/"+itoa(release.Number))
	w.write(map[string]string{"text": "fixed\n"})
	w.commit("Cart answers 500")
	fix := w.push("hotfix/cart-500")
	w.reach(fix.Number, delivery.BuildWaiting)

	server.Kill()
	if _, err := w.api.Decide(t.Context(), w.project, fix.Number, api.Decide{Promote: true}); err == nil {
		t.Error("a decision was taken without a database")
	}
	if err := server.Run(); err != nil {
		t.Fatal(err)
	}
	w.until("the server answers again", func() bool {
		_, err := w.api.Me(t.Context())
		return err == nil
	})
	w.promote(fix.Number)
	w.shipped(fix.Number, 2)
}
