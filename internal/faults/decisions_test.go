package faults

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/shuntcd/shunt/internal/delivery"
	"github.com/shuntcd/shunt/internal/engine"
	"github.com/shuntcd/shunt/internal/gitrepo"
	"github.com/shuntcd/shunt/internal/store"
	"github.com/shuntcd/shunt/internal/testkit/pg"
)

// histories is per database; `make faults` plays 10,000.
var histories = flag.Int("histories", 300, "how many histories of decisions, and of leases, are recorded and checked")

// T51, F20: several people decide about one build at the same moment, each at a
// server of their own; all servers use one database. Every history must be one
// that a single gate could have had: the first decision counts, whoever comes
// later is told which one that was, and who looks sees it. A cancellation is a
// decision about the build: it closes the gate where that is open, and always
// stands, for nothing has been deployed.

// asked and answered are an operation of such a history.
type asked struct {
	verb string // promote, reject, cancel, look
	by   string
}

type answered struct {
	ok    bool
	gate  string // of a look, or what a loser was told: "promoted by p1", "open"
	lost  bool   // no answer came: it may have happened, or not
	wrong error  // an answer that nobody should get
}

// gateModel is one gate. Its state is what a look shows.
var gateModel = porcupine.NondeterministicModel{
	Init: func() []any { return []any{"open"} },
	Step: func(state, input, output any) []any {
		gate, in, out := state.(string), input.(asked), output.(answered)
		next := gate
		switch {
		case in.verb == "look":
			return keep(out.gate == gate || out.lost, gate)
		case gate == "open":
			next = map[string]string{"promote": "promoted", "reject": "rejected", "cancel": "cancelled"}[in.verb] + " by " + in.by
		}
		switch {
		case out.lost:
			return []any{gate, next}
		case gate == "open", in.verb == "cancel":
			return keep(out.ok, next)
		}
		return keep(!out.ok && out.gate == gate, gate)
	},
	Equal: func(a, b any) bool { return a == b },
	DescribeOperation: func(input, output any) string {
		return fmt.Sprintf("%+v -> %+v", input, output)
	},
}

// keep is the one state in which an operation leaves a model; none when it cannot have been.
func keep(ok bool, state any) []any {
	if !ok {
		return nil
	}
	return []any{state}
}

// record takes the times of an operation.
func record[In, Out any](list *[]porcupine.Operation, mu *sync.Mutex, begin time.Time, client int, in In, do func() Out) {
	call := time.Since(begin).Nanoseconds()
	out := do()
	end := time.Since(begin).Nanoseconds()
	mu.Lock()
	*list = append(*list, porcupine.Operation{ClientId: client, Input: in, Call: call, Output: out, Return: end})
	mu.Unlock()
}

// onDatabases runs a test on SQLite and on PostgreSQL, each time with a new database.
func onDatabases(t *testing.T, test func(t *testing.T, database string)) {
	t.Helper()
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		if *database == "postgres" {
			t.Skip("-database postgres")
		}
		dir, err := os.MkdirTemp(shm(), "shunt-histories-") //nolint:usetesting // memory: the disk is not what is tested
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(dir) })
		test(t, filepath.Join(dir, "shunt.db"))
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		if *database == "sqlite" || pg.Available() == "" && os.Getenv("CI") == "" {
			t.Skip("no PostgreSQL: apt-get install postgresql")
		}
		server, err := pg.Start()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(server.Stop)
		url, err := server.Database(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		test(t, url)
	})
}

func shm() string {
	if info, err := os.Stat("/dev/shm"); err == nil && info.IsDir() {
		return "/dev/shm"
	}
	return ""
}

// openStores opens a database as several servers do.
func openStores(t *testing.T, database string, n int, clock delivery.Clock) (all []*store.Store) {
	t.Helper()
	for range n {
		s, err := store.Open(t.Context(), store.Config{Database: database, Clock: clock, Log: slog.New(slog.DiscardHandler), Fatal: func(err error) { panic(err) }})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		all = append(all, s)
	}
	return all
}

// waitingBuild makes a build whose gate is open.
func waitingBuild(ctx context.Context, s *store.Store) (b delivery.Build, err error) {
	const file = "version: 1\njobs:\n  build: { steps: [{ run: 'true' }] }\nenvironments:\n  production: { deploy: 'true' }\n"
	err = s.Write(ctx, func(ctx context.Context, tx *store.Tx) error {
		b = delivery.Build{Project: shop, Lane: delivery.LaneMain, Ref: "refs/heads/develop", Commit: strings.Repeat("c", 40), Tree: strings.Repeat("d", 40), Pipeline: []byte(file), Status: delivery.BuildWaiting}
		if b.Number, err = tx.TakeNumber(ctx, shop); err != nil {
			return err
		}
		if b.ID, err = tx.InsertBuild(ctx, b, []delivery.Node{{Name: "gate/production", Kind: delivery.NodeGate, Target: "production", State: delivery.NodeWaiting}}); err != nil {
			return err
		}
		_, err = tx.OpenGate(ctx, delivery.Gate{ID: fmt.Sprint("G", b.ID), BuildID: b.ID, Environment: "production", ExpiresAt: tx.Now().Add(time.Hour), Binding: delivery.Binding{Commit: b.Commit, Tree: b.Tree, Artifacts: map[string]string{}}})
		return err
	})
	return b, err
}

