package cli

import (
	"cmp"
	"context"
	"log/slog"
	"os"

	"github.com/spf13/cobra"

	"github.com/shuntcd/shunt/internal/api"
	"github.com/shuntcd/shunt/internal/server"
)

func (a *app) backupCommand() *cobra.Command {
	b := server.Backup{Version: version()}
	cmd := command("backup", "Write a verified backup of a data directory, while its server runs", cobra.NoArgs, func(ctx context.Context, _ []string) error {
		out, err := b.Make(ctx, a.clock)
		if err != nil {
			return err
		}
		a.printf("%s  %s: %s, %s, read back and verified\n", a.paint(green, "ok"), clean(out.File), count(out.Files, "file"), size(out.Bytes))
		a.note("secret.key is not in it: keep a copy of it elsewhere, for without it the stored secrets cannot be read.")
		if b.FilesOnly {
			a.note("the rows are not in it: they are in the dump of PostgreSQL.")
		}
		if out.Elsewhere != "" {
			a.note("artifacts and logs are not in it, only their names: they are in %s, which you back up by its own means.", clean(out.Elsewhere))
		}
		for _, sha := range out.Missing {
			a.note("lost before this backup: the artifact with sha256 %s is not in the store as it was made", sha)
		}
		if len(out.Missing) > 0 {
			return exitError(1)
		}
		return nil
	})
	cmd.Long = "Backup writes one tar file: the database as of one moment, artifacts, logs and hook secrets, with a MANIFEST\nof SHA-256 digests. secret.key is kept out on purpose. The exit code is 1 when an artifact was lost before."
	a.dataFlag(cmd, &b.Data)
	cmd.Flags().StringVar(&b.To, "to", ".", "file that does not exist, or a directory, in which it is named by the time")
	cmd.Flags().BoolVar(&b.FilesOnly, "files-only", false, "with PostgreSQL: the files, after its rows were dumped")
	verify := command("verify FILE", "Read a backup from end to end and compare every digest", cobra.ExactArgs(1), func(ctx context.Context, args []string) error {
		about, err := server.VerifyBackup(ctx, args[0])
		if err != nil {
			return err
		}
		if a.json {
			return a.emit(about)
		}
		a.printf("%s  made %s by shunt %s, %s\n", a.paint(green, "ok"), at(about.MadeAt), clean(about.Version), map[bool]string{true: "with its database", false: "without rows: they are in PostgreSQL"}[about.Database == "sqlite"])
		if about.Files != "" {
			a.printf("    Artifacts and logs were kept in %s; ELSEWHERE in the backup lists them.\n", clean(about.Files))
		}
		return nil
	})
	cmd.AddCommand(verify)
	return cmd
}

func (a *app) restoreCommand() *cobra.Command {
	var data, database string
	cmd := command("restore FILE", "Lay a backup out as a new data directory", cobra.ExactArgs(1), func(ctx context.Context, args []string) error {
		about, err := server.Restore(ctx, args[0], data, database, a.clock)
		if err != nil {
			return err
		}
		a.printf("%s  %s is as it was at %s\n", a.paint(green, "ok"), clean(data), at(about.MadeAt))
		a.printf("    1. Put secret.key back into it, from where it is kept apart. Without it the stored secrets stay unreadable.\n")
		a.printf("    2. shunt serve --data %s     (it starts nothing yet)\n", clean(data))
		a.printf("    3. shunt reconcile           (what git knows and this database does not)\n")
		a.printf("    4. shunt reconcile --confirm -m \"why\"\n")
		return nil
	})
	a.dataFlag(cmd, &data)
	cmd.Flags().StringVar(&database, "database", "", "postgres:// URL into which the rows were restored, of a backup without them")
	return cmd
}

func (a *app) reconcileCommand() *cobra.Command {
	var confirm bool
	var reason string
	cmd := command("reconcile", "Compare a restored server with git, and let it work again", cobra.NoArgs, func(ctx context.Context, _ []string) error {
		c, _, err := a.client(ctx)
		if err != nil {
			return err
		}
		if !confirm {
			found, err := c.Reconcile(ctx)
			if err != nil || a.json {
				return a.emitUnless(found, err)
			}
			a.printReconcile(found)
			return nil
		}
		if err := needReason(reason, "reconcile --confirm"); err != nil {
			return err
		}
		found, err := c.ConfirmReconcile(ctx, reason)
		if err != nil || a.json {
			return a.emitUnless(found, err)
		}
		a.printf("%s  %s adopted; the server works again\n", a.paint(green, "ok"), count(len(found.Differences), "difference"))
		return nil
	})
	cmd.Flags().BoolVar(&confirm, "confirm", false, "adopt what git says (needs -m)")
	cmd.Flags().StringVarP(&reason, "message", "m", "", "why")
	return cmd
}

