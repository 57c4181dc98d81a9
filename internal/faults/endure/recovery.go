package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/shuntcd/shunt/internal/api"
	"github.com/shuntcd/shunt/internal/delivery"
	"github.com/shuntcd/shunt/internal/testkit/pg"
)

// The job of this pipeline says that it began, and waits until it may go on.
const slowPipeline = `version: 1
name: shop
jobs:
  build:
    steps: [{ run: 'echo begun >>@DIR@/begun; while [ ! -e @DIR@/go ]; do sleep 0.02; done; cp text out.txt' }]
    artifacts: { app: out.txt }
environments:
  production: { deploy: 'echo "$SHUNT_DEPLOY_ID" >>@DIR@/deploys' }
`

const shop = "shop"

// recovery prints what is measured, one line each, with its goal.
func recovery(ctx context.Context, t tools) error {
	late := 0
	say := func(what string, took, goal time.Duration, more string) {
		mark := "ok  "
		if took > goal {
			mark, late = "LATE", late+1
		}
		fmt.Printf("%s  %-62s %6.2f s (at most %.0f s)  %s\n", mark, what, took.Seconds(), goal.Seconds(), more)
	}
	for _, measure := range []func(context.Context, tools, func(string, time.Duration, time.Duration, string)) error{tenThousand, sameMachine, polled, databaseDies, serverDies} {
		if err := measure(ctx, t, say); err != nil {
			return err
		}
	}
	fmt.Println("      a build of a dead server, on SQLite: not possible, one server owns a SQLite file; it is driven on when that server is back")
	if late > 0 {
		return fmt.Errorf("%d figures are above their goal", late)
	}
	return nil
}

type report = func(what string, took, goal time.Duration, more string)

// tenThousand: kill -9 of a server with 10,000 stored builds.
func tenThousand(ctx context.Context, t tools, say report) error {
	in, err := t.install(ctx, "stored")
	if err != nil {
		return err
	}
	defer in.end()
	if err := fill(ctx, filepath.Join(in.data, "shunt.db"), 50, 200); err != nil {
		return err
	}
	if _, err := in.start(); err != nil {
		return err
	}
	var worst time.Duration
	for range 3 {
		in.kill(syscall.SIGKILL)
		took, err := in.start()
		if err != nil {
			return err
		}
		worst = max(worst, took)
	}
	projects, err := in.api.Projects(ctx)
	if err != nil || len(projects) != 50 {
		return fmt.Errorf("%d projects are there: %w", len(projects), err)
	}
	say("server ready after kill -9, 10,000 builds stored", worst, 2*time.Second, "the slowest of 3")
	return nil
}

// slow is an installation whose job runs.
func (t tools) slow(ctx context.Context, name string, flags ...string) (*installation, error) {
	in, err := t.install(ctx, name, append([]string{"--poll", "1s"}, flags...)...)
	if err != nil {
		return nil, err
	}
	_, err = in.start()
	if err == nil {
		err = errors.Join(in.repository(shop, slowPipeline), in.add(shop))
	}
	if err == nil {
		_, err = in.commit(shop, "one")
	}
	if err == nil {
		err = errors.Join(in.push(shop), in.begun(1))
	}
	if err != nil {
		in.end()
	}
	return in, err
}

// begun waits until the job has been started so many times.
func (in *installation) begun(times int) error {
	return in.until(fmt.Sprintf("the job has begun %d times", times), func() error {
		if n := len(in.lines("begun")); n != times {
			return fmt.Errorf("it has begun %d times", n)
		}
		return nil
	})
}

func (in *installation) build(test func(b api.BuildDetail) bool) (b api.BuildDetail, err error) {
	return b, in.until("build 1 is as it should be", func() (err error) {
		if b, err = in.api.Build(in.ctx, shop, 1); err == nil && !test(b) {
			err = fmt.Errorf("it is %s: %s", b.Status, b.Reason)
		}
		return err
	})
}

