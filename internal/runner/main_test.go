package runner

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/shuntcd/shunt/internal/delivery"
	"github.com/shuntcd/shunt/internal/runlog"
)

// TestMain lets the test binary be the runner and the shim, as the program is.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case ShimCommand:
			os.Exit(Shim())
		case Command:
			log := slog.New(slog.NewTextHandler(os.Stderr, nil))
			if err := Main(context.Background(), Options{Dir: os.Args[3], Version: "test", Log: log}); err != nil {
				log.Error("runner", "err", err)
				os.Exit(1)
			}
			os.Exit(0)
		}
	}
	goleak.VerifyTestMain(m)
}

const patience = 30 * time.Second

// bench is a runner process with its client, and a working directory for jobs.
type bench struct {
	testing.TB
	*Client
	dir  string
	work string
	pid  int
}

// Log is the client's, not the test's.
func (b *bench) Log(ctx context.Context, id string, offset int64, w io.Writer) (int64, error) {
	return b.Client.Log(ctx, id, offset, w)
}

func newBench(tb testing.TB) *bench {
	tb.Helper()
	b := &bench{TB: tb, dir: filepath.Join(tb.TempDir(), "r"), work: tb.TempDir()}
	b.Client = NewClient(b.dir)
	b.spawn()
	tb.Cleanup(func() {
		b.killRunner(unix.SIGKILL)
		b.Close()
		b.eventually("no process is left behind", func() bool { return len(b.left()) == 0 })
		_ = RemoveAll(b.dir)
	})
	return b
}

func (b *bench) spawn() {
	b.Helper()
	exe, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	info, err := Spawn(b.Context(), exe, b.dir, nil)
	if err != nil {
		b.Fatal(err)
	}
	b.pid = info.PID
}

// killRunner ends the runner and waits until it is gone.
func (b *bench) killRunner(sig unix.Signal) {
	b.Helper()
	if b.pid == 0 {
		return
	}
	_ = unix.Kill(b.pid, sig)
	b.eventually("the runner is gone", func() bool { _, alive := readProcess(b.pid); return !alive })
	b.pid = 0
}

// left lists the processes that belong to this runner or to its jobs.
func (b *bench) left() (list []int) {
	for _, p := range processes() {
		env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", p.pid))
		if err == nil && bytes.Contains(env, []byte("SHUNT_RUNNER="+b.dir+"\x00")) {
			list = append(list, p.pid)
		}
	}
	return list
}

func (b *bench) eventually(what string, ok func() bool) {
	b.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			b.Fatalf("waited in vain: %s", what)
		}
	}
}

func (b *bench) spec(id string, scripts ...string) Spec {
	s := Spec{ID: id, Fence: 1, Dir: b.work, Timeout: patience, Grace: 200 * time.Millisecond}
	for i, script := range scripts {
		s.Steps = append(s.Steps, Step{Name: fmt.Sprintf("s%d", i+1), Run: script})
	}
	return s
}

func (b *bench) start(s Spec) {
	b.Helper()
	if _, err := b.Start(context.Background(), s); err != nil {
		b.Fatal(err)
	}
}

// result waits for the end of a job.
func (b *bench) result(id string) Result {
	b.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); {
		status, err := b.Wait(context.Background(), id, 1<<60, 5*time.Second)
		if err != nil {
			b.Fatal(err)
		}
		if status.Result != nil {
			return *status.Result
		}
	}
	b.Fatalf("job %s does not end", id)
	return Result{}
}

func (b *bench) run(s Spec) Result {
	b.Helper()
	b.start(s)
	return b.result(s.ID)
}

func (b *bench) lines(id string) []runlog.Line {
	b.Helper()
	var buf bytes.Buffer
	if _, err := b.Log(context.Background(), id, 0, &buf); err != nil {
		b.Fatal(err)
	}
	lines, next, err := runlog.Read(bytes.NewReader(buf.Bytes()), int64(buf.Len()), 0, 1<<30)
	if err != nil || next != int64(buf.Len()) {
		b.Fatalf("log: %v, %d of %d bytes", err, next, buf.Len())
	}
	return lines
}

// output is what the steps printed, without markers.
func (b *bench) output(id string) string {
	b.Helper()
	var out strings.Builder
	for _, l := range b.lines(id) {
		switch l.Flag {
		case runlog.FlagLine:
			out.WriteString(l.Text + "\n")
		case runlog.FlagPart:
			out.WriteString(l.Text)
		}
	}
	return out.String()
}

func (b *bench) markers(id string) string {
	b.Helper()
	var out strings.Builder
	for _, l := range b.lines(id) {
		if l.Flag == runlog.FlagMarker {
			out.WriteString(l.Text + "\n")
		}
	}
	return out.String()
}

// printed waits until the log of a running job has the text.
func (b *bench) printed(id, text string) {
	b.Helper()
	b.eventually("job prints "+text, func() bool { return strings.Contains(b.output(id), text) })
}

func (b *bench) want(r Result, state delivery.AttemptState) {
	b.Helper()
	if r.State != state {
		b.Fatalf("state %s (%s), want %s", r.State, r.Reason, state)
	}
}

func isErr(tb testing.TB, err, want error) {
	tb.Helper()
	if !errors.Is(err, want) {
		tb.Fatalf("error %v, want %v", err, want)
	}
}
