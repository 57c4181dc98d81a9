package cli

import (
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/shuntcd/shunt/internal/runner"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == runner.ShimCommand { // `shunt run` starts this binary as its shim
		os.Exit(runner.Shim())
	}
	main := func() { os.Exit(Main(os.Args, os.Stdin, os.Stdout, os.Stderr, os.Environ())) }
	if len(os.Args) > 1 && os.Args[1] == runner.Command { // and as its runner
		main()
	}
	testscript.Main(m, map[string]func(){"shunt": main})
}

// TestScripts runs testdata/*.txtar against the real program and a small server
// that answers as Shunt's does.
func TestScripts(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		Setup: func(e *testscript.Env) error {
			s := httptest.NewServer(newFake())
			e.Defer(s.Close)
			e.Setenv("URL", s.URL)
			e.Setenv("HOME", e.WorkDir)
			e.Setenv("SHUNT_SERVER", s.URL)
			e.Setenv("SHUNT_TOKEN", fakeToken)
			e.Setenv("GIT_CONFIG_NOSYSTEM", "1")
			e.Setenv("GIT_AUTHOR_NAME", "Ana")
			e.Setenv("GIT_AUTHOR_EMAIL", "ana@example.org")
			e.Setenv("GIT_COMMITTER_NAME", "Ana")
			e.Setenv("GIT_COMMITTER_EMAIL", "ana@example.org")
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			// exits CODE command...: the command ends with that very exit code.
			"exits": func(ts *testscript.TestScript, _ bool, args []string) {
				err := ts.Exec(args[1], args[2:]...)
				code := "0"
				if err != nil {
					_, code, _ = strings.Cut(err.Error(), "exit status ")
				}
				if code != args[0] {
					ts.Fatalf("%v ended with %q, want %s", args[1:], code, args[0])
				}
			},
			// fake lose | base REV | tagged REV: tells the fake server something.
			"fake": func(ts *testscript.TestScript, _ bool, args []string) {
				query := args[0]
				if len(args) > 1 {
					out, err := exec.CommandContext(t.Context(), "git", "-C", ts.MkAbs("."), "rev-parse", args[1]).Output()
					ts.Check(err)
					query += "=" + strings.TrimSpace(string(out))
				}
				req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, ts.Getenv("URL")+"/fake?"+query, nil)
				ts.Check(err)
				resp, err := http.DefaultClient.Do(req)
				ts.Check(err)
				ts.Check(resp.Body.Close())
			},
		},
	})
}
