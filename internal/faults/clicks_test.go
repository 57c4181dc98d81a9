package faults

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/shuntcd/shunt/internal/api"
	"github.com/shuntcd/shunt/internal/delivery"
)

// quick is a shop that does nothing but ask.
var quick = map[string]string{".shunt.yml": `version: 1
jobs:
  build: { steps: [{ run: 'true' }] }
environments:
  production: { deploy: 'echo "$SHUNT_DEPLOY_ID $SHUNT_BUILD" >>@DIR@/deploys' }
`, "text": "1\n"}

// clickModel is gateModel with a server that drives the build on: who cancels too
// late is told that it has ended, or is not cut in half.
func clickModel() porcupine.Model {
	model := gateModel
	step := model.Step
	model.Step = func(state, input, output any) []any {
		if input.(asked).verb == "cancel" && output.(answered).gate == "too late" {
			return keep(state != "open", state)
		}
		return step(state, input, output)
	}
	return model.ToModel()
}

// The same over HTTP, at a real server that is killed meanwhile in two histories of
// three: an answer that does not come leaves both open, and what is seen
// afterwards decides. What was promoted is deployed once, and nothing else is.
func TestClicksAreLinearizableWhileTheServerDies(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("plays with a real server")
	}
	onDatabases(t, func(t *testing.T, database string) {
		t.Helper()
		if !strings.HasPrefix(database, "postgres:") {
			database = ""
		}
		w, err := suite{bin: program(t)}.newWorld(t.Context(), t.TempDir(), database, nil, quick)
		if err != nil {
			t.Fatal(err)
		}
		defer w.stop()
		if err := w.begin("#!/bin/sh\n"); err != nil {
			t.Fatal(err, logOf(w.in("server.log")))
		}
		rounds := max(6, *histories/500)
		lost, promoted := 0, 0
		for n := range rounds {
			number := int64(n + 1)
			if n > 0 {
				err = w.push(number)
			}
			if err = errors.Join(err, w.reach(number, delivery.BuildWaiting)); err != nil {
				t.Fatal(err, w.told(), logOf(w.in("server.log")))
			}
			list, err := w.clickAtOnce(rand.New(rand.NewPCG(*seed, uint64(n))), number, n%3 > 0)
			if err != nil {
				t.Fatal(err, w.told(), logOf(w.in("server.log")))
			}
			if !porcupine.CheckOperations(clickModel(), list) {
				t.Errorf("history %d of seed %d is not linearizable:\n%s", n, *seed, written(clickModel(), list))
			}
			for _, op := range list {
				if op.Output.(answered).lost {
					lost++
				}
			}
			b, err := w.ended(number)
			if err != nil {
				t.Fatal(err, w.told(), logOf(w.in("server.log")))
			}
			deploys := 0
			for _, line := range w.lines("deploys") {
				if strings.HasSuffix(line, fmt.Sprintf(" %d", number)) {
					deploys++
				}
			}
			shipped := b.Status == delivery.BuildSucceeded
			if shipped != (deploys == 1) || deploys > 1 || shipped && b.Gates[0].State != delivery.GatePromoted {
				t.Errorf("build %d is %s, its gate %s, and it was deployed %d times\n%s", number, b.Status, b.Gates[0].State, deploys, written(clickModel(), list))
			}
			promoted += deploys
		}
		fmt.Printf("clicks on %s: %d histories at a real server, %d answers lost, %d deployed, seed %d\n", map[bool]string{true: "sqlite", false: "postgres"}[database == ""], rounds, lost, promoted, *seed)
	})
}

// clickAtOnce records one history, and kills the server in the middle of it.
func (w *world) clickAtOnce(rnd *rand.Rand, number int64, kill bool) (list []porcupine.Operation, err error) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	begin := time.Now()
	impatient := api.NewClient(w.url, w.token, &http.Client{Timeout: 20 * time.Second})
	for client := range 4 {
		verb := []string{"promote", "promote", "reject", "cancel"}[(client+rnd.IntN(2))%4]
		pause := time.Duration(rnd.IntN(30)) * time.Millisecond
		wg.Go(func() {
			time.Sleep(pause)
			for i, verb := range []string{verb, "look", verb} {
				in := asked{verb, fmt.Sprintf("p%d-%d", client, i)}
				record(&list, &mu, begin, client*10+i, in, func() answered { return w.clickOnce(impatient, number, in) })
			}
		})
	}
	if kill {
		time.Sleep(time.Duration(10+rnd.IntN(60)) * time.Millisecond)
		_ = syscall.Kill(int(w.pid.Load()), syscall.SIGKILL)
	}
	wg.Wait()
	record(&list, &mu, begin, 99, asked{verb: "look"}, func() (out answered) {
		err = w.until("the server answers", func() error {
			if out = w.clickOnce(w.api, number, asked{verb: "look"}); out.lost {
				return errors.New("no answer")
			}
			return nil
		})
		return out
	})
	if out := list[len(list)-1].Output.(answered); out.gate == "open" { // nobody was heard: somebody clicks again
		in := asked{"reject", "last"}
		record(&list, &mu, begin, 100, in, func() answered { return w.clickOnce(w.api, number, in) })
	}
	for i := range list {
		out := list[i].Output.(answered)
		err = errors.Join(err, out.wrong)
		if out.lost { // it may take effect at any time from then on
			list[i].Return = time.Hour.Nanoseconds()
		}
	}
	return list, err
}

func (w *world) clickOnce(client *api.Client, number int64, in asked) answered {
	var err error
	switch in.verb {
	case "look":
		var b api.BuildDetail
		if b, err = client.Build(w.ctx, shop, number); err == nil {
			return answered{ok: true, gate: said(string(b.Gates[0].State), b.Gates[0].Reason)}
		}
	case "cancel":
		_, err = client.Cancel(w.ctx, shop, number, in.by)
	default:
		_, err = client.Decide(w.ctx, shop, number, api.Decide{Promote: in.verb == "promote", Reason: in.by})
	}
	d, _ := errors.AsType[*delivery.Error](err)
	switch {
	case err == nil:
		return answered{ok: true}
	case d == nil || d.Kind == delivery.KindUnavailable:
		return answered{lost: true}
	case d.Kind != delivery.KindConflict:
		return answered{wrong: err}
	case in.verb == "cancel":
		return answered{gate: "too late"}
	}
	// "it was promoted by operator at 12:00 UTC: p1-0": each click has a reason of its own.
	state, _, _ := strings.Cut(strings.TrimPrefix(d.Why, "it was "), " ")
	by := d.Why[strings.LastIndex(d.Why, ": ")+2:]
	return answered{gate: said(state, by)}
}

// ended waits until a build has ended or asks.
func (w *world) ended(number int64) (b api.BuildDetail, err error) {
	err = w.until("it has ended", func() (err error) {
		if b, err = w.api.Build(context.WithoutCancel(w.ctx), shop, number); err == nil && !b.Status.Final() {
			err = fmt.Errorf("it is %s: %s", b.Status, b.Reason)
		}
		return err
	})
	return b, err
}
