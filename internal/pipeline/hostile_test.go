package pipeline

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/shuntcd/shunt/internal/delivery"
)

// bombs are files that are small or of legal size, and would cost a naive
// reader much time, memory or stack.
func bombs() map[string]string {
	var laughs strings.Builder
	laughs.WriteString("a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n")
	for i := 1; i < 9; i++ {
		fmt.Fprintf(&laughs, "a%d: &a%d [%s]\n", i, i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d, ", i-1), 9), ", "))
	}
	var merges strings.Builder
	merges.WriteString("m0: &m0 { a: 1, b: 2, c: 3 }\n")
	for i := 1; i < 40; i++ {
		fmt.Fprintf(&merges, "m%d: &m%d { <<: [*m%d, *m%d], k%d: *m%d }\n", i, i, i-1, i-1, i, i-1)
	}
	var deep strings.Builder
	deep.WriteString("d0: &d0 [1]\n")
	for i := 1; i < 200; i++ {
		fmt.Fprintf(&deep, "d%d: &d%d [*d%d]\n", i, i, i-1)
	}
	var keys, block, chain strings.Builder
	for i := range 100000 {
		fmt.Fprintf(&keys, "k%d: 1\n", i)
	}
	for i := range 1000 {
		block.WriteString(strings.Repeat(" ", i) + "a:\n")
	}
	chain.WriteString("jobs:\n  j0: { steps: [a] }\n")
	for i := 1; i < 1000; i++ {
		fmt.Fprintf(&chain, "  j%d: { steps: [a], needs: j%d }\n", i, i-1)
	}
	var dense strings.Builder
	dense.WriteString("environments: { live: { deploy: d } }\njobs:\n")
	for i := range 90 {
		fmt.Fprintf(&dense, "  j%d: { steps: [a], needs: [", i)
		for k := range i {
			fmt.Fprintf(&dense, "j%d, ", k)
		}
		dense.WriteString("] }\n")
	}
	var envs strings.Builder
	envs.WriteString("jobs:\n  first: { steps: [a] }\n")
	for i := range 100 {
		fmt.Fprintf(&envs, "  j%d: { steps: [a], needs: [", i)
		for k := range 24 {
			fmt.Fprintf(&envs, "e%d, ", k)
		}
		envs.WriteString("] }\n")
	}
	envs.WriteString("environments:\n  live: { production: true, deploy: d }\n")
	for i := range 48 {
		fmt.Fprintf(&envs, "  e%d: { %s, needs: [first, ", i, []string{"ephemeral: true, up: u, down: d", "deploy: d, approve: {}"}[i/24])
		for k := range i {
			fmt.Fprintf(&envs, "e%d, ", k)
		}
		for k := 0; i >= 24 && k < 100; k++ {
			fmt.Fprintf(&envs, "j%d, ", k)
		}
		envs.WriteString("] }\n")
	}
	long := strings.Repeat("k", 200000)
	return map[string]string{
		"flow lists":          strings.Repeat("[", 100000),
		"flow maps":           strings.Repeat("{a: ", 100000),
		"closed flow lists":   strings.Repeat("[", 100000) + strings.Repeat("]", 100000),
		"dashes":              strings.Repeat("- ", 100000) + "a",
		"block":               block.String(),
		"billion laughs":      laughs.String(),
		"merges":              merges.String(),
		"deep by alias":       deep.String(),
		"many keys":           keys.String(),
		"4900 keys":           keys.String()[:strings.Index(keys.String(), "k4900:")],
		"tags":                strings.Repeat("!a ", 100000) + "x",
		"anchors":             strings.Repeat("&a ", 100000) + "x",
		"question marks":      strings.Repeat("? ", 100000) + "x",
		"colons":              strings.Repeat(": ", 100000),
		"documents":           strings.Repeat("---\n", 100000),
		"comments":            strings.Repeat("#\n", 1<<19),
		"long key":            long + ": { a: 1, b: 2 }",
		"long path":           strings.Repeat("{"+long[:250]+": ", 60) + "[" + strings.Repeat("1, ", 9000) + "]" + strings.Repeat("}", 60),
		"merge of itself":     "a: &a { <<: *a }",
		"alias of itself":     "a: &a [*a]",
		"chain of jobs":       chain.String(),
		"everybody needs all": dense.String(),
		"many environments":   envs.String(),
		"spaces":              strings.Repeat(" ", 1<<20),
		"new lines":           strings.Repeat("\n", 1<<20),
		"signs":               strings.Repeat("{a: ", 1<<18),
		"too big":             strings.Repeat("#", MaxBytes+1),
		"quotes":              strings.Repeat(`"a" `, 100000),
		"commas":              "[" + strings.Repeat(",", 100000),
		"stars":               strings.Repeat("*a ", 100000),
	}
}

// TestT11Bombs is threat T11.
func TestT11Bombs(t *testing.T) {
	t.Parallel()
	for name, bomb := range bombs() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			done := make(chan error, 1)
			go func() {
				p, err := Parse(FileName, []byte(bomb))
				if err == nil {
					p.Graph(delivery.LaneMain)
				}
				done <- err
			}()
			select {
			case err := <-done:
				if heavy := name == "everybody needs all" || name == "many environments"; (err == nil) != heavy {
					t.Errorf("error %v", err)
				}
			case <-time.After(30 * time.Second): // generous: it takes a few milliseconds
				t.Fatal("still parsing")
			}
		})
	}
}

