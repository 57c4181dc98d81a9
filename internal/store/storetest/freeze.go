package storetest

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shuntcd/shunt/internal/delivery"
	"github.com/shuntcd/shunt/internal/store"
)

func freezes(t *testing.T, s *store.Store) {
	ctx := t.Context()
	begins := s.Now().Add(time.Hour).Truncate(time.Second).UTC()
	ends := begins.Add(time.Hour)
	plan := delivery.Freeze{Project: "petstore", Begins: begins, Ends: ends, Reason: "Christmas ä\x1b", By: "ana"}
	next := delivery.Freeze{Project: "petstore", Begins: ends, Ends: ends.Add(time.Hour), Reason: "sale", By: "ana"}
	write(t, s, func(ctx context.Context, tx *store.Tx) (err error) {
		must(t, tx.InsertProject(ctx, project("petstore")))
		must(t, tx.InsertProject(ctx, project("other")))
		next, err = tx.InsertFreeze(ctx, next)
		must(t, err)
		asked := plan
		plan, err = tx.InsertFreeze(ctx, plan)
		must(t, err)
		if asked.ID, asked.CreatedAt = 2, plan.CreatedAt; !cmp.Equal(asked, plan) || !plan.CreatedAt.Equal(tx.Now().Truncate(time.Microsecond)) {
			t.Errorf("it was written as\n%+v, not\n%+v", plan, asked)
		}
		return err
	})
	if _, err := s.Freeze(ctx, "other", plan.ID); !delivery.IsKind(err, delivery.KindNotFound) {
		t.Errorf("another project has the freeze: %v", err)
	}
	if err := s.Write(ctx, func(ctx context.Context, tx *store.Tx) error {
		_, err := tx.InsertFreeze(ctx, delivery.Freeze{Project: "petstore", Begins: ends, Ends: begins})
		return err
	}); err == nil {
		t.Error("a freeze ends before it begins")
	}
	told := func(what string, got []delivery.Freeze, err error, want ...int64) {
		t.Helper()
		ids := []int64{}
		for _, f := range got {
			ids = append(ids, f.ID)
		}
		if err != nil || !cmp.Equal(ids, append([]int64{}, want...)) {
			t.Errorf("%s: %v, want %v (%v)", what, ids, want, err)
		}
	}
	ahead := func(project string, now time.Time, want ...int64) {
		t.Helper()
		got, err := s.FreezesAhead(ctx, project, now)
		told("ahead of "+project, got, err, want...)
	}
	begun := func(before time.Time, want ...int64) {
		t.Helper()
		got, err := s.FreezesBegun(ctx, "petstore", before, 10)
		told("begun", got, err, want...)
	}
	turned := func(after, until time.Time, want ...string) {
		t.Helper()
		got, err := s.FreezesTurned(ctx, after, until)
		got = slices.Compact(got)
		if err != nil || !cmp.Equal(append([]string{}, got...), append([]string{}, want...)) {
			t.Errorf("turned: %v, want %v (%v)", got, want, err)
		}
	}
	ahead("", begins, plan.ID, next.ID)
	ahead("petstore", ends.Add(-time.Microsecond), plan.ID, next.ID)
	ahead("petstore", ends, next.ID)
	ahead("other", begins)
	all, err := s.Freezes(ctx, "petstore", 10)
	told("all", all, err, next.ID, plan.ID)
	all, err = s.Freezes(ctx, "petstore", 1)
	told("the last", all, err, next.ID)
	begun(begins)
	begun(begins.Add(time.Microsecond), plan.ID)
	begun(ends.Add(time.Hour), next.ID, plan.ID)
	turned(begins.Add(-time.Second), begins.Add(-time.Microsecond))
	turned(begins.Add(-time.Second), begins, "petstore")
	turned(begins, ends.Add(-time.Microsecond))
	turned(begins, ends, "petstore") // one ends, the other begins
	turned(next.Ends.Add(-time.Second), next.Ends, "petstore")
	turned(next.Ends, next.Ends.Add(time.Hour))

	end := func(id int64, why string) error {
		return s.Write(ctx, func(ctx context.Context, tx *store.Tx) error { return tx.EndFreeze(ctx, id, "bob", why) })
	}
	must(t, end(next.ID, "no sale"))
	if err := end(next.ID, "again"); !delivery.IsKind(err, delivery.KindConflict) {
		t.Errorf("it was ended twice: %v", err)
	}
	if f, err := s.Freeze(ctx, "petstore", next.ID); err != nil || f.EndedBy != "bob" || f.EndedWhy != "no sale" || f.EndedAt.IsZero() {
		t.Errorf("it was ended as %+v, %v", f, err)
	}
	ahead("petstore", begins, plan.ID)
	begun(ends.Add(time.Hour), plan.ID) // the other never began
	turned(begins, ends.Add(-time.Microsecond))
	turned(ends, next.Ends)
	var past delivery.Freeze
	write(t, s, func(ctx context.Context, tx *store.Tx) (err error) {
		past, err = tx.InsertFreeze(ctx, delivery.Freeze{Project: "petstore", Begins: begins.Add(-4 * time.Hour), Ends: begins.Add(-3 * time.Hour), Reason: "x", By: "ana"})
		return err
	})
	if err := end(past.ID, "late"); !delivery.IsKind(err, delivery.KindConflict) {
		t.Errorf("one that is over was ended: %v", err)
	}
}
