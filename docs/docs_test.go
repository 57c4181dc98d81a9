// Package docs runs the commands of the documentation: a page is a script.
package docs

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestEveryCommandOfThePagesRuns runs the ```sh blocks of each page, and the
// hidden <!-- run --> blocks between them, top to bottom in one shell.
func TestEveryCommandOfThePagesRuns(t *testing.T) {
	t.Parallel()
	bin := t.TempDir()
	build := exec.CommandContext(t.Context(), "go", "build", "-o", filepath.Join(bin, "shunt"), "../cmd/shunt")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, page := range []string{"../README.md", "first-project.md", "hotfix.md", "backup.md"} {
		t.Run(filepath.Base(page), func(t *testing.T) {
			t.Parallel()
			text, err := os.ReadFile(page)
			if err != nil {
				t.Fatal(err)
			}
			if page == "../README.md" { // its story is that of build 43, the demo's is build 3
				_, story, _ := strings.Cut(string(text), "## The hotfix story")
				story, _, _ = strings.Cut(story, "## Run it")
				text = []byte(strings.ReplaceAll(story, "43", "3"))
			}
			run(t, bin, script(string(text)))
		})
	}
}

var blocks = regexp.MustCompile("(?ms)^```sh\n(.*?)^```$|^<!-- run\n(.*?)^-->$")

func script(page string) string {
	var b strings.Builder
	for _, m := range blocks.FindAllStringSubmatch(page, -1) {
		b.WriteString(m[1] + m[2])
	}
	return b.String()
}

// run runs a page's commands. Exit code 4 is `shunt watch --no-wait` saying that a
// person is asked; any other failure fails the page.
func run(t *testing.T, bin, commands string) {
	t.Helper()
	dir := t.TempDir()
	port := freePort(t)
	commands = strings.ReplaceAll(commands, "8080", port)
	commands = strings.ReplaceAll(commands, "/tmp/", dir+"/")
	file := filepath.Join(dir, "page.sh")
	head := "set -E\ntrap 'rc=$?; [ $rc = 4 ] || { echo \"FAILED ($rc): $BASH_COMMAND\" >&2; kill $(jobs -p) 2>/dev/null; exit 1; }' ERR\nset -x\n"
	if err := os.WriteFile(file, []byte(head+commands), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", file)
	cmd.Dir = dir
	cmd.Env = []string{
		"HOME=" + dir, "PATH=" + bin + ":" + os.Getenv("PATH"), "LANG=C.UTF-8", "GIT_CONFIG_GLOBAL=" + filepath.Join(dir, "gitconfig"),
		"GIT_AUTHOR_NAME=Ana Ruiz", "GIT_AUTHOR_EMAIL=ana@example.org", "GIT_COMMITTER_NAME=Ana Ruiz", "GIT_COMMITTER_EMAIL=ana@example.org",
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	out, err := cmd.CombinedOutput()
	stopRunners(dir)
	if err != nil {
		log, _ := os.ReadFile(filepath.Join(dir, "server.log"))
		demo, _ := os.ReadFile(filepath.Join(dir, "demo.log"))
		t.Fatalf("%v\n%s\nserver.log:\n%s\ndemo.log:\n%s", err, out[max(0, len(out)-4000):], log, demo)
	}
}

// stopRunners ends what a page's servers left running: runners outlive them.
func stopRunners(dir string) {
	procs, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, p := range procs {
		text, err := os.ReadFile(p)
		if err != nil || !strings.Contains(string(text), dir) {
			continue
		}
		var pid int
		if _, err := fmt.Sscanf(p, "/proc/%d/cmdline", &pid); err == nil && pid != os.Getpid() {
			_ = syscall.Kill(pid, syscall.SIGTERM)
		}
	}
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "localhost:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}
