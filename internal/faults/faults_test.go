// Package faults plays two stories with a fault at every failpoint: the server is
// killed, answers an error, or stalls there, and the story must end the same way.
// The first is the demo's, which checks every claim itself, from outside the
// server: the deploy target's journal, the bare repository, the published bytes,
// the mails, the environments that must be gone. The second walks where that one
// does not (see detours_test.go). Both are played on SQLite and on PostgreSQL.
//
//	go test ./internal/faults                         the core: a sample of the points
//	go test ./internal/faults -faults all             each point, each fault
//	go test ./internal/faults -points deploy,tag      some effects or points
//	go test ./internal/faults -database both -seed 7 -seeds 3
//	go test ./internal/faults -play 'tag.before_record=kill@2' -database postgres
package faults

import (
	"bytes"
	"cmp"
	"context"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/shuntcd/shunt/internal/failpoint"
	"github.com/shuntcd/shunt/internal/testkit/pg"
)

var (
	faults   = flag.String("faults", "core", "core or all")
	points   = flag.String("points", "", "effects or points to play, with commas; empty: all")
	database = flag.String("database", "both", "sqlite, postgres or both")
	seed     = flag.Uint64("seed", 1, "which passes, and which faults the core takes")
	seeds    = flag.Uint64("seeds", 1, "how many seeds to play, from -seed on")
	replay   = flag.String("play", "", "one story again, as a failure names it: point=fault@pass")
)

// run is one story with one fault.
type run struct {
	story, database string
	point, fault    string
	at              int // the fault happens at this pass of the point
}

func (r run) String() string {
	return fmt.Sprintf("%s=%s@%d (%s, %s)", r.point, r.fault, r.at, r.story, r.database)
}

// stories are what is played, by name.
func stories() map[string]func(suite, context.Context, string, string, []string) error {
	return map[string]func(suite, context.Context, string, string, []string) error{"demo": suite.demo, "detours": suite.detours}
}

// suite is what all stories share.
type suite struct {
	bin      string
	postgres *pg.Server
}

func TestTheStoryEndsTheSameWithAFaultAtEveryPoint(t *testing.T) {
	if testing.Short() {
		t.Skip("takes two minutes")
	}
	t.Parallel()
	s := suite{bin: program(t)}
	databases := []string{"sqlite", "postgres"}
	if *database != "both" {
		databases = []string{*database}
	}
	if slices.Contains(databases, "postgres") {
		if pg.Available() == "" && os.Getenv("CI") == "" && *database == "both" {
			t.Log("PostgreSQL is not installed: only SQLite is played")
			databases = databases[:1]
		} else {
			server, err := pg.Start()
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(server.Stop)
			s.postgres = server
		}
	}
	reached := s.passes(t)
	for _, name := range failpoint.Names() {
		if reached["demo"][name]+reached["detours"][name] == 0 {
			t.Errorf("failpoint %s is reached by no story", name)
		}
	}
	var runs []run
	for n := range *seeds {
		rnd := rand.New(rand.NewPCG(*seed+n, 0))
		runs = append(runs, choose(rnd, databases, reached)...)
	}
	var violations, fired atomic.Int64
	next := make(chan run)
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for r := range next {
				hit, err := s.play(t.Context(), r)
				if hit {
					fired.Add(1)
				}
				if err != nil {
					violations.Add(1)
					t.Errorf("%s: %v", r, err)
				}
			}
		})
	}
	for _, r := range runs {
		next <- r
	}
	close(next)
	wg.Wait()
	fmt.Printf("faults: %d points of %d effects, %d stories on %s, %d faults fired, seeds %d to %d\nviolations: %d\n",
		len(failpoint.Names()), len(failpoint.Effects()), len(runs), strings.Join(databases, " and "), fired.Load(), *seed, *seed+*seeds-1, violations.Load())
}

// program builds the binary under test, once.
func program(t *testing.T) string {
	t.Helper()
	bin, err := built()
	if err != nil {
		t.Fatal(err)
	}
	return bin
}

var (
	buildDir string // TestMain removes it
	built    = sync.OnceValues(func() (string, error) {
		bin := filepath.Join(buildDir, "shunt")
		out, err := exec.Command("go", "build", "-tags", "failpoints", "-o", bin, "../../cmd/shunt").CombinedOutput()
		if err != nil {
			err = fmt.Errorf("%w\n%s", err, out)
		}
		return bin, err
	})
)

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(func() int {
		var err error
		if buildDir, err = os.MkdirTemp("", "shunt-faults-bin-"); err != nil {
			panic(err)
		}
		defer os.RemoveAll(buildDir)
		return m.Run()
	}())
}

