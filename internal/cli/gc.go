package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/shuntcd/shunt/internal/server"
)

// keeping are the flags that say how long things are kept.
type keeping struct{ logs, artifacts string }

func (a *app) keepFlags(cmd *cobra.Command, k *keeping) {
	cmd.Flags().StringVar(&k.logs, "keep-logs", a.getenv("SHUNT_KEEP_LOGS"), "how long after a build's end its logs are kept, such as 90d (for ever)")
	cmd.Flags().StringVar(&k.artifacts, "keep-artifacts", a.getenv("SHUNT_KEEP_ARTIFACTS"), "the same for the bytes of its artifacts, such as 180d (for ever)")
}

func (k keeping) retention() (r server.Retention, err error) {
	if r.Logs, err = server.ParseKeep(k.logs); err != nil {
		return r, err
	}
	r.Artifacts, err = server.ParseKeep(k.artifacts)
	return r, err
}

func (a *app) gcCommand() *cobra.Command {
	var data string
	var k keeping
	var dry bool
	cmd := command("gc", "Remove old logs and artifacts, as serve does once a day", cobra.NoArgs, func(ctx context.Context, _ []string) error {
		r, err := k.retention()
		if err != nil {
			return err
		}
		if r == (server.Retention{}) {
			return usage("everything is kept for ever, so there is nothing to remove", "Say how long:  --keep-logs 90d --keep-artifacts 180d")
		}
		out, err := r.Collect(ctx, data, dry)
		if err != nil || a.json {
			return a.emitUnless(out, err)
		}
		word := "removed"
		if dry {
			word = "would be removed"
		}
		a.printf("%s  %s and %s, %s, %s\n", a.paint(green, "ok"), count(out.Blobs, "artifact"), count(out.Logs, "log"), size(out.Bytes), word)
		return nil
	})
	cmd.Long = "Gc removes the logs and the bytes of artifacts of builds that ended long ago. It never touches an open build, what an\nenvironment runs or ran as one of the last five builds before, or anything younger. Rows, digests and tags stay."
	a.dataFlag(cmd, &data)
	a.keepFlags(cmd, &k)
	cmd.Flags().BoolVar(&dry, "dry-run", false, "only say what would be removed")
	return cmd
}
