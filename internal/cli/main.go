package cli

import (
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/charmbracelet/x/term"
	"github.com/spf13/cobra"

	"github.com/shuntcd/shunt/internal/delivery"
)

// exitInterrupted is what shells expect of a program that Ctrl-C ended.
const exitInterrupted = 130

// Main runs one command and returns the exit code. args[0] is the program.
func Main(args []string, stdin io.Reader, stdout, stderr io.Writer, env []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	a := &app{stdin: stdin, out: stdout, err: stderr, env: env, clock: delivery.SystemClock{}}
	a.color = a.terminal() && a.getenv("NO_COLOR") == "" && a.getenv("TERM") != "dumb"
	root := a.root()
	root.SetArgs(args[1:])
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	return a.exit(root.ExecuteContext(ctx))
}

// app is what every command needs.
type app struct {
	stdin    io.Reader
	out, err io.Writer
	env      []string
	clock    delivery.Clock
	color    bool
	conf     config        // what the flags say
	json     bool          // --json
	patience time.Duration // --patience
}

func (a *app) getenv(name string) string {
	for _, kv := range slices.Backward(a.env) {
		if v, ok := strings.CutPrefix(kv, name+"="); ok {
			return v
		}
	}
	return ""
}

// terminal tells whether a person watches the output.
func (a *app) terminal() bool {
	f, ok := a.out.(*os.File)
	return ok && term.IsTerminal(f.Fd())
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:           "shunt",
		Short:         "Continuous delivery with a hotfix lane",
		Long:          "Shunt takes a commit to production, and a hotfix past everything that waits, without skipping the evidence.\n\nNew here?  shunt demo",
		Version:       version(),
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.SetVersionTemplate("shunt {{.Version}}\n")
	f := root.PersistentFlags()
	f.StringVar(&a.conf.Server, "server", "", "address of the Shunt server (SHUNT_SERVER, git config shunt.server)")
	f.StringVar(&a.conf.Token, "token", "", "token of the command line (SHUNT_TOKEN, git config shunt.token)")
	f.StringVar(&a.conf.Project, "project", "", "project (SHUNT_PROJECT, git config shunt.project)")
	f.BoolVar(&a.json, "json", false, "print JSON lines")
	f.DurationVar(&a.patience, "patience", 0, "how long to go on asking a server that does not answer")
	root.AddCommand(a.serverCommands()...)
	root.AddCommand(a.runnerCommands()...)
	root.AddCommand(a.demoCommands()...)
	root.AddCommand(a.initCommand(), a.lintCommand(), a.schemaCommand(), a.runCommand())
	root.AddCommand(a.statusCommand(), a.buildsCommand(), a.watchCommand(), a.logCommand())
	root.AddCommand(a.hotfixCommand(), a.promoteCommand(), a.rejectCommand(), a.backmergeCommand())
	root.AddCommand(a.cancelCommand(), a.rerunCommand(), a.resolveCommand(), a.rollbackCommand())
	root.AddCommand(a.holdCommand(), a.releaseHoldCommand(), a.freezeCommand(), a.clearIncidentCommand())
	root.AddCommand(a.envCommand(), a.artifactsCommand(), a.verifyCommand())
	root.AddCommand(a.projectCommand(), a.secretCommand(), a.doctorCommand())
	root.AddCommand(a.backupCommand(), a.restoreCommand(), a.reconcileCommand(), a.rebuildCommand(), a.migrateDataCommand(), a.gcCommand())
	root.AddCommand(a.hookCommand(), a.versionCommand())
	return root
}

// ran marks an error as one of a command that ran; every other one is a usage error.
type ran struct{ err error }

func (r *ran) Error() string { return r.err.Error() }
func (r *ran) Unwrap() error { return r.err }

// exitError ends the program with a code and no further words.
type exitError int

func (exitError) Error() string { return "" }

// usage is a usage error found while a command ran.
func usage(what, next string) error {
	return &delivery.Error{Kind: delivery.KindInvalid, What: what, Next: next}
}

type runFunc func(ctx context.Context, args []string) error

// command makes a command whose errors are told apart from wrong usage.
func command(use, short string, args cobra.PositionalArgs, run runFunc) *cobra.Command {
	return &cobra.Command{Use: use, Short: short, Args: args, RunE: func(cmd *cobra.Command, args []string) error {
		if err := run(cmd.Context(), args); err != nil {
			return &ran{err}
		}
		return nil
	}}
}

// group makes a command that only has other commands.
func group(use, short string, commands ...*cobra.Command) *cobra.Command {
	g := &cobra.Command{Use: use, Short: short, Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	g.AddCommand(commands...)
	return g
}

// exit prints the error and returns its exit code.
func (a *app) exit(err error) int {
	if err == nil {
		return 0
	}
	if code, ok := errors.AsType[exitError](err); ok {
		return int(code)
	}
	if _, ok := errors.AsType[*ran](err); !ok {
		a.complain("shunt: " + err.Error() + "\nHelp:  shunt --help")
		return delivery.KindInvalid.ExitCode()
	}
	if errors.Is(err, context.Canceled) {
		a.complain("interrupted")
		return exitInterrupted
	}
	if e, ok := errors.AsType[*delivery.Error](err); ok {
		a.complain(e.Error())
		return e.Kind.ExitCode()
	}
	a.complain("shunt: " + err.Error())
	return 1
}