// TestT11BombsTakeLittleMemory runs alone, because it counts what is allocated.
func TestT11BombsTakeLittleMemory(t *testing.T) { //nolint:paralleltest // counts allocations of the process
	for name, bomb := range bombs() {
		data := []byte(bomb)
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		start := delivery.SystemClock{}.Now()
		_, err := Parse(FileName, data)
		took := delivery.SystemClock{}.Now().Sub(start)
		runtime.ReadMemStats(&after)
		total := after.TotalAlloc - before.TotalAlloc
		t.Logf("%-20s %8d bytes %6d KiB allocated %s", name, len(data), total>>10, took)
		if total > 128<<20 {
			t.Errorf("%s: allocates %d MiB", name, total>>20)
		}
		_ = err
	}
}

// FuzzParse: whatever comes in, Parse answers with a pipeline whose graphs are
// sound, or with problems that lie inside the file.
func FuzzParse(f *testing.F) {
	for _, bomb := range bombs() {
		if len(bomb) < 20000 {
			f.Add([]byte(bomb))
		}
	}
	for _, dir := range []string{"valid", "errors"} {
		for _, data := range inputs(f, dir) {
			f.Add(data)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := Parse(FileName, data)
		if err == nil {
			checkGraph(t, p, p.Graph(delivery.LaneMain))
			checkGraph(t, p, p.Graph(delivery.LaneHotfix))
			if again, err := Parse(FileName, data); err != nil || again.Digest() != p.Digest() {
				t.Fatalf("parsed again it is another policy: %v", err)
			}
			return
		}
		problems, ok := errors.AsType[Problems](err)
		if !ok || len(problems) == 0 || p != nil {
			t.Fatalf("%T with %v", err, p)
		}
		text := strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(strings.TrimPrefix(string(data), "\ufeff"))
		lines := strings.Split(text, "\n")
		for _, p := range problems {
			if p.Line < 1 || p.Line > len(lines) || p.Column < 1 || p.Column > utf8.RuneCountInString(lines[p.Line-1])+1 {
				t.Fatalf("%d:%d is outside of the file: %s", p.Line, p.Column, p.Message)
			}
		}
		for _, r := range err.Error() {
			if r != '\n' && r < ' ' || r == 0x7f {
				t.Fatalf("the message contains %U: %q", r, err.Error())
			}
		}
	})
}

func BenchmarkParse(b *testing.B) {
	data := inputs(b, "valid")["testdata/valid/petstore.yml"]
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		if _, err := Parse(FileName, data); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkGraph(b *testing.B) {
	p := mustParse(b, string(inputs(b, "valid")["testdata/valid/staging.yml"]))
	for b.Loop() {
		p.Graph(delivery.LaneHotfix)
	}
}
