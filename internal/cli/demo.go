package cli

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/shuntcd/shunt/internal/delivery"
	"github.com/shuntcd/shunt/internal/demo"
)

// demoPatience is how long the demo's story goes on asking a server that is
// being restarted.
const demoPatience = time.Minute

func (a *app) demoCommands() []*cobra.Command {
	var o demo.Options
	var serve bool
	cmd := command("demo", "Play the whole hotfix story on this machine", cobra.NoArgs, func(ctx context.Context, _ []string) error {
		o.Auto = o.Auto || !serve && !a.terminal()
		o.Out, o.Env, o.Clock, o.HTTP, o.Paint = a.out, a.env, a.clock, patientClient(max(a.patience, demoPatience), nil), a.paint
		dir, err := filepath.Abs(o.Dir)
		if err != nil {
			return err
		}
		o.Dir = dir
		if o.Exe, err = os.Executable(); err != nil {
			return err
		}
		o.EndRunner = func(ctx context.Context, data string) error { return endRunner(ctx, filepath.Join(data, "runner")) }
		return demo.Run(ctx, o)
	})
	cmd.Long = "Demo makes one folder with a web shop, its git repository, a Shunt server and a bug in production,\nand shows how a hotfix gets there. With --auto, and without a terminal, it plays the story itself,\nchecks every claim, and ends with 0 only if all hold."
	f := cmd.Flags()
	f.BoolVar(&o.Auto, "auto", false, "play the story and check every claim")
	f.BoolVar(&serve, "serve", false, "serve until interrupted, also without a terminal")
	f.StringVar(&o.Dir, "dir", "shunt-demo", "folder to make")
	f.IntVar(&o.Port, "port", 8080, "port of the server; another one when it is taken; 0: any")
	f.StringVar(&o.Database, "database", "", "postgres:// URL of an empty database; without one a SQLite file in the folder")
	f.StringVar(&o.Data, "data", "", "data directory of the server (DIR/data)")
	_ = f.MarkHidden("data") // for the fault suite, which has a disk of its own for it
	cmd.MarkFlagsMutuallyExclusive("auto", "serve")
	shop := group("demo-shop", "The web shop of the demo", a.shopServe(), a.shopStart(), a.shopStop(), a.shopCheck(), a.shopLabel())
	shop.Hidden = true
	return []*cobra.Command{cmd, shop}
}

// shopFlags are shared by serve and start.
func shopFlags(cmd *cobra.Command, s *demo.Serve, labels *[]string) {
	f := cmd.Flags()
	f.StringVar(&s.Source.Dir, "dir", "shop", "files of the shop")
	f.StringVar(&s.Source.Archive, "archive", "", "packed shop, instead of --dir")
	f.StringVar(&s.State, "state", "", "state directory")
	f.StringVar(&s.Address, "addr", "localhost:0", "host:port")
	f.BoolVar(&s.AnyPort, "any-port", false, "take another port when that one is taken")
	f.StringArrayVar(labels, "label", nil, "key=value that /version shows")
}

func parseLabels(list []string) map[string]string {
	out := map[string]string{}
	for _, l := range list {
		k, v, _ := strings.Cut(l, "=")
		out[k] = v
	}
	return out
}

func (a *app) shopServe() *cobra.Command {
	var s demo.Serve
	var labels []string
	cmd := command("serve", "Serve the shop", cobra.NoArgs, func(ctx context.Context, _ []string) error {
		s.Labels = parseLabels(labels)
		return s.Run(ctx)
	})
	shopFlags(cmd, &s, &labels)
	return cmd
}

func (a *app) shopStart() *cobra.Command {
	var s demo.Serve
	var labels []string
	cmd := command("start", "Start the shop in the background and print url=...", cobra.NoArgs, func(ctx context.Context, _ []string) error {
		s.Labels = parseLabels(labels)
		exe, err := os.Executable()
		if err != nil {
			return err
		}
		if s.Source.Archive == "" {
			if s.Source.Dir, err = filepath.Abs(s.Source.Dir); err != nil {
				return err
			}
		}
		state, err := demo.Start(ctx, exe, s)
		if err != nil {
			return err
		}
		a.printf("url=%s\n", state.URL())
		return nil
	})
	shopFlags(cmd, &s, &labels)
	return cmd
}

func (a *app) shopStop() *cobra.Command {
	var state string
	cmd := command("stop", "End the shop that was started from a state directory", cobra.NoArgs, func(ctx context.Context, _ []string) error {
		return demo.Stop(ctx, state)
	})
	cmd.Flags().StringVar(&state, "state", "", "state directory")
	return cmd
}

func (a *app) shopLabel() *cobra.Command {
	var state string
	cmd := command("label NAME", "Print a label of the running shop", cobra.ExactArgs(1), func(ctx context.Context, args []string) error {
		labels, err := demo.Labels(ctx, state)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		a.printf("%s\n", labels[args[0]])
		return nil
	})
	cmd.Flags().StringVar(&state, "state", "", "state directory")
	return cmd
}

func (a *app) shopCheck() *cobra.Command {
	c := demo.Check{Suite: "petstore"}
	cmd := command("check", "Test the shop", cobra.NoArgs, func(ctx context.Context, _ []string) error {
		c.Out, c.Clock = a.out, delivery.SystemClock{}
		failed, err := c.Run(ctx)
		if err != nil {
			return err
		}
		if failed > 0 {
			return exitError(1)
		}
		return nil
	})
	f := cmd.Flags()
	f.StringVar(&c.Source.Dir, "dir", "shop", "files of the shop")
	f.StringVar(&c.Source.Archive, "archive", "", "packed shop, instead of --dir")
	f.StringVar(&c.URL, "url", "", "running shop, instead of files")
	f.StringVar(&c.List, "list", "", "file with the checks")
	f.StringVar(&c.JUnit, "junit", "", "report to write")
	return cmd
}
