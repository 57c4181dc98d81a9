package cli

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/shuntcd/shunt/internal/api"
	"github.com/shuntcd/shunt/internal/delivery"
)

func (a *app) freezeCommand() *cobra.Command {
	return group("freeze", "Plan times in which the main lane does not promote", a.freezePlanCommand(), a.freezeListCommand(), a.freezeEndCommand())
}

func (a *app) freezePlanCommand() *cobra.Command {
	var from, until, reason string
	cmd := command("plan [project]", "Plan a freeze: the main lane waits, hotfixes still ship", cobra.MaximumNArgs(1), func(ctx context.Context, args []string) (err error) {
		in := api.PlanFreeze{Reason: reason}
		if err := needReason(reason, "freeze plan"); err != nil {
			return err
		}
		if from != "" {
			if in.From, err = freezeTime("from", from, time.Local); err != nil {
				return err
			}
		}
		if in.Until, err = freezeTime("until", until, time.Local); err != nil {
			return err
		}
		c, project, err := a.project(ctx, args)
		if err != nil {
			return err
		}
		f, err := c.PlanFreeze(ctx, project, in)
		return a.freezeDone(f, err)
	})
	cmd.Long = "A freeze is a planned hold: from a moment to a moment promotions of the main lane wait, and go on by\nthemselves. Hotfixes still ship. A time is one on your clock, such as \"2026-12-24 18:00\", or RFC 3339."
	f := cmd.Flags()
	f.StringVar(&from, "from", "", "when it begins (now)")
	f.StringVar(&until, "until", "", "when promotions go on (needed)")
	f.StringVarP(&reason, "message", "m", "", "why (needed)")
	return cmd
}

// freezeTime reads a moment: RFC 3339, or a time on the clock of whoever types it.
func freezeTime(flag, text string, zone *time.Location) (time.Time, error) {
	for _, form := range []string{time.RFC3339, "2006-01-02 15:04", "2006-01-02T15:04"} {
		if t, err := time.ParseInLocation(form, text, zone); err == nil {
			return t.UTC(), nil
		}
	}
	return time.Time{}, usage(fmt.Sprintf("--%s %q is no date and time", flag, clean(text)), `Such as  --`+flag+` "2026-12-24 18:00"  on your clock, or RFC 3339`)
}

func (a *app) freezeListCommand() *cobra.Command {
	return command("list [project]", "List planned, active and past freezes", cobra.MaximumNArgs(1), func(ctx context.Context, args []string) error {
		c, project, err := a.project(ctx, args)
		if err != nil {
			return err
		}
		freezes, err := c.Freezes(ctx, project)
		if err != nil {
			return err
		}
		if a.json {
			return emitAll(a, freezes)
		}
		for _, f := range freezes {
			a.printFreeze(f)
		}
		if len(freezes) == 0 {
			a.note("no freeze was ever planned")
		}
		return nil
	})
}

func (a *app) freezeEndCommand() *cobra.Command {
	var reason string
	cmd := command("end [project] freeze", "End a freeze before its time, or take it back", cobra.RangeArgs(1, 2), func(ctx context.Context, args []string) error {
		if err := needReason(reason, "freeze end"); err != nil {
			return err
		}
		last := len(args) - 1
		id, err := strconv.ParseInt(args[last], 10, 64)
		if err != nil || id < 1 {
			return usage(fmt.Sprintf("%q is not the number of a freeze", clean(args[last])), "shunt freeze list   lists them")
		}
		c, project, err := a.project(ctx, args[:last])
		if err != nil {
			return err
		}
		f, err := c.EndFreeze(ctx, project, id, reason)
		return a.freezeDone(f, err)
	})
	cmd.Flags().StringVarP(&reason, "message", "m", "", "why (needed)")
	return cmd
}

func (a *app) freezeDone(f api.Freeze, err error) error {
	if err != nil {
		return err
	}
	if a.json {
		return a.emit(f)
	}
	a.printFreeze(f)
	return nil
}

func (a *app) printFreeze(f api.Freeze) {
	color, words := faint, ""
	switch f.State {
	case delivery.FreezeActive:
		color = yellow
	case delivery.FreezeEnded:
		words = fmt.Sprintf("; ended %s by %s: %s", dated(f.EndedAt), clean(f.EndedBy), clean(f.EndedWhy))
	case delivery.FreezePlanned, delivery.FreezeOver:
	}
	a.printf("%5d  %s  %s  %s (%s)%s\n", f.ID, a.paint(color, pad(string(f.State), 7)), fromUntil(f), clean(f.Reason), clean(f.By), words)
}

func fromUntil(f api.Freeze) string { return "from " + dated(f.From) + " until " + dated(f.Until) }

// dated is at with its year, for a time that may be far.
func dated(t time.Time) string { return t.Local().Format("Mon 2 Jan 2006 15:04") }
