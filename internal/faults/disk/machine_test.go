package disk

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/shuntcd/shunt/internal/testkit/disk"
)

// deed is one fault of the disk in one story: what happens at the n-th op of a
// kind that one of the processes asks for.
type deed struct {
	who   string    // server, runner or any
	kind  disk.Kind // "": any op
	n     int       // from 1
	fault string    // kill, kill-after, EIO, ENOSPC, cut, cut-after
	model disk.Model
	seed  uint64 // of what a cut leaves
}

const anyCall disk.Kind = "call" // how a deed of no kind is written

// String is how a deed is named in the output and replayed by -deed.
func (d deed) String() string {
	return fmt.Sprintf("%s.%s=%s@%d/%s/%d", d.who, cmp.Or(d.kind, anyCall), d.fault, d.n, d.model, d.seed)
}

// machine is the computer that the server of one story runs on: its processes
// and its disk. It falls out of its story's hands when the power is cut.
type machine struct {
	t     *testing.T
	deed  deed
	mount string
	data  string
	disk  *disk.Disk

	mu     sync.Mutex
	owners map[int]int    // of threads that have asked for an op: their processes
	counts map[string]int // ops by process and kind
	fired  string         // the op at which the fault happened
	hit    int            // the process that it happened to
	late   error          // see mustEnd
}

// newMachine makes a machine with an empty disk.
func newMachine(t *testing.T, d deed) (*machine, error) {
	t.Helper()
	mount, err := os.MkdirTemp("", "shunt-disk-") //nolint:usetesting // short, for the socket in it, and gone with the story
	if err != nil {
		return nil, err
	}
	m := &machine{t: t, deed: d, mount: mount, data: filepath.Join(mount, "data"), counts: map[string]int{}, owners: map[int]int{}}
	if m.disk, err = disk.Mount(mount, d.model, m.judge); err != nil {
		return nil, errors.Join(err, os.Remove(mount))
	}
	return m, nil
}

func (m *machine) close() error {
	m.kill()
	return errors.Join(m.disk.Close(), os.Remove(m.mount))
}

// judge lets everything happen but the deed.
func (m *machine) judge(op disk.Op) disk.Verdict {
	who := "any"
	var p process
	if op.Thread != 0 {
		p = readProcess(op.Thread)
		who = p.role()
	}
	m.mu.Lock()
	if op.Thread != 0 && m.owners[op.Thread] == 0 {
		m.owners[op.Thread] = p.group()
	}
	now := false
	for _, w := range []string{who, "any"} {
		for _, kind := range []disk.Kind{op.Kind, ""} {
			key := w + "." + string(kind)
			if w == who || who != "any" {
				m.counts[key]++
			}
			now = now || w == m.deed.who && kind == m.deed.kind && m.counts[key] == m.deed.n && m.fired == ""
		}
		if who == "any" {
			break
		}
	}
	if now {
		m.fired, m.hit = fmt.Sprintf("%s of %s by %s", op.Kind, op.Path, who), m.owners[op.Thread]
	}
	m.mu.Unlock()
	if !now {
		return disk.Verdict{}
	}
	switch m.deed.fault {
	case "kill":
		_ = syscall.Kill(m.hit, syscall.SIGKILL)
		return disk.Verdict{Errno: syscall.EIO} // nobody reads it
	case "kill-after":
		return disk.Verdict{After: func() { _ = syscall.Kill(m.hit, syscall.SIGKILL) }}
	case "cut":
		m.cut()
	case "cut-after":
		return disk.Verdict{After: m.cut}
	case "EIO":
		database := strings.HasPrefix(op.Path, "/data/shunt.db") && !strings.HasSuffix(op.Path, "-shm")
		if database && who == "server" && (op.Kind == disk.Write || op.Kind == disk.Sync) {
			go m.mustEnd(m.hit)
		}
		return disk.Verdict{Errno: syscall.EIO}
	case "ENOSPC":
		return disk.Verdict{Errno: syscall.ENOSPC}
	}
	return disk.Verdict{}
}

// cut takes the power away. The call at which it happens is one of those that
// die, so another goroutine ends them.
func (m *machine) cut() {
	// Found before the disk hangs: reading /proc of a process that waits for a page
	// of it would wait as well, and for ever.
	all := m.processes()
	cutting := make(chan struct{})
	go m.disk.PowerCut(rand.New(rand.NewPCG(m.deed.seed, 1)), func() {
		for _, p := range all {
			_ = syscall.Kill(p.pid, syscall.SIGKILL)
		}
		close(cutting)
	}, m.kill)
	<-cutting
}

