package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/shuntcd/shunt/internal/api"
	"github.com/shuntcd/shunt/internal/delivery"
)

// sample is what a server holds: medians of some samples.
type sample struct{ rss, files, threads, goroutines int } // rss in KiB

func (s sample) String() string {
	return fmt.Sprintf("memory %d MiB, descriptors %d, threads %d, goroutines %d", s.rss>>10, s.files, s.threads, s.goroutines)
}

// quiet lets builds flow for a while without a fault, and samples each second.
func (s *soaking) quiet(d time.Duration) (sample, error) {
	pid, end := s.pid.Load(), time.Now().Add(d)
	var rss, files, threads, goroutines []int
	for len(rss) == 0 || time.Now().Before(end) && s.ctx.Err() == nil {
		s.wait(time.Second)
		proc := fmt.Sprintf("/proc/%d/", pid)
		status, err := os.ReadFile(proc + "status")
		if err != nil {
			return sample{}, fmt.Errorf("the server ended by itself: %w", err)
		}
		open, _ := os.ReadDir(proc + "fd")
		count, _ := os.ReadFile(s.at("goroutines"))
		n, _ := strconv.Atoi(string(count))
		rss, files, threads, goroutines = append(rss, field(status, "VmRSS:")), append(files, len(open)), append(threads, field(status, "Threads:")), append(goroutines, n)
	}
	return sample{median(rss), median(files), median(threads), median(goroutines)}, nil
}

func field(status []byte, name string) (n int) {
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, name); ok {
			_, _ = fmt.Sscan(rest, &n)
		}
	}
	return n
}

func median(list []int) int {
	slices.Sort(list)
	return list[len(list)/2]
}

// grown tells what is not flat. Builds come and go while it is sampled, so that
// some room is left: a quarter, and what a handful of builds hold.
func grown(begin, end sample) (bad []string) {
	for _, x := range []struct {
		what              string
		begin, end, extra int
	}{
		{"memory in KiB", begin.rss, end.rss, 16 << 10},
		{"descriptors", begin.files, end.files, 20},
		{"threads", begin.threads, end.threads, 8},
		{"goroutines", begin.goroutines, end.goroutines, 40},
	} {
		if x.end > x.begin+x.begin/4+x.extra {
			bad = append(bad, fmt.Sprintf("%s grew from %d to %d", x.what, x.begin, x.end))
		}
	}
	return bad
}

func (s *soaking) deployments() (n int) {
	for _, p := range s.projects {
		n += len(s.lines("deploys-" + p))
	}
	return n
}

// check waits until all is done and looks from outside whether it is right.
func (s *soaking) check() (bad []string) {
	say := func(format string, args ...any) { bad = append(bad, fmt.Sprintf(format, args...)) }
	for _, p := range s.projects {
		var builds []api.Build
		err := s.until("all builds of "+p+" have ended", func() (err error) {
			if builds, err = s.all(p); err != nil {
				return err
			}
			seen := map[string]bool{}
			for _, b := range builds {
				if !b.Status.Final() {
					return fmt.Errorf("build %d is %s: %s", b.Number, b.Status, b.Reason)
				}
				seen[b.Commit] = true
			}
			tip, err := s.git(s.at(p+".git"), "rev-parse", "develop")
			if err == nil && !seen[tip] {
				err = fmt.Errorf("the last push, %s, has no build", tip)
			}
			return err
		})
		if err != nil {
			say("%s: %v", p, err)
			continue
		}
		s.builds.Add(int64(len(builds)))
		for _, words := range s.checkProject(p, builds) {
			say("%s: %s", p, words)
		}
	}
	up := map[string]int{}
	for _, line := range s.lines("envs") {
		verb, id, _ := strings.Cut(line, " ")
		if verb == "down" {
			up[id] = 0
		} else {
			up[id]++
		}
	}
	for id, n := range up {
		if n > 0 {
			say("environment %s was not destroyed", id)
		}
	}
	left := map[int]string{}
	err := s.until("no job is left", func() error {
		if left = processes("SHUNT_RUNNER=" + filepath.Join(s.data, "runner")); len(left) > 0 {
			return fmt.Errorf("%v", left)
		}
		return nil
	})
	if err != nil {
		say("%v", err)
	}
	checks, err := s.api.Doctor(s.ctx)
	for _, c := range checks {
		if c.State == "fail" {
			say("doctor: %s: %s", c.Name, c.Words)
		}
	}
	if err != nil {
		say("doctor: %v", err)
	}
	return bad
}

// all lists all builds of a project.
func (s *soaking) all(project string) (out []api.Build, err error) {
	for before := int64(0); ; before = out[len(out)-1].Number {
		page, err := s.api.Builds(s.ctx, project, api.BuildFilter{Limit: 200, Before: before})
		if out = append(out, page...); err != nil || len(page) < 200 {
			return out, err
		}
	}
}

// checkProject: each commit is built at most once; each deployment was started
// once, under rising fences; what succeeded was deployed, and has its tag there.
func (s *soaking) checkProject(project string, builds []api.Build) (bad []string) {
	say := func(format string, args ...any) { bad = append(bad, fmt.Sprintf(format, args...)) }
	of := map[string]int64{}
	for _, b := range builds {
		if of[b.Commit] != 0 {
			say("commit %s has builds %d and %d", b.Commit, of[b.Commit], b.Number)
		}
		of[b.Commit] = b.Number
	}
	deployed, started, fence := map[string]bool{}, map[string]bool{}, 0
	for _, line := range s.lines("deploys-" + project) {
		f := strings.Fields(line)
		n, err := strconv.Atoi(f[1])
		if err != nil || started[f[0]] || n <= fence {
			say("deployment %q came after fence %d", line, fence)
		}
		started[f[0]], fence, deployed[f[2]] = true, n, true
	}
	tags, err := s.git(s.at(project+".git"), "for-each-ref", "--format=%(refname:lstrip=2) %(*objectname)", "refs/tags/production")
	if err != nil {
		say("%v", err)
	}
	tagged := map[string]string{}
	for line := range strings.Lines(tags) {
		name, commit, _ := strings.Cut(strings.TrimSpace(line), " ")
		if tagged[commit] = name; !deployed[commit] {
			say("%s is on a commit that was never deployed", name)
		}
	}
	for _, b := range builds {
		if b.Status == delivery.BuildSucceeded && tagged[b.Commit] != fmt.Sprint("production/", b.Number) {
			say("build %d succeeded; its tag is %q", b.Number, tagged[b.Commit])
		}
	}
	for _, line := range s.missing(project, of) {
		say("%s", line)
	}
	return bad
}

// missing lists pushes of which nothing became. Of commits that were pushed
// between two looks at the remote the last one counts: it contains the others.
func (s *soaking) missing(project string, of map[string]int64) (bad []string) {
	s.pushed.Range(func(key, _ any) bool {
		name, commit, _ := strings.Cut(key.(string), " ")
		if name != project || of[commit] != 0 {
			return true
		}
		later, err := s.git(s.at(project+".git"), "rev-list", commit+"..develop")
		if err != nil || !slices.ContainsFunc(strings.Fields(later), func(c string) bool { return of[c] != 0 }) {
			bad = append(bad, fmt.Sprintf("nothing was built of commit %s (%v)", commit, err))
		}
		return true
	})
	return bad
}