// ship lets the job end and puts the build into production. The job was started so
// many times, and the build is deployed once.
func (in *installation) ship(times int) error {
	if err := os.WriteFile(in.at("go"), nil, 0o600); err != nil {
		return err
	}
	if _, err := in.build(func(b api.BuildDetail) bool { return b.Status == delivery.BuildWaiting }); err != nil {
		return err
	}
	if _, err := in.api.Decide(in.ctx, shop, 1, api.Decide{Promote: true}); err != nil {
		return err
	}
	if _, err := in.build(func(b api.BuildDetail) bool { return b.Status == delivery.BuildSucceeded }); err != nil {
		return err
	}
	if n := len(in.lines("deploys")); n != 1 {
		return fmt.Errorf("it was deployed %d times", n)
	}
	return in.begun(times)
}

// sameMachine: the server dies while a job runs, then the runner.
func sameMachine(ctx context.Context, t tools, say report) error {
	in, err := t.slow(ctx, "job")
	if err != nil {
		return err
	}
	defer in.end()
	before, err := in.build(func(b api.BuildDetail) bool { return b.DrivenBy != "" })
	if err != nil {
		return err
	}
	died := time.Now()
	in.kill(syscall.SIGKILL)
	if _, err := in.start(); err != nil {
		return err
	}
	if _, err := in.build(func(b api.BuildDetail) bool { return b.DrivenBy != "" && b.DrivenBy != before.DrivenBy }); err != nil {
		return err
	}
	took := time.Since(died)
	if err := in.begun(1); err != nil {
		return err
	}
	say("a running job survives kill -9 of the server, its build is driven on", took, 8*time.Second, "")

	died = time.Now()
	_ = syscall.Kill(in.runner(), syscall.SIGKILL)
	if _, err := in.build(func(b api.BuildDetail) bool {
		return len(b.Nodes[0].Attempts) > 1 && b.Nodes[0].Attempts[0].State == delivery.AttemptLost
	}); err != nil {
		return err
	}
	took = time.Since(died)
	if err := in.begun(2); err != nil {
		return err
	}
	jobs := 0
	for _, line := range processes("SHUNT_RUNNER=" + filepath.Join(in.data, "runner")) {
		if strings.Contains(line, "echo begun") {
			jobs++
		}
	}
	if jobs != 1 {
		return fmt.Errorf("%d processes of the job are there, of which one should be", jobs)
	}
	say("the runner's death is shown, and no orphan is left", took, 10*time.Second, "")

	// The result of a job that ends while no server is there is adopted.
	in.kill(syscall.SIGKILL)
	if err := os.WriteFile(in.at("go"), nil, 0o600); err != nil {
		return err
	}
	time.Sleep(500 * time.Millisecond) // it ends meanwhile
	died = time.Now()
	if _, err := in.start(); err != nil {
		return err
	}
	if _, err := in.build(func(b api.BuildDetail) bool { return b.Status == delivery.BuildWaiting }); err != nil {
		return err
	}
	say("the result of a job that ended without a server is adopted", time.Since(died), 8*time.Second, "from the start of the server to the open gate")
	return in.ship(2)
}

// polled: a push whose webhook was lost.
func polled(ctx context.Context, t tools, say report) error {
	const poll = 2 * time.Second
	in, err := t.slow(ctx, "webhook", "--poll", poll.String())
	if err != nil {
		return err
	}
	defer in.end()
	commit, err := in.commit(shop, "two")
	if err != nil {
		return err
	}
	pushed := time.Now()
	if err := in.push(shop); err != nil {
		return err
	}
	err = in.until("the push is found", func() error {
		list, err := in.api.Builds(ctx, shop, api.BuildFilter{Commit: commit, Limit: 1})
		if err == nil && len(list) == 0 {
			err = errors.New("there is no build")
		}
		return err
	})
	say("a push whose webhook was lost is found", time.Since(pushed), poll+2*time.Second, "polled every 2 s, with a tenth of jitter; the loop looks once a second")
	return err
}