func (a *app) emitUnless(v any, err error) error {
	if err != nil {
		return err
	}
	return a.emit(v)
}

func (a *app) printReconcile(r api.Reconcile) {
	if !r.Active {
		a.printf("The server works: there is nothing to reconcile.\n")
		return
	}
	a.printf("Waiting since %s: %s.\n", at(r.Since), clean(r.Why))
	if len(r.Differences) == 0 {
		a.printf("Nothing differs from git and the artifact store.\n")
	}
	for _, d := range r.Differences {
		color := map[string]string{"remote": red, "artifact": yellow, "secret": yellow}[d.Kind]
		word := d.Project
		if d.Kind != "git" {
			word += ", " + d.Kind
		}
		if color != "" {
			word = a.paint(color, clean(word))
		}
		a.printf("  %s: %s\n", word, clean(d.Words))
	}
	a.printf("Adopt this, and work again:  shunt reconcile --confirm -m \"why\"\n")
}

func (a *app) rebuildCommand() *cobra.Command {
	var r server.Rebuild
	var fromGit bool
	cmd := command("rebuild --from-git", "Read a project back from its annotated tags, into an empty database", cobra.NoArgs, func(ctx context.Context, _ []string) error {
		r.Project = cmp.Or(a.conf.Project, a.getenv("SHUNT_PROJECT"), projectName(r.URL))
		switch {
		case !fromGit:
			return usage("rebuild reads from git alone", "Say so:  shunt rebuild --from-git --data DIR --project NAME --url URL")
		case r.URL == "":
			return usage("rebuild needs the address of the repository", "shunt rebuild --from-git --data DIR --project NAME --url URL")
		}
		if info, err := os.Stat(r.URL); err == nil && info.IsDir() {
			r.Local = true
		}
		out, err := r.Make(ctx, slog.New(slog.NewTextHandler(a.err, &slog.HandlerOptions{Level: slog.LevelWarn})))
		if err != nil {
			return err
		}
		if a.json {
			return a.emit(out)
		}
		for _, s := range out.Strange {
			a.note("a tag is not believed: %s", clean(s))
		}
		a.printf("%s  project %s: %s, production is build %d, the next is %d\n", a.paint(green, "ok"), r.Project, count(out.Builds, "build"), out.Production, out.NextBuild)
		a.printf("    Not in git, and so not back: logs, tests, secrets, people and the bytes of artifacts.\n")
		a.printf("    Webhook secret, shown once: %s\n", out.WebhookSecret)
		a.printf("    Start it:  shunt serve --data %s\n", clean(r.Data))
		return nil
	})
	a.dataFlag(cmd, &r.Data)
	f := cmd.Flags()
	f.BoolVar(&fromGit, "from-git", false, "from the annotated tags of the repository")
	f.StringVar(&r.URL, "url", "", "the repository")
	f.BoolVar(&r.Local, "local", false, "the URL is a path on this machine")
	f.StringVar(&r.Database, "database", a.getenv("SHUNT_DATABASE"), "postgres:// URL; without one a SQLite file in the data directory (SHUNT_DATABASE)")
	return cmd
}

func (a *app) migrateDataCommand() *cobra.Command {
	var m server.Move
	cmd := command("migrate-data", "Move all rows from SQLite to PostgreSQL, or back", cobra.NoArgs, func(ctx context.Context, _ []string) error {
		moved, err := m.Make(ctx, a.clock)
		if err != nil {
			return err
		}
		if a.json {
			return emitAll(a, moved)
		}
		rows := 0
		for _, t := range moved {
			a.printf("  %-12s %8d rows  sha256 %s\n", t.Table, t.Rows, t.Digest)
			rows += t.Rows
		}
		a.printf("%s  %s moved, read back and compared\n", a.paint(green, "ok"), count(rows, "row"))
		a.note("no server starts on the old database any more; the data directory stays as it is.")
		return nil
	})
	cmd.Long = "Migrate-data copies every table in one transaction, reads it back and compares counts and digests. The target\nmust be empty, and the server must not run. Start it afterwards with, or without, --database."
	f := cmd.Flags()
	f.StringVar(&m.From, "from", "", "SQLite file or postgres:// URL")
	f.StringVar(&m.To, "to", "", "SQLite file or postgres:// URL, which holds no rows")
	f.StringVar(&m.Data, "data", a.getenv("SHUNT_DATA"), "data directory of the server (that of the SQLite file) (SHUNT_DATA)")
	return cmd
}
