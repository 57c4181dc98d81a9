package engine

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/shuntcd/shunt/internal/delivery"
	"github.com/shuntcd/shunt/internal/gitrepo"
	"github.com/shuntcd/shunt/internal/pipeline"
	"github.com/shuntcd/shunt/internal/store"
)

func TestIDsFitIntoAPath(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("a", 63)
	b := delivery.Build{Project: long, Number: 7}
	one, two := attemptID(b, "job/"+long, 1), attemptID(b, "job/"+long, 2)
	if len(one) > 100 || one == two || strings.Contains(one, "/") {
		t.Fatalf("%q and %q", one, two)
	}
	if id := instanceID(delivery.Build{Project: "petstore", Number: 43}, "qa", 2); id != "petstore-qa-43-2" {
		t.Fatal(id)
	}
}

func TestMailGoesOnlyToAddresses(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"ana@example.org":           "ana@example.org",
		"Ana <ana@example.org>":     "ana@example.org",
		"ana":                       "",
		"":                          "",
		"a@b.invalid":               "",
		"root@localhost":            "",
		"a@example.org, b@evil.org": "",
		"a@example.org\r\nBcc: b@c": "",
		`"a;b"@example.org`:         "",
	} {
		if got := strings.Join(mailAddress(in), " "); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func TestTheRuleOfAGate(t *testing.T) {
	t.Parallel()
	if rule := approve(&pipeline.Pipeline{}, "production", delivery.LaneMain); rule.Timeout != 72*time.Hour {
		t.Fatal(rule)
	}
}

func TestWhatAPushErrorMeans(t *testing.T) {
	t.Parallel()
	unknown := &gitrepo.PushError{Outcome: gitrepo.PushUnknown, Err: errors.New("cut")}
	if _, ok := errors.AsType[*outcome](pushOutcome(unknown)); ok {
		t.Fatal("a lost answer is no refusal")
	}
	o, ok := errors.AsType[*outcome](pushOutcome(&gitrepo.PushError{Outcome: gitrepo.PushRejected, Err: errors.New("no")}))
	if !ok || !strings.Contains(o.Error(), "the remote refused the push: no") || o.Unwrap() == nil {
		t.Fatal(o)
	}
	if pushOutcome(nil) != nil {
		t.Fatal("nothing went wrong")
	}
}

func TestAPerformerThatPanicsEndsNoServer(t *testing.T) {
	t.Parallel()
	for _, kind := range []delivery.NodeKind{delivery.NodeJob, "dance"} {
		p := performer{node: delivery.Node{Name: "x", Kind: kind}}
		if r := p.do(context.Background()); r.err == nil {
			t.Fatal("no error")
		}
	}
}

// Whoever sent an effect and got no answer asks what became of it, and does not
// send it again when it is done.
func TestALostAnswerIsLookedUpAndNotRepeated(t *testing.T) {
	w := newWorld(t, plain)
	w.add("")
	w.reach(1, delivery.BuildWaiting)
	p, err := w.engine.performerOf(w.ctx, w.build(1).ID)
	w.ok(err)
	w.ok(w.store.Write(w.ctx, func(ctx context.Context, tx *store.Tx) error {
		if err := w.engine.goOn(ctx, tx, p.build.ID); err != nil {
			return err
		}
		b, ok, err := tx.Lease(ctx, p.build.ID, "test/2", time.Hour)
		if !ok {
			w.Error("no lease")
		}
		p.build = b
		return err
	}))
	p.driver = &driver{Engine: w.engine, build: p.build}
	calls := 0
	e := effect{
		key: "lost", kind: "tag", params: "{}",
		call: func(context.Context) (string, error) {
			if calls++; calls > 3 {
				return "", &outcome{words: "it was sent again and again"}
			}
			return "", errors.New("the connection broke")
		},
		probe: func(context.Context) (string, bool, error) { return "found", true, nil },
	}
	for range 2 { // the next driver goes by what is written down
		answer, err := p.perform(w.ctx, e)
		w.want("answer", []any{answer, err}, []any{"found", nil})
	}
	w.want("calls", calls, 1)
	w.ok(w.store.Write(w.ctx, func(ctx context.Context, tx *store.Tx) error { return tx.ClearLeases(ctx, "test") }))
}
