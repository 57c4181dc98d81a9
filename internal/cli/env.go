package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/shuntcd/shunt/internal/api"
	"github.com/shuntcd/shunt/internal/delivery"
)

func (a *app) envCommand() *cobra.Command {
	list := command("list [project]", "List the environments that are up, or were in the last day", cobra.MaximumNArgs(1), func(ctx context.Context, args []string) error {
		c, project, err := a.project(ctx, args)
		if err != nil {
			return err
		}
		instances, err := c.Instances(ctx, project)
		if err != nil {
			return err
		}
		if a.json {
			return emitAll(a, instances)
		}
		for _, i := range instances {
			a.printInstance(i)
		}
		if len(instances) == 0 {
			a.note("no environment is up")
		}
		return nil
	})
	var keepFor string
	keep := a.instanceAct("keep", "Keep an environment longer", func(ctx context.Context, c *api.Client, project, id string) (api.Instance, error) {
		return c.Keep(ctx, project, id, api.Keep{Extend: keepFor})
	})
	keep.Flags().StringVar(&keepFor, "for", "2h", "how long from now")
	return group("env", "See, keep and destroy environments", list, keep,
		a.instanceAct("pin", "Keep an environment until its build is decided", pin(true)),
		a.instanceAct("unpin", "Let a pinned environment expire again", pin(false)),
		a.instanceAct("destroy", "Destroy an environment now", func(ctx context.Context, c *api.Client, project, id string) (api.Instance, error) {
			return c.Destroy(ctx, project, id)
		}))
}

type instanceAct func(ctx context.Context, c *api.Client, project, id string) (api.Instance, error)

func pin(on bool) instanceAct {
	return func(ctx context.Context, c *api.Client, project, id string) (api.Instance, error) {
		return c.Keep(ctx, project, id, api.Keep{Pin: &on})
	}
}

// instanceAct makes a command on one environment, named by its id or its build.
func (a *app) instanceAct(name, short string, act instanceAct) *cobra.Command {
	return command(name+" [project] environment|build", short, cobra.RangeArgs(1, 2), func(ctx context.Context, args []string) error {
		last := len(args) - 1
		c, project, err := a.project(ctx, args[:last])
		if err != nil {
			return err
		}
		id, err := instanceID(ctx, c, project, args[last])
		if err != nil {
			return err
		}
		i, err := act(ctx, c, project, id)
		if err != nil {
			return err
		}
		if a.json {
			return a.emit(i)
		}
		a.printInstance(i)
		return nil
	})
}

// instanceID finds the one environment of a build; an id is left as it is.
func instanceID(ctx context.Context, c *api.Client, project, arg string) (string, error) {
	number, err := buildNumber(arg)
	if err != nil {
		return arg, nil //nolint:nilerr // not a number, so it is an id
	}
	instances, err := c.Instances(ctx, project)
	if err != nil {
		return "", err
	}
	id := ""
	for _, i := range instances {
		if i.Number != number || i.State == delivery.InstanceDown {
			continue
		}
		if id != "" {
			return "", usage("build "+itoa(number)+" has several environments", "Name one:  "+id+"  "+i.ID)
		}
		id = i.ID
	}
	if id == "" {
		return "", &delivery.Error{Kind: delivery.KindNotFound, What: "build " + itoa(number) + " has no environment", Next: "shunt env list " + project}
	}
	return id, nil
}

func (a *app) printInstance(i api.Instance) {
	until := "until " + at(i.ExpiresAt)
	switch {
	case i.State == delivery.InstanceDown:
		until = "since " + at(i.DownAt)
	case i.Pinned:
		until = "pinned"
	}
	a.printf("%s  %-10s  %s  %s  %s\n", clean(i.ID), i.State, until, clean(i.URL), clean(i.Reason))
}
