package storetest

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/shuntcd/shunt/internal/delivery"
	"github.com/shuntcd/shunt/internal/store"
)

func pages(t *testing.T, s *store.Store) {
	first := build(t, s, delivery.LaneMain, "refs/heads/develop")
	fix := build(t, s, delivery.LaneHotfix, "refs/heads/hotfix/x")
	write(t, s, func(ctx context.Context, tx *store.Tx) error {
		if err := tx.InsertProject(ctx, project("other")); err != nil {
			return err
		}
		must(t, tx.InsertTakeover(ctx, delivery.Deployment{ID: "t", Project: "petstore", Environment: "production", BuildID: first.ID, Number: first.Number, Commit: first.Commit, Lane: delivery.LaneMain}))
		d, _, err := tx.StartDeployment(ctx, delivery.Deployment{ID: "d", Project: "petstore", Environment: "production", BuildID: fix.ID, Number: fix.Number, Lane: delivery.LaneHotfix, Kind: "promote"})
		must(t, err)
		must(t, tx.EndDeployment(ctx, d, delivery.DeploymentFailed, "unchanged"))
		_, err = tx.OpenGate(ctx, delivery.Gate{ID: "G", BuildID: fix.ID, Environment: "production", ExpiresAt: tx.Now().Add(time.Hour)})
		must(t, err)
		must(t, tx.InsertInstance(ctx, delivery.Instance{ID: "i", Project: "petstore", Environment: "qa", BuildID: fix.ID, Number: fix.Number, ExpiresAt: tx.Now()}))
		_, err = tx.OpenBackMerge(ctx, delivery.BackMerge{Project: "petstore", Commit: "c1", Number: 1})
		return err
	})
	ctx := t.Context()
	for _, project := range []string{"", "petstore"} {
		states, err := s.ProjectStates(ctx, project)
		if err != nil || len(states) != map[string]int{"": 2, "petstore": 1}[project] {
			t.Errorf("%q: states %+v %v", project, states, err)
		}
		latest, err := s.LatestBuilds(ctx, project)
		if err != nil || len(latest) != 1 || latest[0].Number != fix.Number {
			t.Errorf("%q: latest %+v %v", project, latest, err)
		}
		// The takeover is what runs; the attempt after it is told, too.
		ds, err := s.CurrentDeployments(ctx, project)
		if err != nil || len(ds) != 2 || ds[0].ID != "d" || ds[1].ID != "t" {
			t.Errorf("%q: deployments %+v %v", project, ds, err)
		}
		gates, err := s.WaitingGates(ctx, project)
		if err != nil || len(gates) != 1 || gates[0].Number != fix.Number || gates[0].ID != "G" {
			t.Errorf("%q: gates %+v %v", project, gates, err)
		}
		alive, err := s.LivingInstances(ctx, project)
		if err != nil || len(alive) != 1 {
			t.Errorf("%q: instances %+v %v", project, alive, err)
		}
		debts, err := s.OpenDebts(ctx, project)
		if err != nil || len(debts) != 1 {
			t.Errorf("%q: debts %+v %v", project, debts, err)
		}
		if paused, err := s.PausedBuilds(ctx, project); err != nil || len(paused) != 0 {
			t.Errorf("%q: paused %+v %v", project, paused, err)
		}
	}
	if rs, err := s.Releases(ctx, "petstore", 10); err != nil || len(rs) != 1 || rs[0].Commit != first.Commit || rs[0].At.IsZero() {
		t.Errorf("releases %+v %v", rs, err)
	}
	if gs, err := s.GatesFrom(ctx, "petstore", fix.Number); err != nil || len(gs) != 1 {
		t.Errorf("gates %+v %v", gs, err)
	}
	if gs, err := s.GatesFrom(ctx, "petstore", fix.Number+1); err != nil || len(gs) != 0 {
		t.Errorf("gates above %+v %v", gs, err)
	}
	later := s.Now().Add(time.Hour)
	if ds, err := s.DeploymentsBefore(ctx, "petstore", later, 10); err != nil || len(ds) != 2 {
		t.Errorf("deployments before %+v %v", ds, err)
	}
	write(t, s, func(ctx context.Context, tx *store.Tx) error {
		must(t, tx.Audit(ctx, "petstore", 0, "ana", "hold", "freeze"))
		must(t, tx.Audit(ctx, "other", 0, "ana", "hold", "freeze"))
		must(t, tx.Audit(ctx, "petstore", 0, "ana", "freeze planned", "Christmas"))
		must(t, tx.SetArtifact(ctx, delivery.Artifact{BuildID: fix.ID, Name: "app", File: "app.tar", SHA256: strings.Repeat("a", 64), Size: 3}))
		return tx.Audit(ctx, "petstore", 1, "ana", "build created", "")
	})
	if as, err := s.TurnsBefore(ctx, "petstore", later, 10); err != nil || len(as) != 2 || as[0].Detail != "Christmas" || as[1].Detail != "freeze" {
		t.Errorf("turns %+v %v", as, err)
	}
	if as, err := s.TurnsBefore(ctx, "petstore", s.Now().Add(-time.Hour), 10); err != nil || len(as) != 0 {
		t.Errorf("turns long ago %+v %v", as, err)
	}
	if as, err := s.ArtifactsBelow(ctx, "petstore", 0, 10); err != nil || len(as) != 1 || as[0].Number != fix.Number || as[0].File != "app.tar" {
		t.Errorf("artifacts %+v %v", as, err)
	}
	if as, err := s.ArtifactsBelow(ctx, "petstore", fix.Number, 10); err != nil || len(as) != 0 {
		t.Errorf("artifacts below %+v %v", as, err)
	}
}

func since(t *testing.T, s *store.Store) {
	say := func(project string, number int64, action, detail string) {
		t.Helper()
		write(t, s, func(ctx context.Context, tx *store.Tx) error {
			return tx.Audit(ctx, project, number, "ana", action, detail)
		})
	}
	last := func() int64 {
		t.Helper()
		seq, err := s.LastAudit(t.Context())
		must(t, err)
		return seq
	}
	before := last()
	say("petstore", 0, "hold", "freeze")
	seen := last()
	say("petstore", 7, "cancel", "stop")
	say("petstore", 7, "re-run", "")
	say("petstore", 8, "cancel", "stop, too")
	say("other", 7, "cancel", "stop")
	for _, x := range []struct {
		seq, number int64
		detail      string
		limit       int
		actions     []string
		want        string
	}{
		{seen, 0, "", 9, []string{"cancel", "re-run"}, "cancel 8, re-run 7, cancel 7"},
		{seen, 0, "", 2, []string{"cancel", "re-run"}, "cancel 8, re-run 7"},
		{seen, 7, "", 9, []string{"cancel", "re-run"}, "re-run 7, cancel 7"},
		{seen, 0, "stop", 9, []string{"cancel", "re-run"}, "cancel 7"},
		{seen, 0, "", 9, []string{"hold"}, ""},
		{before, 0, "", 9, []string{"hold"}, "hold 0"},
		{last(), 0, "", 9, []string{"cancel"}, ""},
	} {
		rows, err := s.AuditSince(t.Context(), "petstore", x.seq, x.number, x.detail, x.actions, x.limit)
		must(t, err)
		var got []string
		for _, r := range rows {
			got = append(got, fmt.Sprint(r.Action, " ", r.Number))
		}
		if strings.Join(got, ", ") != x.want {
			t.Errorf("%+v: %q", x, got)
		}
	}
}
