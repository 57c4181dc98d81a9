package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/shuntcd/shunt/internal/api"
	"github.com/shuntcd/shunt/internal/delivery"
)

// faultEvery is the time between two faults.
const faultEvery = 5 * time.Second

const soakPipeline = `version: 1
name: shop
jobs:
  build:
    steps: [{ run: 'sleep 0.3; cp text out.txt' }]
    artifacts: { app: out.txt }
publish:
  app: { files: true }
environments:
  qa:
    ephemeral: true
    up: 'echo "up $SHUNT_ENVIRONMENT_ID" >>@DIR@/envs'
    down: 'echo "down $SHUNT_ENVIRONMENT_ID" >>@DIR@/envs'
  production:
    needs: [qa]
    deploy: 'echo "$SHUNT_DEPLOY_ID $SHUNT_FENCE $SHUNT_COMMIT" >>@DIR@/deploys-$SHUNT_PROJECT; echo "$SHUNT_DEPLOY_ID" >@DIR@/live-$SHUNT_PROJECT; sleep 0.2'
    verify: 'test "$(cat @DIR@/live-$SHUNT_PROJECT)" = "$SHUNT_DEPLOY_ID"'
`

// soaking is one soak.
//
// In its first half everything dies, the server too. In the second the server of
// the end of the first lives on; there are no faults in its first and last fifth,
// whose samples are compared.
type soaking struct {
	*installation
	projects []string
	pushed   sync.Map // project + " " + commit -> true: git push has answered
	builds   atomic.Int64
	clicks   atomic.Int64
	faults   map[string]int
	paused   atomic.Bool // the people rest
}

func soak(ctx context.Context, t tools, database string, length time.Duration) error {
	in, err := t.install(ctx, "soak", "--poll", "1s", "--database", database)
	if err != nil {
		return err
	}
	defer in.end()
	s := &soaking{installation: in, projects: []string{"shop-a", "shop-b", "shop-c"}, faults: map[string]int{}}
	if _, err := s.start(); err != nil {
		return err
	}
	for _, p := range s.projects {
		if err := errors.Join(s.repository(p, soakPipeline), s.add(p)); err != nil {
			return err
		}
	}
	people, stop := context.WithCancel(ctx)
	defer stop()
	var wg sync.WaitGroup
	for _, p := range s.projects {
		wg.Go(func() { s.pushes(people, p) })
		wg.Go(func() { s.person(people, p) })
	}
	half := length / 2
	for end := time.Now().Add(half); time.Now().Before(end) && ctx.Err() == nil; {
		s.wait(faultEvery)
		if err := s.fault(rand.IntN(5)); err != nil {
			return err
		}
	}
	begin, err := s.quiet(half / 5)
	if err != nil {
		return err
	}
	for end := time.Now().Add(half * 3 / 5); time.Now().Before(end) && ctx.Err() == nil; {
		s.wait(faultEvery)
		if err := s.fault(1 + rand.IntN(4)); err != nil { // all but the server's death
			return err
		}
	}
	s.wait(faultEvery)
	last, err := s.quiet(half / 5)
	if err != nil {
		return err
	}
	s.paused.Store(true)
	bad := s.check()
	stop()
	wg.Wait()
	bad = append(bad, grown(begin, last)...)
	for _, b := range bad {
		fmt.Println("VIOLATION", b)
	}
	fmt.Printf("soak: %s, %d projects, %d builds, %d clicks, %d deployments; faults: %v\n", length, len(s.projects), s.builds.Load(), s.clicks.Load(), s.deployments(), s.faults)
	fmt.Printf("      at the beginning and at the end of the server's last %s:\n        %s\n        %s\n", half, begin, last)
	fmt.Printf("violations: %d\n", len(bad))
	if len(bad) > 0 {
		return errors.New("the soak found something")
	}
	return ctx.Err()
}

func (s *soaking) wait(d time.Duration) {
	select {
	case <-s.ctx.Done():
	case <-time.After(d):
	}
}

// fault does harm, and undoes what does not end by itself.
func (s *soaking) fault(n int) error {
	stopped := func(pid int, d time.Duration) {
		_ = syscall.Kill(pid, syscall.SIGSTOP)
		s.wait(d)
		_ = syscall.Kill(pid, syscall.SIGCONT)
	}
	name := []string{"server killed", "runner killed", "server stopped", "runner stopped", "git remote away"}[n]
	s.faults[name]++
	switch n {
	case 0:
		s.kill(syscall.SIGKILL)
		_, err := s.start()
		return err
	case 1:
		if pid := s.runner(); pid > 0 {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	case 2:
		stopped(int(s.pid.Load()), 3*time.Second)
	case 3:
		if pid := s.runner(); pid > 0 {
			stopped(pid, 2*time.Second)
		}
	case 4:
		bare := s.at(s.projects[rand.IntN(len(s.projects))] + ".git")
		if err := os.Rename(bare, bare+".away"); err != nil {
			return err
		}
		s.wait(3 * time.Second)
		return os.Rename(bare+".away", bare)
	}
	return nil
}

// pushes pushes commit after commit; a push that fails is repeated.
func (s *soaking) pushes(ctx context.Context, project string) {
	for n := 0; ctx.Err() == nil; n++ {
		if s.paused.Load() {
			return
		}
		commit, err := s.commit(project, fmt.Sprint(project, " change ", n))
		for err == nil && ctx.Err() == nil {
			if s.push(project) == nil {
				s.pushed.Store(project+" "+commit, true)
				break
			}
			time.Sleep(200 * time.Millisecond)
		}
		time.Sleep(time.Second + time.Duration(rand.IntN(2000))*time.Millisecond)
	}
}

// person decides whatever waits, and looks after what has stopped.
func (s *soaking) person(ctx context.Context, project string) {
	for ctx.Err() == nil {
		time.Sleep(300 * time.Millisecond)
		list, err := s.api.Builds(ctx, project, api.BuildFilter{Status: "open", Limit: 200})
		if err != nil {
			continue
		}
		for _, b := range list {
			switch b.Status {
			case delivery.BuildWaiting:
				if b.Gate == "" {
					continue // for the environment
				}
				_, err = s.api.Decide(ctx, project, b.Number, api.Decide{Promote: rand.IntN(4) > 0, Reason: "soaked"})
				if delivery.IsKind(err, delivery.KindRefused) { // it lacks what is in production
					_, err = s.api.Decide(ctx, project, b.Number, api.Decide{Reason: "too old"})
				}
			case delivery.BuildStopped:
				err = s.resolve(ctx, project, b.Number)
			default:
				continue
			}
			if err == nil {
				s.clicks.Add(1)
			}
		}
	}
}

// resolve looks at the target where nobody knows, and tries again.
func (s *soaking) resolve(ctx context.Context, project string, number int64) error {
	b, err := s.api.Build(ctx, project, number)
	if err != nil {
		return err
	}
	action := "retry"
	for _, d := range b.Deployments {
		if d.State != delivery.DeploymentUnknown {
			continue
		}
		action = "confirm-not-live"
		if live := s.lines("live-" + project); len(live) > 0 && live[0] == d.ID {
			action = "confirm-live"
		}
	}
	_, err = s.api.Resolve(ctx, project, number, api.Resolve{Action: action, Reason: "looked"})
	return err
}