func makeProject(t *testing.T, s *store.Store) {
	t.Helper()
	err := s.Write(t.Context(), func(ctx context.Context, tx *store.Tx) error {
		return tx.InsertProject(ctx, delivery.Project{
			Name: shop, URL: "/nowhere", Local: true, NextBuild: 1, WebhookSecret: "s",
			Branches: delivery.Branches{Integration: "develop", Production: "master", Hotfix: "hotfix/*"}, Tags: delivery.Tags{Build: "build/$N", Production: "production/$N"},
		})
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestDecisionsAreLinearizable(t *testing.T) {
	t.Parallel()
	onDatabases(t, func(t *testing.T, database string) {
		t.Helper()
		var engines []*engine.Engine
		stores := openStores(t, database, 5, delivery.SystemClock{})
		git, err := gitrepo.New(gitrepo.Config{Dir: t.TempDir(), Home: t.TempDir(), Log: slog.New(slog.DiscardHandler), Timeout: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		for i, s := range stores {
			engines = append(engines, engine.New(engine.Config{Store: s, Git: git, Clock: delivery.SystemClock{}, Log: slog.New(slog.DiscardHandler), Dir: t.TempDir(), Owner: fmt.Sprint("s", i), URL: "https://shunt.example.org"}))
		}
		makeProject(t, stores[0])
		var operations, contended atomic.Int64
		var wg sync.WaitGroup
		next := make(chan uint64)
		for range 4 {
			wg.Go(func() {
				for n := range next {
					list, err := decideAtOnce(t.Context(), rand.New(rand.NewPCG(*seed, n)), engines, stores)
					if err != nil {
						t.Errorf("history %d: %v", n, err)
						continue
					}
					operations.Add(int64(len(list)))
					if losers(list) > 0 {
						contended.Add(1)
					}
					model := gateModel.ToModel()
					if !porcupine.CheckOperations(model, list) {
						t.Errorf("history %d of seed %d is not linearizable:\n%s", n, *seed, written(model, list))
					}
				}
			})
		}
		for n := range uint64(*histories) {
			next <- n
		}
		close(next)
		wg.Wait()
		fmt.Printf("decisions on %s: %d histories of 2 to 5 servers, %d operations, %d histories with a loser, seed %d\n", filepath.Base(t.Name()), *histories, operations.Load(), contended.Load(), *seed)
	})
}

func losers(list []porcupine.Operation) (n int) {
	for _, op := range list {
		if out, ok := op.Output.(answered); ok && !out.ok && out.gate != "open" && op.Input.(asked).verb != "look" {
			n++
		}
	}
	return n
}

func written(model porcupine.Model, list []porcupine.Operation) string {
	var out strings.Builder
	for _, op := range list {
		fmt.Fprintf(&out, "  %9d to %9d client %d: %s\n", op.Call, op.Return, op.ClientId, model.DescribeOperation(op.Input, op.Output))
	}
	return out.String()
}

// decideAtOnce records one history: clients of some servers decide about a new
// build, twice each, all from the same moment on.
func decideAtOnce(ctx context.Context, rnd *rand.Rand, engines []*engine.Engine, stores []*store.Store) (list []porcupine.Operation, err error) {
	servers := 2 + rnd.IntN(len(engines)-1)
	b, err := waitingBuild(ctx, stores[rnd.IntN(servers)])
	if err != nil {
		return nil, err
	}
	verbs := [][]string{
		{"promote", "promote"}, {"promote", "reject"}, {"promote", "cancel"}, {"reject", "cancel", "promote"}, {"promote", "promote", "reject", "reject", "cancel"},
	}[rnd.IntN(5)]
	var mu sync.Mutex
	var wg sync.WaitGroup
	begin, start := time.Now(), make(chan struct{})
	for client, verb := range verbs {
		e := engines[(client+rnd.IntN(2))%servers]
		pause := time.Duration(rnd.IntN(3)) * time.Duration(rnd.IntN(2000)) * time.Microsecond
		wg.Go(func() {
			<-start
			time.Sleep(pause)
			for i, verb := range []string{"look", verb, "look", verb}[rand.IntN(2):] {
				in := asked{verb, fmt.Sprintf("p%d", client)}
				record(&list, &mu, begin, client, in, func() answered { return decide(ctx, e, b, in) })
				if i == 2 {
					break
				}
			}
		})
	}
	close(start)
	wg.Wait()
	for _, op := range list {
		err = errors.Join(err, op.Output.(answered).wrong)
	}
	return list, err
}

func decide(ctx context.Context, e *engine.Engine, b delivery.Build, in asked) (out answered) {
	var err error
	switch in.verb {
	case "look":
		gates, err := e.Store.Gates(ctx, b.ID)
		if err != nil || len(gates) != 1 {
			return answered{wrong: cmp.Or(err, errors.New("there is not one gate"))}
		}
		return answered{ok: true, gate: said(string(gates[0].State), gates[0].DecidedBy)}
	case "cancel":
		err = e.Cancel(ctx, b.Project, b.Number, in.by, "no longer wanted")
	default:
		_, err = e.Decide(ctx, b.Project, b.Number, delivery.Decision{Promote: in.verb == "promote", By: in.by, Reason: "because"})
	}
	return judge(err)
}

func said(state, by string) string {
	if state == string(delivery.GateOpen) {
		return "open"
	}
	return state + " by " + by
}

// judge reads who won from what a loser was told.
func judge(err error) answered {
	d, ok := errors.AsType[*delivery.Error](err)
	switch {
	case err == nil:
		return answered{ok: true}
	case !ok || d.Kind != delivery.KindConflict:
		return answered{wrong: err}
	}
	var state, by string
	if _, scan := fmt.Sscanf(d.Why, "it was %s by %s", &state, &by); scan != nil {
		return answered{wrong: fmt.Errorf("a loser is not told who won: %w", err)}
	}
	return answered{gate: said(state, by)}
}