// kill ends all processes of the machine and returns when they are gone.
func (m *machine) kill() {
	for begin := time.Now(); time.Since(begin) < time.Minute; time.Sleep(2 * time.Millisecond) {
		list := m.processes()
		if len(list) == 0 {
			return
		}
		for _, p := range list {
			_ = syscall.Kill(p.pid, syscall.SIGKILL)
		}
	}
	for _, p := range m.processes() {
		stacks, _ := bounded(func() (all string) {
			files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stack", p.pid))
			for _, f := range files {
				b, _ := os.ReadFile(f)
				all += f + "\n" + string(b)
			}
			return all
		})
		m.t.Errorf("it does not die: %+v\n%s", p, stacks)
	}
}

// processes are those of the server's machine: they name its disk in their
// arguments or environment, or descend from one that does. The story's person,
// the shops (other machines, as far as the story goes) and git on the person's
// side are not among them.
func (m *machine) processes() (list []process) {
	entries, _ := os.ReadDir("/proc")
	all := map[int]process{}
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			if p := readProcess(pid); p.state != 0 && p.state != 'Z' && p.state != 'X' {
				all[pid] = p
			}
		}
	}
	m.mu.Lock()
	owners := slices.Collect(maps.Values(m.owners))
	m.mu.Unlock()
	here := map[int]bool{}
	var ours func(p process, depth int) bool
	ours = func(p process, depth int) bool {
		known, ok := here[p.pid]
		if ok || depth > 50 {
			return known
		}
		is := false
		switch {
		case p.stuck:
			is = slices.Contains(owners, p.pid)
		case p.pid == os.Getpid(), p.arg(1) == "demo", p.arg(1) == "demo-shop" && p.arg(2) == "serve":
		default:
			parent, ok := all[p.parent]
			is = p.names(m.mount) || ok && p.parent != os.Getpid() && ours(parent, depth+1)
		}
		here[p.pid] = is
		return is
	}
	for _, p := range all {
		if ours(p, 0) {
			list = append(list, p)
		}
	}
	return list
}

// process is a row of /proc.
type process struct {
	pid, parent int
	state       byte
	stuck       bool // it cannot be looked at now
	args        []string
}

// readProcess reads a process, or the one that a thread belongs to.
func readProcess(pid int) process {
	dir := "/proc/" + strconv.Itoa(pid) + "/"
	p, ok := bounded(func() (p process) {
		stat, err := os.ReadFile(dir + "stat")
		if err != nil {
			return p
		}
		if f := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:])); len(f) > 1 {
			p.state = f[0][0]
			p.parent, _ = strconv.Atoi(f[1])
		}
		line, _ := os.ReadFile(dir + "cmdline")
		p.args = strings.Split(strings.TrimRight(string(line), "\x00"), "\x00")
		return p
	})
	if p.pid = pid; !ok {
		p.state, p.stuck = 'D', true
	}
	return p
}

// bounded reads something of /proc for which the kernel looks at a process's
// memory. That waits for a process that waits for a page or a file of our disk, which
// may wait for us: so it is given up soon.
func bounded[T any](read func() T) (content T, ok bool) {
	done := make(chan T, 1)
	go func() { done <- read() }()
	select {
	case v := <-done:
		return v, true
	case <-time.After(2 * time.Second):
		return content, false
	}
}

func (p process) arg(n int) string {
	if n < len(p.args) {
		return p.args[n]
	}
	return ""
}

func (p process) role() string {
	switch p.arg(1) {
	case "serve":
		return "server"
	case "runner":
		return "runner"
	}
	return "any"
}

// names tells whether the process was started with these words.
func (p process) names(words string) bool {
	if strings.Contains(strings.Join(p.args, " "), words) {
		return true
	}
	env, _ := bounded(func() []byte { b, _ := os.ReadFile("/proc/" + strconv.Itoa(p.pid) + "/environ"); return b })
	return bytes.Contains(env, []byte(words))
}

