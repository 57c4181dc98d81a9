package runner

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shuntcd/shunt/internal/delivery"
	"github.com/shuntcd/shunt/internal/runlog"
)

func TestJobHandsOverWhatItMade(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	s := b.spec("job-1",
		`echo one; mkdir -p dist reports/a; printf bytes > dist/app-1.tar; echo '<x/>' > reports/a/t.xml; echo url=http://first >> $SHUNT_OUTPUT`,
		`printf 'url=http://x/?a=b\nbad line\n2x=1\n' >> $SHUNT_OUTPUT; echo two`)
	s.Artifacts = []Glob{{"app", "dist/app-*.tar"}}
	s.Reports = []string{"reports/**/*.xml", "none/*.xml"}
	r := b.run(s)
	b.want(r, delivery.AttemptSucceeded)
	if diff := cmp.Diff(map[string]string{"url": "http://x/?a=b"}, r.Outputs); diff != "" {
		t.Error(diff)
	}
	sum := sha256.Sum256([]byte("bytes"))
	want := []File{{Name: "app", Base: "app-1.tar", SHA256: hex.EncodeToString(sum[:]), Size: 5, Path: r.Artifacts[0].Path}}
	if diff := cmp.Diff(want, r.Artifacts); diff != "" {
		t.Error(diff)
	}
	if data, err := os.ReadFile(r.Artifacts[0].Path); err != nil || string(data) != "bytes" {
		t.Errorf("%q %v", data, err)
	}
	if data, err := os.ReadFile(r.Reports[0]); err != nil || len(r.Reports) != 1 || string(data) != "<x/>\n" {
		t.Errorf("%q %v", data, err)
	}
	var got []string
	for _, l := range b.lines("job-1") {
		text, _, _ := strings.Cut(l.Text, " after ")
		got = append(got, string(l.Flag)+text)
	}
	wantLog := []string{
		"#step 1 s1", "|one", "#step 1 ended with exit code 0", "#step 2 s2", "|two", "#step 2 ended with exit code 0",
		"#$SHUNT_OUTPUT: line 3 is not key=value and is left out", "#$SHUNT_OUTPUT: line 4 is not key=value and is left out",
	}
	if diff := cmp.Diff(wantLog, got); diff != "" {
		t.Error(diff)
	}
	if r.FinishedAt.Before(r.StartedAt) || r.StartedAt.IsZero() {
		t.Error(r.StartedAt, r.FinishedAt)
	}

	for range 2 { // Release may be repeated
		if err := b.Release(t.Context(), "job-1"); err != nil {
			t.Fatal(err)
		}
	}
	_, err := b.Wait(t.Context(), "job-1", 0, 0)
	isErr(t, err, ErrUnknownJob)
	if _, err := b.Start(t.Context(), s); !delivery.IsKind(err, delivery.KindConflict) {
		t.Errorf("a released job starts again: %v", err)
	}
	if _, err := os.Stat(filepath.Join(b.dir, "jobs", "job-1")); !os.IsNotExist(err) {
		t.Error(err)
	}
}

func TestFirstFailingStepEndsTheJob(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	s := b.spec("j", "true", "false; echo not reached", "echo nor this")
	s.Artifacts = []Glob{{"a", "*.none"}}
	r := b.run(s)
	b.want(r, delivery.AttemptFailed)
	if r.ExitCode != 1 || r.Reason != "step 2 exited with code 1" || strings.Contains(b.output("j"), "reached") {
		t.Errorf("%+v %s", r, b.output("j"))
	}
	r = b.run(b.spec("k", "kill -SEGV $$"))
	if r.ExitCode != 139 || r.Reason != "step 1 was killed by signal 11 (SEGV)" {
		t.Errorf("%+v", r)
	}
	r = b.run(b.spec("long", "#"+strings.Repeat("x", 200<<10)))
	if r.State != delivery.AttemptFailed || r.ExitCode != 126 || !strings.Contains(r.Reason, "argument list too long") {
		t.Errorf("%+v", r)
	}
}