// choose picks the stories to play. The core takes of each effect one point or two
// on the first database, and of one effect of four a point on the other; all takes
// every fault at every point on the first, and one fault at every point on the other.
// Where it picks, it mostly kills: that is the worst.
func choose(rnd *rand.Rand, databases []string, reached map[string]map[string]int) (runs []run) {
	one := func(name, database, fault string) run {
		effect, _, _ := strings.Cut(name, ".")
		r := run{story: "demo", database: database, point: name, fault: fault}
		if reached["demo"][name] == 0 || reached["detours"][name] > 0 && rnd.IntN(3) == 0 {
			r.story = "detours"
		}
		if fault == "" {
			r.fault = []string{"kill", "kill", "kill", "error", "stall"}[rnd.IntN(5)]
		}
		if r.fault == "error" && r.story == "demo" && answersAPerson(effect) {
			r.fault = "stall"
		}
		r.at = 1 + rnd.IntN(max(1, reached[r.story][name]))
		return r
	}
	if point, fault, ok := strings.Cut(*replay, "="); ok {
		fault, at, _ := strings.Cut(fault, "@")
		for _, database := range databases {
			for story := range stories() {
				r := run{story: story, database: database, point: point, fault: fault}
				if _, err := fmt.Sscan(cmp.Or(at, "1"), &r.at); err == nil && reached[story][point] > 0 {
					runs = append(runs, r)
				}
			}
		}
		return runs
	}
	effects := failpoint.Effects()
	for _, effect := range slices.Sorted(maps.Keys(effects)) {
		positions := effects[effect]
		for i, position := range positions {
			name := effect + "." + position
			if only := strings.Split(*points, ","); *points != "" && !slices.Contains(only, name) && !slices.Contains(only, effect) {
				continue
			}
			for _, database := range databases {
				sampled := *faults != "all" && *points == ""
				switch {
				case sampled && database != databases[0] && rnd.IntN(4*len(positions)) > 0:
				case sampled && database == databases[0] && i != rnd.IntN(len(positions)) && rnd.IntN(10) > 0:
				case *faults == "all" && database == databases[0]:
					runs = append(runs, one(name, database, "kill"), one(name, database, "error"), one(name, database, "stall"))
				default:
					runs = append(runs, one(name, database, ""))
				}
			}
		}
	}
	return runs
}

// answersAPerson tells whether a person waits for this effect's answer, in a push
// or a click: an error there is an honest error before their eyes, on which the
// demo's person stops; nothing is lost by it. The person of the detours goes on.
func answersAPerson(effect string) bool {
	return slices.Contains([]string{"hook", "sync", "create_build", "promote", "back_merge", "migrate"}, effect)
}

// passes plays the stories without a fault and counts how often each point is passed.
func (s suite) passes(t *testing.T) map[string]map[string]int {
	t.Helper()
	reached := map[string]map[string]int{}
	var wg sync.WaitGroup
	for story := range stories() {
		marks, passed := t.TempDir(), map[string]int{}
		reached[story] = passed
		wg.Go(func() {
			if err := s.tell(t.Context(), story, "sqlite", "FAILPOINT_DIR="+marks); err != nil {
				t.Errorf("%s without a fault: %v", story, err)
			}
			for _, name := range failpoint.Names() {
				if info, err := os.Stat(filepath.Join(marks, name)); err == nil {
					passed[name] = int(info.Size())
				}
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
	return reached
}

// play plays a story with one fault. hit tells whether the fault happened: when
// threads run in another order, a later pass may not come.
func (s suite) play(ctx context.Context, r run) (hit bool, err error) {
	marks, err := os.MkdirTemp("", "shunt-marks-")
	if err != nil {
		return false, err
	}
	defer os.RemoveAll(marks)
	err = s.tell(ctx, r.story, r.database, "FAILPOINT_DIR="+marks, fmt.Sprintf("FAILPOINT=%s=%s@%d", r.point, r.fault, r.at))
	_, missed := os.Stat(filepath.Join(marks, "fired"))
	return missed == nil, err
}

// tell plays a story in a folder and a database of its own.
func (s suite) tell(ctx context.Context, story, database string, env ...string) error {
	dir, err := os.MkdirTemp("", "shunt-faults-")
	if err != nil {
		return err
	}
	url := ""
	if database == "postgres" {
		var drop func() error
		if url, drop, err = s.postgres.Temporary(ctx); err != nil {
			return err
		}
		defer drop()
	}
	ctx, cancel := context.WithTimeout(ctx, 6*time.Minute)
	defer cancel()
	err = stories()[story](s, ctx, dir, url, env)
	if err == nil {
		return os.RemoveAll(dir)
	}
	return err // the folder is kept
}

// demo plays the demo's story.
func (s suite) demo(ctx context.Context, dir, database string, env []string) error {
	cmd := exec.CommandContext(ctx, s.bin, "demo", "--auto", "--port", "0", "--dir", filepath.Join(dir, "demo"), "--database", database)
	cmd.Env = append(os.Environ(), env...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGINT) }
	cmd.WaitDelay = 30 * time.Second
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%w\n%s%s", err, out.Bytes(), logOf(filepath.Join(dir, "demo", "server.log")))
	}
	return nil
}

// logOf is the end of a server's log.
func logOf(file string) string {
	log, _ := os.ReadFile(file)
	return "server.log:\n" + string(log[max(0, len(log)-8000):])
}
