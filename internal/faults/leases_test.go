package faults

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/shuntcd/shunt/internal/delivery"
	"github.com/shuntcd/shunt/internal/store"
)

// Several servers ask for the lease of one build, renew it, write under it and
// give it back, while time passes. Every history must be one that a single lease
// could have had: it is given only when it is free or has run out, each time with
// the next fence, and only the newest fence writes. So the writes of two holders
// never interleave.
//
// On SQLite time is the injected clock, and its steps are part of the history. On
// PostgreSQL it is the database's, so that a lease of a moment may have run out
// or not: the model allows both, and forbids all else.

// leaseStep is an operation of such a history.
type leaseStep struct {
	verb  string // take, write, give, wait
	fence int64  // of write and give
	d     time.Duration
}

type leased struct {
	ok    bool
	fence int64 // of take
	wrong error
}

// lease is the model's state. until counts in the injected time.
type lease struct {
	fence      int64
	held       bool
	now, until time.Duration
}

const leaseTime = 6 * time.Second

// leaseModel is one lease. exact: time is part of the history.
func leaseModel(exact bool) *porcupine.NondeterministicModel {
	return &porcupine.NondeterministicModel{
		Init: func() []any { return []any{lease{}} },
		Step: func(state, input, output any) []any {
			l, in, out := state.(lease), input.(leaseStep), output.(leased)
			newest := l.held && in.fence == l.fence
			switch in.verb {
			case "wait":
				l.now += in.d
				return keep(true, l)
			case "take":
				free := !l.held || l.until < l.now || !exact
				if !out.ok {
					return keep(l.held && (!exact || !free), l)
				}
				return keep(free && out.fence == l.fence+1, lease{l.fence + 1, true, l.now, l.now + leaseTime})
			case "write":
				if newest {
					l.until = l.now + leaseTime
				}
			case "give":
				if newest {
					l.held = false
				}
			}
			return keep(out.ok == newest, l)
		},
		Equal:             func(a, b any) bool { return a == b },
		DescribeOperation: func(input, output any) string { return fmt.Sprintf("%+v -> %+v", input, output) },
	}
}

// stepped is a clock that only a test moves.
type stepped struct{ at atomic.Int64 }

func (c *stepped) Now() time.Time { return time.Unix(1_700_000_000, c.at.Load()).UTC() }

func TestLeasesAreLinearizable(t *testing.T) {
	t.Parallel()
	onDatabases(t, func(t *testing.T, database string) {
		t.Helper()
		exact := !store.IsPostgres(database)
		ttl := leaseTime
		if !exact {
			ttl = 2 * time.Millisecond
		}
		var clock stepped
		stores := openStores(t, database, 5, &clock)
		makeProject(t, stores[0])
		model := leaseModel(exact).ToModel()
		operations, expired := 0, 0
		for n := range uint64(*histories) { // one at a time: they share the clock
			list, took, err := holdInTurn(t.Context(), rand.New(rand.NewPCG(*seed, n)), stores, &clock, ttl)
			if err != nil {
				t.Fatalf("history %d: %v", n, err)
			}
			operations, expired = operations+len(list), expired+took
			if !porcupine.CheckOperations(model, list) {
				t.Errorf("history %d of seed %d is not linearizable:\n%s", n, *seed, written(model, list))
			}
		}
		fmt.Printf("leases on %s: %d histories of 2 to 5 servers, %d operations, %d leases given, seed %d\n", filepath.Base(t.Name()), *histories, operations, expired, *seed)
	})
}

// holdInTurn records one history of the lease of a new build.
func holdInTurn(ctx context.Context, rnd *rand.Rand, stores []*store.Store, clock *stepped, ttl time.Duration) (list []porcupine.Operation, took int, err error) {
	b, err := waitingBuild(ctx, stores[0])
	if err == nil {
		err = stores[0].Write(ctx, func(ctx context.Context, tx *store.Tx) error {
			return tx.SetStatus(ctx, b, delivery.BuildRunning, "")
		})
	}
	if err != nil {
		return nil, 0, err
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	begin := time.Now()
	for client, s := range stores[:2+rnd.IntN(len(stores)-1)] {
		mine := rand.New(rand.NewPCG(rnd.Uint64(), 0))
		wg.Go(func() {
			var fence int64 // the last that this server was given; it may be old
			for range 4 {
				in := leaseStep{verb: []string{"take", "write", "write", "give", "wait"}[mine.IntN(5)], fence: fence}
				if fence == 0 && in.verb != "wait" {
					in.verb = "take"
				}
				if in.verb == "wait" {
					in.d = time.Duration(mine.IntN(10)) * time.Second
				}
				record(&list, &mu, begin, client, in, func() leased {
					out := hold(ctx, s, b, fmt.Sprint("s", client), in, clock, ttl)
					if in.verb == "take" && out.ok {
						fence = out.fence
					}
					return out
				})
			}
		})
	}
	wg.Wait()
	for _, op := range list {
		out := op.Output.(leased)
		if err = errors.Join(err, out.wrong); out.ok && op.Input.(leaseStep).verb == "take" {
			took++
		}
	}
	return list, took, err
}

func hold(ctx context.Context, s *store.Store, b delivery.Build, owner string, in leaseStep, clock *stepped, ttl time.Duration) (out leased) {
	if in.verb == "wait" {
		clock.at.Add(int64(in.d))
		time.Sleep(min(in.d/2000, ttl)) // for the database's own clock
		return leased{ok: true}
	}
	err := s.Write(ctx, func(ctx context.Context, tx *store.Tx) (err error) {
		switch in.verb {
		case "take":
			var got delivery.Build
			got, out.ok, err = tx.Lease(ctx, b.ID, owner, ttl)
			out.fence = got.LeaseFence
			return err
		case "give":
			return tx.Unlease(ctx, b.ID, in.fence, delivery.BuildRunning, "", 0)
		}
		return errors.Join(tx.Guard(ctx, b.ID, in.fence, ttl), tx.Hurry(ctx, b.ID))
	})
	switch {
	case errors.Is(err, delivery.ErrLeaseLost):
		return leased{}
	case err != nil:
		return leased{wrong: err}
	case in.verb != "take":
		out.ok = true
	}
	return out
}
