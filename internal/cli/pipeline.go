package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"github.com/shuntcd/shunt/internal/delivery"
	"github.com/shuntcd/shunt/internal/pipeline"
)

// readPipeline reads and parses a pipeline file of the work tree.
func readPipeline(file string) (*pipeline.Pipeline, error) {
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &delivery.Error{Kind: delivery.KindNotFound, What: "there is no " + file + " here", Next: "Write one:  shunt init", Err: err}
	}
	if err != nil {
		return nil, fmt.Errorf("read the pipeline file: %w", err)
	}
	return pipeline.Parse(file, data)
}

func (a *app) lintCommand() *cobra.Command {
	return command("lint [file]", "Check a pipeline file", cobra.MaximumNArgs(1), func(_ context.Context, args []string) error {
		file := pipeline.FileName
		if len(args) > 0 {
			file = args[0]
		}
		p, err := readPipeline(file)
		if problems, ok := errors.AsType[pipeline.Problems](err); ok {
			if a.json {
				if err := emitAll(a, problems); err != nil {
					return err
				}
			} else {
				a.complain(problems.Error())
			}
			return exitError(1)
		}
		if err != nil {
			return err
		}
		if !a.json {
			a.printf("%s  %s: %s, %s\n", a.paint(green, "ok"), file, count(len(p.Jobs), "job"), count(len(p.Environments), "environment"))
		}
		return nil
	})
}

func (a *app) schemaCommand() *cobra.Command {
	var reference bool
	cmd := command("schema", "Print the JSON Schema of the pipeline file", cobra.NoArgs, func(context.Context, []string) error {
		text := pipeline.Schema()
		if reference {
			text = pipeline.Reference()
		}
		a.printf("%s", text)
		return nil
	})
	cmd.Flags().BoolVar(&reference, "reference", false, "print the reference for people instead, as Markdown")
	return cmd
}

func (a *app) initCommand() *cobra.Command {
	return command("init", "Write a pipeline file for the project in this directory", cobra.NoArgs, func(context.Context, []string) error {
		kind, text := pipeline.Detect(os.DirFS("."))
		f, err := os.OpenFile(pipeline.FileName, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644) //nolint:gosec // G302: it is committed
		if errors.Is(err, fs.ErrExist) {
			return &delivery.Error{Kind: delivery.KindConflict, What: "cannot write " + pipeline.FileName, Why: "it is here already", Next: "Check it:  shunt lint", Err: err}
		}
		if err != nil {
			return fmt.Errorf("write the pipeline file: %w", err)
		}
		_, err = f.Write(text)
		if err := errors.Join(err, f.Close()); err != nil {
			return fmt.Errorf("write the pipeline file: %w", err)
		}
		if kind == "" {
			a.printf("%s  %s   (nothing was recognised here: fill the commands in)\n", a.paint(green, "ok"), pipeline.FileName)
		} else {
			a.printf("%s  %s for %s\n", a.paint(green, "ok"), pipeline.FileName, kind)
		}
		a.printf("    look it through, then:  shunt lint && shunt run\n")
		return nil
	})
}
