// Command endure shows what a living installation bears: the real binary, real
// repositories, builds that flow, and deaths.
//
//	go run ./internal/faults/endure [-database sqlite|postgres] [-for 10m] soak
//	go run ./internal/faults/endure recovery
//
// A *soak* lets builds flow with a fault every few seconds and looks whether
// something was lost, done twice or left behind, and whether the server grows
// (soak.go). *Recovery* prints how long it takes after which death (recovery.go).
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/shuntcd/shunt/internal/testkit/pg"
)

func main() {
	database := flag.String("database", "sqlite", "of the soak: sqlite or postgres")
	length := flag.Duration("for", 10*time.Minute, "of the soak")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, flag.Arg(0), *database, *length); err != nil {
		fmt.Fprintln(os.Stderr, "endure:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, what, database string, length time.Duration) error {
	dir, err := os.MkdirTemp("", "shunt-endure-")
	if err != nil {
		return err
	}
	t := tools{dir: dir, exe: filepath.Join(dir, "shunt")}
	if err := t.build(ctx); err != nil {
		return err
	}
	switch what {
	case "soak":
		url := ""
		if database == "postgres" {
			server, err := pg.Start()
			if err != nil {
				return err
			}
			defer server.Stop()
			if url, err = server.Database(ctx); err != nil {
				return err
			}
		}
		err = soak(ctx, t, url, length)
	case "recovery":
		err = recovery(ctx, t)
	default:
		err = errors.New("say soak or recovery")
	}
	if err != nil {
		return fmt.Errorf("%w (logs are in %s)", err, dir)
	}
	return os.RemoveAll(dir)
}

// tools are what installations share.
type tools struct{ dir, exe string }

// counter is laid over the sources of cmd/shunt: a server that says how many
// goroutines it has, in a file, once a second. The product has nothing of it.
const counter = `package main

import (
	"fmt"
	"os"
	"runtime"
	"time"
)

func init() {
	file := os.Getenv("ENDURE_GOROUTINES")
	if file == "" || len(os.Args) < 2 || os.Args[1] != "serve" {
		return
	}
	go func() {
		for range time.Tick(time.Second) {
			_ = os.WriteFile(file, fmt.Append(nil, runtime.NumGoroutine()), 0o600)
		}
	}()
}
`

func (t tools) build(ctx context.Context) error {
	root, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return fmt.Errorf("find the repository: %w", err)
	}
	file, overlay := filepath.Join(t.dir, "counter.go"), filepath.Join(t.dir, "overlay.json")
	err = errors.Join(
		os.WriteFile(file, []byte(counter), 0o600),
		os.WriteFile(overlay, fmt.Appendf(nil, `{"Replace":{%q:%q}}`, filepath.Join(string(root[:len(root)-1]), "cmd/shunt/endure_counter.go"), file), 0o600),
	)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-overlay", overlay, "-o", t.exe, "github.com/shuntcd/shunt/cmd/shunt")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w\n%s", err, out)
	}
	return nil
}
