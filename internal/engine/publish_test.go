package engine

import (
	"context"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/shuntcd/shunt/internal/delivery"
	"github.com/shuntcd/shunt/internal/store"
	"github.com/shuntcd/shunt/internal/testkit/nexus"
)

// published is a pipeline whose artifact goes to Shunt's own store and to Nexus.
func published(url, more string) string {
	return strings.Replace(jobs, "    steps: [{run: 'cp", "    env: {DIR: '@DIR'}\n    steps: [{run: 'touch $DIR/built; cp", 1) + `publish:
  app:
    - {files: true}
    - {nexus: '` + url + `', repository: releases, coordinates: 'org.example:petstore:1.0.$SHUNT_BUILD:txt'` + more + `}
environments:
` + production + team
}

func newNexus(t *testing.T, o nexus.Options) (*nexus.Server, string) {
	t.Helper()
	n := nexus.New(o)
	web := httptest.NewServer(n)
	t.Cleanup(func() {
		n.Close()
		web.CloseClientConnections()
		web.Close()
	})
	return n, web.URL
}

const inNexus = "org/example/petstore/1.0.1/petstore-1.0.1.txt"

func TestAnArtifactIsPublished(t *testing.T) {
	n, url := newNexus(t, nexus.Options{})
	w := newWorld(t, published(url, ""))
	w.add("")
	w.reach(1, delivery.BuildWaiting)
	got, ok := n.Get("releases", inNexus)
	w.want("in Nexus", []any{string(got), ok}, []any{"one", true})
	p, err := w.engine.Files.Get(w.ctx, "petstore/1", "app")
	w.ok(err)
	w.want("in Shunt's store", p.File, "out.txt")
	w.ship(1)
}

func TestAnUploadWhoseAnswerWasLostIsLookedUp(t *testing.T) {
	t.Parallel()
	for _, fault := range []nexus.Fault{nexus.FaultResetAfter, nexus.Fault500After, nexus.FaultResetBefore} {
		t.Run(string(fault), func(t *testing.T) {
			n, url := newNexus(t, nexus.Options{})
			n.Script(fault)
			w := newWorld(t, published(url, ""))
			w.add("")
			w.reach(1, delivery.BuildWaiting)
			got, ok := n.Get("releases", inNexus)
			w.want("in Nexus", []any{string(got), ok}, []any{"one", true})
			stored := 0
			for _, line := range n.Journal() {
				if strings.HasPrefix(line, "releases/"+inNexus+" ") {
					stored++
				}
			}
			w.want("stored", stored, 1)
		})
	}
}

func TestAReleaseIsNeverOverwritten(t *testing.T) {
	n, url := newNexus(t, nexus.Options{})
	n.Put("releases", inNexus, []byte("other bytes"))
	w := newWorld(t, published(url, ""))
	w.add("")
	b := w.reach(1, delivery.BuildFailed)
	w.says(b.Reason, "publish app failed", "holds other bytes")
	got, _ := n.Get("releases", inNexus)
	w.want("in Nexus", string(got), "other bytes")
}

func TestRepositoriesAreAskedBeforeABuildBegins(t *testing.T) {
	t.Parallel()
	t.Run("it takes nothing now", func(t *testing.T) {
		n, url := newNexus(t, nexus.Options{})
		n.SetReadOnly(true)
		w := newWorld(t, published(url, ""))
		w.add("")
		b := w.reach(1, delivery.BuildFailed)
		w.says(b.Reason, "publish app failed: asked before the build began", "not writable now")
		w.want("job", w.node(1, "job/build").State, delivery.NodeUnreached)
		if w.exists("built")() {
			w.Fatal("the build ran")
		}
		n.SetReadOnly(false)
		w.ok(w.engine.Rerun(w.ctx, project, 1, "bob"))
		w.ship(1)
	})
	t.Run("a secret is not set", func(t *testing.T) {
		n, url := newNexus(t, nexus.Options{Users: []nexus.User{{Name: "ci", Password: "pw-pw-pw", Write: true}}})
		w := newWorld(t, published(url, ", secrets: [NEXUS_USER, NEXUS_PASSWORD]"))
		w.add("")
		b := w.reach(1, delivery.BuildFailed)
		w.says(b.Reason, "secret NEXUS_USER is not set")
		w.ok(w.store.Write(w.ctx, func(ctx context.Context, tx *store.Tx) error {
			if err := tx.SetSecret(ctx, project, "NEXUS_USER", "sealed:ci"); err != nil {
				return err
			}
			return tx.SetSecret(ctx, project, "NEXUS_PASSWORD", "sealed:wrong")
		}))
		w.ok(w.engine.Rerun(w.ctx, project, 1, "bob"))
		w.until("the password is wrong", func() bool {
			b := w.build(1)
			return b.Status == delivery.BuildFailed && strings.Contains(b.Reason, "401")
		})
		w.ok(w.store.Write(w.ctx, func(ctx context.Context, tx *store.Tx) error {
			return tx.SetSecret(ctx, project, "NEXUS_PASSWORD", "sealed:pw-pw-pw")
		}))
		w.ok(w.engine.Rerun(w.ctx, project, 1, "bob"))
		w.reach(1, delivery.BuildWaiting)
		_, ok := n.Get("releases", inNexus)
		w.want("in Nexus", ok, true)
	})
	t.Run("nobody is there", func(t *testing.T) {
		w := newWorld(t, published("http://127.0.0.1:1", ""))
		w.add("")
		b := w.reach(1, delivery.BuildFailed)
		w.says(b.Reason, "cannot be reached")
	})
}