// databaseDies: PostgreSQL crashes and is started again while a job runs.
func databaseDies(ctx context.Context, t tools, say report) error {
	server, url, err := database(ctx)
	if err != nil {
		return err
	}
	defer server.Stop()
	in, err := t.slow(ctx, "postgres", "--database", url)
	if err != nil {
		return err
	}
	defer in.end()
	server.Kill()
	if err := os.WriteFile(in.at("go"), nil, 0o600); err != nil { // the job ends meanwhile
		return err
	}
	time.Sleep(3 * time.Second)
	if err := server.Run(); err != nil {
		return err
	}
	back := time.Now()
	if _, err := in.build(func(b api.BuildDetail) bool { return b.Status == delivery.BuildWaiting }); err != nil {
		return err
	}
	say("PostgreSQL was killed and is back: what ended meanwhile is adopted", time.Since(back), 10*time.Second, "until the gate is open")
	return in.ship(1)
}

func database(ctx context.Context) (*pg.Server, string, error) {
	server, err := pg.Start()
	if err != nil {
		return nil, "", err
	}
	url, err := server.Database(ctx)
	return server, url, err
}

// serverDies: one of two servers on one PostgreSQL dies while its job runs.
func serverDies(ctx context.Context, t tools, say report) error {
	server, url, err := database(ctx)
	if err != nil {
		return err
	}
	defer server.Stop()
	shared := filepath.Join(t.dir, "shared")
	flags := func(in *installation) []string { // the port after this one's: it is free on an address of its own
		host, _, _ := strings.Cut(in.address, ":")
		return []string{"--database", url, "--shared", shared, "--cluster", host + ":7443"}
	}
	if err := os.MkdirAll(shared, 0o700); err != nil {
		return err
	}
	one, err := t.install(ctx, "one")
	if err != nil {
		return err
	}
	one.flags = append(flags(one), "--poll", "1s")
	defer one.end()
	if _, err := one.start(); err != nil {
		return err
	}
	two, err := t.install(ctx, "two")
	if err != nil {
		return err
	}
	two.flags = append(flags(two), "--poll", "1s")
	defer two.end()
	key, err := os.ReadFile(filepath.Join(one.data, "secret.key"))
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(two.data, "secret.key"), key, 0o600); err != nil {
		return err
	}
	// The first makes the build before the second is there.
	err = errors.Join(one.repository(shop, slowPipeline), one.add(shop))
	if err == nil {
		_, err = one.commit(shop, "one")
	}
	if err == nil {
		err = errors.Join(one.push(shop), one.begun(1))
	}
	if err != nil {
		return err
	}
	if _, err := two.start(); err != nil {
		return err
	}
	linked := func(from *installation) error {
		return from.until("two hears the runner of one", func() error {
			id, err := os.ReadFile(filepath.Join(one.data, "instance"))
			log, read := os.ReadFile(from.at("server.log"))
			if err = errors.Join(err, read); err == nil && !strings.Contains(string(log), "a runner is linked\" runner="+strings.TrimSpace(string(id))) {
				err = errors.New("not yet")
			}
			return err
		})
	}
	if err := linked(two); err != nil {
		return err
	}
	b, err := one.build(func(b api.BuildDetail) bool { return b.DrivenBy != "" })
	if err != nil {
		return err
	}
	died := time.Now()
	one.kill(syscall.SIGKILL)
	two.dir = one.dir // whose files the job writes
	if _, err := two.build(func(now api.BuildDetail) bool { return now.DrivenBy != "" && now.DrivenBy != b.DrivenBy }); err != nil {
		return err
	}
	say("the build of a dead server is driven on by another, on PostgreSQL", time.Since(died), 8*time.Second, "its job runs on and is adopted")
	return two.ship(1)
}