func TestLogIsFollowedFromAnyOffset(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	fifo := filepath.Join(b.work, "go")
	b.start(b.spec("j", "mkfifo go; echo first; printf 'no newline'; read x < go; echo; echo last"))
	b.printed("j", "first\nno newline")
	var head bytes.Buffer
	if _, err := b.Log(t.Context(), "j", 0, &head); err != nil {
		t.Fatal(err)
	}
	status, err := b.Wait(t.Context(), "j", int64(head.Len()), time.Millisecond)
	if err != nil || !status.Running || status.LogSize != int64(head.Len()) {
		t.Fatalf("%+v %v", status, err)
	}
	woken := make(chan Status, 1)
	go func() {
		status, _ := b.Wait(context.Background(), "j", int64(head.Len()), patience)
		woken <- status
	}()
	if err := os.WriteFile(fifo, []byte("x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if s := <-woken; s.LogSize <= int64(head.Len()) {
		t.Errorf("%+v", s)
	}
	b.want(b.result("j"), delivery.AttemptSucceeded)
	var whole, tail bytes.Buffer
	if _, err := b.Log(t.Context(), "j", 0, &whole); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Log(t.Context(), "j", int64(head.Len()), &tail); err != nil {
		t.Fatal(err)
	}
	if whole.String() != head.String()+tail.String() {
		t.Error("the log changed behind its reader")
	}
}

func TestSecretsAreNeverStored(t *testing.T) { // T55, T57
	t.Parallel()
	b := newBench(t)
	secret := "s3cr3t-canary-value"
	s := b.spec("j", `printf 's3cr3t-can'; sleep 0.3; echo "ary-value"; echo "$TOKEN" | base64; echo "x=$TOKEN" >> $SHUNT_OUTPUT; exit 3`)
	s.Env = []string{"TOKEN=" + secret}
	s.Secrets = []string{secret}
	r := b.run(s)
	if r.ExitCode != 3 || len(r.Outputs) != 0 {
		t.Errorf("%+v", r)
	}
	if out := b.output("j"); !strings.HasPrefix(out, "[secret]\n[secret]") {
		t.Errorf("%q", out)
	}
	err := filepath.WalkDir(b.dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		if bytes.Contains(data, []byte("canary")) || bytes.Contains(data, []byte(base64.StdEncoding.EncodeToString([]byte(secret)))) {
			t.Errorf("%s holds the secret", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestEnvironmentIsExactlyWhatWasGiven(t *testing.T) { // T02, T57
	t.Setenv("SHUNT_SERVER_CANARY", "of the server")
	b := newBench(t)
	hostile := []string{"$(touch${IFS}$MARKER)", "`id`", "a;id", `x"y`, "{{.Secret}}", "--upload-pack=x", "a\nb\x1b[2J", "\xff\xfe", "%s%n", ""}
	var scripts strings.Builder
	s := b.spec("j")
	for i, v := range hostile {
		s.Env = append(s.Env, fmt.Sprintf("V%d=%s", i, v))
		fmt.Fprintf(&scripts, `printf '%%s' "$V%d" > v%d;`, i, i)
	}
	s.Env = append(s.Env, "HOME=/root", "PATH=/bin:/usr/bin", "V9=last one counts")
	s.Steps = []Step{{"print", scripts.String() + `env -0 | sort -z | tr '\0' '\n' | grep -av '^V\|^b\|^$' | cut -d= -f1; umask; readlink /proc/self/fd/0; ls /proc/self/fd; cat /proc/$PPID/environ || true; echo; echo $HOME; echo $PATH; cd ~; cd $TMPDIR`}}
	b.want(b.run(s), delivery.AttemptSucceeded)
	for i, v := range hostile {
		if i == 9 {
			v = "last one counts"
		}
		if data, err := os.ReadFile(filepath.Join(b.work, fmt.Sprintf("v%d", i))); err != nil || string(data) != v {
			t.Errorf("%q %v, want %q", data, err, v)
		}
	}
	out := b.output("j")
	home := filepath.Join(b.dir, "jobs/j/home")
	want := "HOME\nLANG\nPATH\nPWD\nSHUNT_JOB\nSHUNT_OUTPUT\nSHUNT_RUNNER\nTMPDIR\n0022\n/dev/null\n0\n1\n2\n3\n"
	if !strings.HasPrefix(out, want) || !strings.HasSuffix(out, "\n"+home+"\n/bin:/usr/bin\n") || strings.Contains(out, "CANARY") {
		t.Errorf("%s", out)
	}
}

func TestStartIsIdempotent(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	s := b.spec("j", "echo ran >> ran; sleep 0.1")
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if _, err := b.Start(context.Background(), s); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	b.want(b.result("j"), delivery.AttemptSucceeded)
	s.Fence = 5
	status, err := b.Start(t.Context(), s)
	if err != nil || status.Result == nil || status.Fence != 5 {
		t.Errorf("%+v %v", status, err)
	}
	s.Fence = 4
	_, err = b.Start(t.Context(), s)
	isErr(t, err, delivery.ErrLeaseLost)
	if !delivery.IsKind(err, delivery.KindConflict) {
		t.Error(err)
	}
	if data, _ := os.ReadFile(filepath.Join(b.work, "ran")); string(data) != "ran\n" {
		t.Errorf("ran %q", data)
	}
	if _, err := b.Wait(t.Context(), "other", 0, 0); err == nil {
		t.Error("unknown job is known")
	}
	for _, bad := range []Spec{{}, b.spec("../x", "true"), b.spec("ok"), {ID: "a", Dir: "/nowhere", Steps: s.Steps}} {
		if _, err := b.Start(t.Context(), bad); !delivery.IsKind(err, delivery.KindInvalid) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}

func TestFloodIsBounded(t *testing.T) { // T71
	t.Parallel()
	b := newBench(t)
	s := b.spec("j", "head -c 67108864 /dev/zero | tr '\\0' x; echo; yes | head -c 8000000")
	s.LogLimit = 4 << 20
	r := b.run(s)
	b.want(r, delivery.AttemptSucceeded)
	if r.LogSize > 4<<20+1000 {
		t.Errorf("log of %d bytes", r.LogSize)
	}
	if m := b.markers("j"); !strings.Contains(m, "output limit reached: ") {
		t.Error(m)
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", b.pid))
	if err != nil {
		t.Fatal(err)
	}
	_, peak, _ := strings.Cut(string(status), "VmHWM:")
	var kb int
	if _, err := fmt.Sscan(peak, &kb); err != nil || kb > 60<<10 {
		t.Errorf("the runner needed %d KiB (%v)", kb, err)
	}
}

func TestOnlyRegularFilesWithinAreCollected(t *testing.T) { // T63
	t.Parallel()
	b := newBench(t)
	for i, c := range []struct{ script, pattern, want string }{
		{"ln -s /etc/passwd out", "out", "no regular file"},
		{"ln -s /etc etc", "etc/passwd", "no file matches"},
		{"mkdir d; ln -s /etc d/etc", "d/**/passwd", "no file matches"},
		{"true", "../*/*", "no file matches"},
		{"true", "/etc/passwd", "no file matches"},
		{"mkfifo pipe", "pipe", "no regular file"},
		{"mkdir dir", "dir", "no regular file"},
		{"touch a1 a2", "a*", `2 files match "a*": "a1", "a2"`},
		{"mkdir dist; touch dist/b.zip", "dist/*.tar", `directory "dist" holds "b.zip"`},
		{"head -c 3000 /dev/zero > big", "big", "more than 2000 bytes"},
	} {
		s := b.spec(fmt.Sprintf("j%d", i), c.script)
		s.Dir, s.MaxOutput = t.TempDir(), 2000
		s.Artifacts, s.Reports = []Glob{{"a", c.pattern}}, []string{c.pattern}
		r := b.run(s)
		if r.State != delivery.AttemptFailed || !strings.Contains(r.Reason, c.want) || len(r.Artifacts) != 0 {
			t.Errorf("%s: %+v", c.script, r)
		}
		if i < 7 && len(r.Reports) != 0 {
			t.Errorf("%s: %v", c.script, r.Reports)
		}
	}
}

func TestReportsComeAlsoFromFailure(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	s := b.spec("j", "echo hi > t.xml; for i in $(seq 1100); do echo $i > n$i.xml; done; rm $SHUNT_OUTPUT; ln -s /etc/passwd $SHUNT_OUTPUT; exit 1")
	s.Reports = []string{"*.xml", "t.xml"}
	r := b.run(s)
	if len(r.Reports) != MaxReports || !strings.Contains(b.markers("j"), "only the first 1000 files") {
		t.Errorf("%d reports, %s", len(r.Reports), b.markers("j"))
	}
	if len(r.Outputs) != 0 || !strings.Contains(b.markers("j"), "cannot be read any more") {
		t.Errorf("%v %s", r.Outputs, b.markers("j"))
	}
}

func TestReadOnlyHomeIsRemoved(t *testing.T) { // as Go's module cache
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "x")
	if err := os.MkdirAll(filepath.Join(dir, "a/b"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{"a/b", "a"} {
		if err := os.Chmod(filepath.Join(dir, d), 0o500); err != nil {
			t.Fatal(err)
		}
	}
	if err := RemoveAll(dir); err != nil {
		t.Error(err)
	}
}

func TestMarkersStandBetweenTheStepsOutput(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	var scripts []string
	for i := range 30 {
		scripts = append(scripts, fmt.Sprintf("i=0; while [ $i -lt 200 ]; do echo %d; i=$((i+1)); done", i))
	}
	b.want(b.run(b.spec("j", scripts...)), delivery.AttemptSucceeded)
	step := ""
	n := 0
	for _, l := range b.lines("j") {
		if l.Flag == runlog.FlagMarker {
			if !strings.Contains(l.Text, "ended") {
				step = strings.Fields(l.Text)[1]
			}
			continue
		}
		n++
		if fmt.Sprint(atoi(l.Text)+1) != step {
			t.Fatalf("%s in step %s", l.Text, step)
		}
	}
	if n != 6000 {
		t.Errorf("%d lines", n)
	}
}

func TestManyJobsAtOnce(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	const n = 30
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { b.start(b.spec(fmt.Sprintf("j%d", i), fmt.Sprintf("echo %d; sleep 0.05; echo end", i))) })
	}
	wg.Wait()
	for i := range n {
		id := fmt.Sprintf("j%d", i)
		b.want(b.result(id), delivery.AttemptSucceeded)
		if out := b.output(id); out != fmt.Sprintf("%d\nend\n", i) {
			t.Errorf("%s: %q", id, out)
		}
		if err := b.Release(t.Context(), id); err != nil {
			t.Error(err)
		}
	}
	b.Close()
	b.eventually("the runner has closed the descriptors of its jobs", func() bool {
		fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", b.pid))
		return err == nil && len(fds) < 25
	})
}

func TestFullDiskFailsTheJob(t *testing.T) { // F04
	t.Parallel()
	file, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip(err)
	}
	r, w, err := pipe(0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	p, err := newPump(r, file, nil, 0, delivery.SystemClock{}, func(int64) {})
	if err != nil {
		t.Fatal(err)
	}
	go p.run()
	for range 100 { // more than a pipe holds: the job must not hang
		if _, err := w.Write(bytes.Repeat([]byte("line\n"), 2000)); err != nil {
			t.Fatal(err)
		}
	}
	_ = w.Close()
	<-p.done
	if size, err := p.finish(); size != 0 || err == nil || !strings.Contains(err.Error(), "no space left") {
		t.Errorf("%d %v", size, err)
	}
}

func atoi(s string) (n int) {
	_, _ = fmt.Sscan(s, &n)
	return n
}

func BenchmarkJob(b *testing.B) {
	bench := newBench(b)
	var start, wait, release time.Duration
	for i := 0; b.Loop(); i++ {
		id := fmt.Sprintf("j%d", i)
		t0 := time.Now()
		bench.start(bench.spec(id, "true"))
		t1 := time.Now()
		bench.want(bench.result(id), delivery.AttemptSucceeded)
		t2 := time.Now()
		if err := bench.Release(context.Background(), id); err != nil {
			b.Fatal(err)
		}
		start, wait, release = start+t1.Sub(t0), wait+t2.Sub(t1), release+time.Since(t2)
	}
	for name, d := range map[string]time.Duration{"start": start, "wait": wait, "release": release} {
		b.ReportMetric(float64(d.Microseconds())/float64(b.N), name+"-µs")
	}
}

// BenchmarkPlainShell is what a job costs at least.
func BenchmarkPlainShell(b *testing.B) {
	for b.Loop() {
		if err := exec.CommandContext(b.Context(), "/bin/sh", "-e", "-c", "true").Run(); err != nil {
			b.Fatal(err)
		}
	}
}
