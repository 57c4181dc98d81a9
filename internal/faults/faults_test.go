// Package faults plays the demo's story with a fault at every failpoint: the
// server is killed, answers an error, or stalls there, and the story must end the
// same way. The demo checks every claim itself, from outside the server: the
// deploy target's journal, the bare repository, the published bytes, the mails,
// the environments that must be gone.
//
// The disk's sweeps play the same story below the program: the data directory of
// the real binary is a disk of testkit/disk, on which the server is killed at its
// n-th call, a call is refused, or the power is cut. What the disk holds at the
// end is checked as well. A world is the demo with --serve, for faults that last
// for a while: a full disk, a slow one, flipped bits, no more files.
//
//	go test ./internal/faults                     the core: each point once, a sample of the sweeps
//	go test ./internal/faults -faults all         each point, each fault, first and later pass
//	go test ./internal/faults -points deploy,tag  some points
//	go test ./internal/faults -run Disk -sweep kill,power -ops 50 -seed 7
//	go test ./internal/faults -run WhateverTheDisk -deed server.sync=kill@17/ordered/0
package faults

import (
	"bytes"
	"context"
	"flag"
	"fmt"
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
)

var (
	faults = flag.String("faults", "core", "core or all")
	points = flag.String("points", "", "effects or points to play, with commas; empty: all")
	seed   = flag.Uint64("seed", 1, "which faults the core takes, and the order")
)

// run is one story with one fault.
type run struct {
	point, fault string
	at           int // the fault happens at this pass of the point
}

func (r run) String() string { return fmt.Sprintf("%s=%s@%d", r.point, r.fault, r.at) }

func TestTheStoryEndsTheSameWithAFaultAtEveryPoint(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("takes two minutes")
	}
	bin := filepath.Join(t.TempDir(), "shunt")
	build := exec.CommandContext(t.Context(), "go", "build", "-tags", "failpoints", "-o", bin, "../../cmd/shunt")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Log("seed", *seed)
	reached := passes(t, bin)
	for _, name := range failpoint.Names() {
		if reached[name] == 0 {
			t.Errorf("failpoint %s is never reached by the story", name)
		}
	}
	runs := choose(reached)
	var violations, fired atomic.Int64
	next := make(chan run)
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for r := range next {
				hit, err := play(t, bin, r)
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
	fmt.Printf("faults: %d points of %d effects, %d stories, %d faults fired, seed %d\nviolations: %d\n", len(failpoint.Names()), len(failpoint.Effects()), len(runs), fired.Load(), *seed, violations.Load())
}

// choose picks the stories to play. The core kills at each point, at its first or
// a later pass, and now and then answers an error or stalls instead.
func choose(reached map[string]int) (runs []run) {
	rnd := rand.New(rand.NewPCG(*seed, 0))
	names := failpoint.Names()
	slices.Sort(names)
	for _, name := range names {
		effect, _, _ := strings.Cut(name, ".")
		if only := strings.Split(*points, ","); *points != "" && !slices.Contains(only, name) && !slices.Contains(only, effect) {
			continue
		}
		later := 1 + rnd.IntN(max(1, reached[name]))
		if *faults != "all" {
			fault := []string{"kill", "kill", "kill", "error"}[rnd.IntN(4)]
			if fault == "error" && answersAPerson(effect) {
				fault = "stall"
			}
			runs = append(runs, run{name, fault, later})
			continue
		}
		for _, fault := range []string{"kill", "error", "stall"} {
			if fault == "error" && answersAPerson(effect) {
				continue
			}
			runs = append(runs, run{name, fault, 1})
			if later > 1 {
				runs = append(runs, run{name, fault, later})
			}
		}
	}
	rnd.Shuffle(len(runs), func(i, j int) { runs[i], runs[j] = runs[j], runs[i] })
	return runs
}

// answersAPerson tells whether a person waits for this effect's answer, in a push
// or a click: an error there is an honest error before their eyes, on which the
// demo's person stops; nothing is lost by it.
func answersAPerson(effect string) bool {
	return effect == "hook" || effect == "sync" || effect == "create_build"
}

// passes plays the story without a fault and counts how often each point is passed.
func passes(t *testing.T, bin string) map[string]int {
	t.Helper()
	marks := t.TempDir()
	if out, err := demo(t, bin, nil, "FAILPOINT_DIR="+marks); err != nil {
		t.Fatalf("the story without a fault: %v\n%s", err, out)
	}
	reached := map[string]int{}
	for _, name := range failpoint.Names() {
		if info, err := os.Stat(filepath.Join(marks, name)); err == nil {
			reached[name] = int(info.Size())
		}
	}
	return reached
}

// play plays the story with one fault. hit tells whether the fault happened:
// when threads run in another order, a later pass may not come.
func play(t *testing.T, bin string, r run) (hit bool, err error) {
	t.Helper()
	marks, err := os.MkdirTemp("", "shunt-marks-") //nolint:usetesting // removed with its story, not with the suite
	if err != nil {
		return false, err
	}
	defer os.RemoveAll(marks)
	out, err := demo(t, bin, nil, "FAILPOINT_DIR="+marks, "FAILPOINT="+r.String())
	_, missed := os.Stat(filepath.Join(marks, "fired"))
	if err != nil {
		return missed == nil, fmt.Errorf("%w\n%s", err, out)
	}
	return missed == nil, nil
}

// demo plays the demo's story in a folder of its own.
func demo(t *testing.T, bin string, args []string, env ...string) ([]byte, error) {
	t.Helper()
	dir, err := os.MkdirTemp("", "shunt-faults-") //nolint:usetesting // kept when the story fails
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, bin, append([]string{"demo", "--auto", "--port", "0", "--dir", filepath.Join(dir, "demo")}, args...)...)
	cmd.Env = append(os.Environ(), env...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGINT) }
	cmd.WaitDelay = 30 * time.Second
	err = cmd.Run()
	log, _ := os.ReadFile(filepath.Join(dir, "demo", "server.log"))
	if err == nil {
		err = os.RemoveAll(dir)
	} else {
		out.WriteString("server.log:\n")
		out.Write(log[max(0, len(log)-8000):])
	}
	return out.Bytes(), err
}
