package disk

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shuntcd/shunt/internal/testkit/disk"
)

var (
	ops     = flag.Int("ops", 0, "stories for each of the disk's sweeps; 0: by -faults; -1: every op of the story, which takes hours")
	onlyOps = flag.String("deed", "", "one fault of the disk to play, as it is printed: server.sync=kill@17/ordered/0")
	only    = flag.String("sweep", "", "the disk's sweeps to play, with commas; empty: all")
	part    = flag.String("part", "1/1", "which of how many parts of the stories to play, such as 3/20: all parts with one seed are all stories")
	lanes   = flag.Int("lanes", 4, "stories of the disk's sweeps that are played at once")
)

// sweep is a family of deeds.
type sweep struct {
	name   string
	who    []string
	kinds  []disk.Kind
	faults []string
	models []disk.Model
	core   int // stories in the short run
	all    int // stories in the long run
}

// sweeps are what a disk does to a server: it dies at its n-th call, before the
// call or after it; the call is refused; the power goes.
func sweeps() []sweep {
	calls := []disk.Kind{disk.Sync, disk.Write, disk.Rename, disk.Unlink, disk.Create, disk.Truncate}
	return []sweep{
		{"kill", []string{"server"}, calls, []string{"kill", "kill-after"}, []disk.Model{disk.Ordered}, 3, 120},
		{"kill-runner", []string{"runner"}, calls, []string{"kill", "kill-after"}, []disk.Model{disk.Ordered}, 1, 40},
		{"error", []string{"server", "runner"}, calls, []string{"EIO", "ENOSPC"}, []disk.Model{disk.Ordered}, 1, 60},
		{"error-sync", []string{"server"}, []disk.Kind{disk.Sync}, []string{"EIO"}, []disk.Model{disk.Ordered}, 1, 20},
		{"power", []string{"any"}, []disk.Kind{""}, []string{"cut"}, []disk.Model{disk.Ordered, disk.Harsh}, 2, 60},
		{"power-at-sync", []string{"any"}, []disk.Kind{disk.Sync, disk.Rename}, []string{"cut", "cut-after"}, []disk.Model{disk.Ordered, disk.Harsh}, 2, 60},
	}
}

// deeds picks which ops of the story the sweep hits. All kinds of calls get
// their share, however rare they are.
func (s sweep) deeds(counts map[string]int, rnd *rand.Rand) (list []deed) {
	n := s.core
	if *faults == "all" {
		n = s.all
	}
	if *ops > 0 {
		n = *ops
	}
	families := make([][]deed, 0, 16)
	for _, who := range s.who {
		for _, kind := range s.kinds {
			var family []deed
			for at := 1; at <= counts[who+"."+string(kind)]; at++ {
				family = append(family, deed{who: who, kind: kind, n: at})
			}
			rnd.Shuffle(len(family), func(i, j int) { family[i], family[j] = family[j], family[i] })
			families = append(families, family)
		}
	}
	rnd.Shuffle(len(families), func(i, j int) { families[i], families[j] = families[j], families[i] })
	for more := true; more; {
		more = false
		for i, family := range families {
			if len(family) == 0 || *ops >= 0 && len(list) == n {
				continue
			}
			d := family[0]
			families[i], more = family[1:], true
			d.fault, d.model, d.seed = s.faults[rnd.IntN(len(s.faults))], s.models[rnd.IntN(len(s.models))], uint64(rnd.IntN(1000))
			list = append(list, d)
		}
	}
	return list
}

func parseDeed(text string) (d deed, err error) {
	var model string
	text = strings.NewReplacer(".", " ", "=", " ", "@", " ", "/", " ").Replace(text)
	_, err = fmt.Sscanf(text, "%s %s %s %d %s %d", &d.who, &d.kind, &d.fault, &d.n, &model, &d.seed)
	if d.kind == anyCall {
		d.kind = ""
	}
	if i := slices.Index([]string{disk.Ordered.String(), disk.Harsh.String()}, model); i >= 0 {
		d.model = disk.Model(i)
	} else {
		err = errors.Join(err, fmt.Errorf("there is no model %q", model))
	}
	return d, err
}

// tally counts what a sweep did.
type tally struct{ stories, fired, stopped, violations atomic.Int64 }

func TestTheStoryEndsTheSameWhateverTheDiskDoes(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("takes a minute")
	}
	bin := program(t)
	counts := countOps(t, bin)
	rnd := rand.New(rand.NewPCG(*seed, 2))
	type task struct {
		deed
		*tally
	}
	var tasks []task
	report := map[string]*tally{}
	for _, s := range sweeps() {
		if *only != "" && !slices.Contains(strings.Split(*only, ","), s.name) {
			continue
		}
		report[s.name] = &tally{}
		for _, d := range s.deeds(counts, rnd) {
			tasks = append(tasks, task{d, report[s.name]})
		}
	}
	if *onlyOps != "" {
		d, err := parseDeed(*onlyOps)
		if err != nil {
			t.Fatal(err)
		}
		report = map[string]*tally{"deed": {}}
		tasks = []task{{d, report["deed"]}}
	}
	var nth, of int
	if _, err := fmt.Sscanf(*part, "%d/%d", &nth, &of); err != nil || nth < 1 || of < nth {
		t.Fatalf("-part %s: want such as 3/20", *part)
	}
	next := make(chan task)
	var wg sync.WaitGroup
	for range *lanes {
		wg.Go(func() {
			for k := range next {
				fired, stopped, err := hurt(t, bin, k.deed)
				k.stories.Add(1)
				if fired {
					k.fired.Add(1)
				}
				if stopped {
					k.stopped.Add(1)
				}
				if err != nil {
					k.violations.Add(1)
					t.Errorf("%s: %v", k.deed, err)
				}
			}
		})
	}
	for i := nth - 1; i < len(tasks); i += of {
		next <- tasks[i]
	}
	close(next)
	wg.Wait()
	fmt.Printf("disk: the story does %s; seed %d\n", words(counts), *seed)
	for _, s := range append(sweeps(), sweep{name: "deed"}) {
		if r := report[s.name]; r != nil {
			fmt.Printf("disk %-14s %4d stories, %4d faults fired, %d stopped in words, violations: %d\n", s.name, r.stories.Load(), r.fired.Load(), r.stopped.Load(), r.violations.Load())
		}
	}
}

func words(counts map[string]int) string {
	var parts []string
	for _, who := range []string{"server", "runner", "any"} {
		parts = append(parts, fmt.Sprintf("%d ops by %s (%d syncs, %d writes, %d renames, %d unlinks)", counts[who+"."], who, counts[who+".sync"], counts[who+".write"], counts[who+".rename"], counts[who+".unlink"]))
	}
	return strings.Join(parts, ", ")
}

// countOps plays the story without a fault.
func countOps(t *testing.T, bin string) map[string]int {
	t.Helper()
	m, err := newMachine(t, deed{})
	if errors.Is(err, disk.ErrCannot) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer m.close()
	if _, err := m.story(t.Context(), bin); err != nil {
		t.Fatalf("the story without a fault: %v", err)
	}
	return m.counts
}

// hurt plays the story with one fault of the disk.
func hurt(t *testing.T, bin string, d deed) (fired, stopped bool, err error) {
	t.Helper()
	m, err := newMachine(t, d)
	if err != nil {
		return false, false, err
	}
	defer func() { err = errors.Join(err, m.close()) }()
	began := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	stopped, err = m.story(ctx, bin)
	t.Logf("%s: %s (%.1fs)", d, m.fired, time.Since(began).Seconds())
	return m.fired != "", stopped, err
}