// group is the process that a thread belongs to.
func (p process) group() int {
	status, _ := bounded(func() []byte { b, _ := os.ReadFile("/proc/" + strconv.Itoa(p.pid) + "/status"); return b })
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "Tgid:"); ok {
			n, _ := strconv.Atoi(strings.TrimSpace(rest))
			return n
		}
	}
	return 0
}

// story plays the demo's story with its server on the machine. A nil error says
// that it ended as it must, with all claims true, and that what the disk holds
// after it is whole. Where the disk refused a call, the story may have stopped
// with an honest error before the person's eyes, which says so; nothing may be
// broken by it.
func (m *machine) story(ctx context.Context, bin string) (stopped bool, err error) {
	out, err := demo(m.t, bin, []string{"--data", m.data})
	refused := m.deed.fault == "EIO" || m.deed.fault == "ENOSPC"
	if err != nil && (!refused || !ofTheDisk(string(out))) {
		return false, fmt.Errorf("%w\n%s", err, out)
	}
	m.mu.Lock()
	late := m.late
	m.mu.Unlock()
	return err != nil, errors.Join(late, m.whole(ctx, err == nil))
}

// mustEnd watches that a server ends whose database got an error of the disk: the
// next sync would report success, and nothing that it says could be believed.
func (m *machine) mustEnd(pid int) {
	for range 1500 {
		if p := readProcess(pid); p.role() != "server" || p.state == 'Z' {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.late = fmt.Errorf("the server (process %d) went on for 15 s after %s answered %s", pid, m.fired, m.deed.fault)
}

var (
	binDir string // holds the program, which the first test that needs it builds
	plain  = sync.OnceValues(func() (string, error) {
		bin := filepath.Join(binDir, "shunt")
		if out, err := exec.Command("go", "build", "-o", bin, "../../../cmd/shunt").CombinedOutput(); err != nil {
			return "", fmt.Errorf("%w\n%s", err, out)
		}
		return bin, nil
	})
)

func TestMain(m *testing.M) {
	if file := os.Getenv(touches); file != "" {
		touch(file)
		return
	}
	var err error
	if binDir, err = os.MkdirTemp("", "shunt-faults-bin-"); err != nil {
		panic(err)
	}
	code := m.Run()
	_ = os.RemoveAll(binDir)
	os.Exit(code)
}

// touches names a file; a process of this test with it maps the file, goes on
// writing to the memory and making it durable, and maps other memory meanwhile.
const touches = "SHUNT_TEST_TOUCHES"

func touch(file string) {
	f, err := os.OpenFile(file, os.O_RDWR|os.O_CREATE, 0o600)
	if err == nil {
		err = f.Truncate(4096)
	}
	var memory []byte
	if err == nil {
		memory, err = syscall.Mmap(int(f.Fd()), 0, 4096, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	}
	go func() {
		for {
			memory[0]++ // waits for the page that is being written
		}
	}()
	go func() {
		for {
			if m, err := syscall.Mmap(-1, 0, 4096, syscall.PROT_READ, syscall.MAP_ANON|syscall.MAP_PRIVATE); err == nil {
				_ = syscall.Munmap(m) // waits for whoever waits for a page
			}
		}
	}()
	for err == nil {
		err = f.Sync()
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// TestPowerIsCutWhileAPageIsWritten: the kernel answers nobody who asks for the
// arguments of a process that waits for the disk like that, and the disk asks.
func TestPowerIsCutWhileAPageIsWritten(t *testing.T) {
	t.Parallel()
	for _, kind := range []disk.Kind{disk.Write, disk.Sync} {
		m, err := newMachine(t, deed{who: "any", kind: kind, n: 20, fault: "cut"})
		if errors.Is(err, disk.ErrCannot) {
			t.Skip(err)
		}
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), touches+"="+filepath.Join(m.mount, "mapped"))
		out, err := cmd.CombinedOutput()
		if m.fired != string(kind)+" of /mapped by any" {
			t.Errorf("the power was cut at %q; the process: %v\n%s", m.fired, err, out)
		}
		if ended, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || ended.Signal() != syscall.SIGKILL {
			t.Errorf("the process ended with %v", cmd.ProcessState)
		}
		if err := m.close(); err != nil {
			t.Error(err)
		}
	}
}

// program is the program as people get it: no failpoints in it.
func program(t *testing.T) string {
	t.Helper()
	bin, err := plain()
	if err != nil {
		t.Fatal(err)
	}
	return bin
}
