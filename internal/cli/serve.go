package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/shuntcd/shunt/internal/delivery"
	"github.com/shuntcd/shunt/internal/notify"
	"github.com/shuntcd/shunt/internal/server"
)

// dataDefault is where `shunt serve` keeps everything unless told otherwise.
const dataDefault = "shunt-data"

func (a *app) dataFlag(cmd *cobra.Command, dir *string) {
	cmd.Flags().StringVar(dir, "data", a.envOr("SHUNT_DATA", dataDefault), "data directory (SHUNT_DATA)")
}

func (a *app) envOr(name, otherwise string) string {
	if v := a.getenv(name); v != "" {
		return v
	}
	return otherwise
}

// envInt is a number of the environment; 0: it is not set.
func (a *app) envInt(name string) int {
	n, err := strconv.Atoi(a.getenv(name))
	if err != nil {
		return 0
	}
	return n
}

func (a *app) serverCommands() []*cobra.Command {
	var data string
	link := command("login-link", "Print a link that signs in once", cobra.NoArgs, func(ctx context.Context, _ []string) error {
		url, err := server.LoginLink(ctx, data)
		if err != nil {
			return err
		}
		a.printf("%s\n", url)
		return nil
	})
	a.dataFlag(link, &data)
	return []*cobra.Command{a.serveCommand(), a.workerCommand(), link, group("token", "Tokens of the command line", a.tokenCreate())}
}

func (a *app) tokenCreate() *cobra.Command {
	var data string
	cmd := command("create NAME", "Make a token and print it, once", cobra.ExactArgs(1), func(ctx context.Context, args []string) error {
		if data != "" {
			token, err := server.NewToken(ctx, data, args[0])
			if err != nil {
				return err
			}
			a.printf("%s\n", token)
			return nil
		}
		c, _, err := a.client(ctx)
		if err != nil {
			return err
		}
		t, err := c.CreateToken(ctx, args[0])
		if err != nil {
			return err
		}
		a.printf("%s\n", t.Token)
		return nil
	})
	cmd.Flags().StringVar(&data, "data", a.getenv("SHUNT_DATA"), "data directory of a server on this machine, instead of asking one (SHUNT_DATA)")
	return cmd
}

// serving are the flags of serve.
type serving struct {
	cfg          server.Config
	smtp         notify.SMTP
	passwordFile string
	tls          string
	keep         keeping
	pools        string
}

func (a *app) serveCommand() *cobra.Command {
	var s serving
	cmd := command("serve", "Run the server", cobra.NoArgs, func(ctx context.Context, _ []string) error { return a.serve(ctx, s) })
	cmd.Long = "Serve runs the server: pages, API, builds. Everything is kept in the data directory.\nEach flag can be set by an environment variable too: --public-url is SHUNT_PUBLIC_URL."
	a.servingFlags(cmd, &s)
	return cmd
}

// workerCommand is a server without pages: it drives builds and runs jobs.
func (a *app) workerCommand() *cobra.Command {
	s := serving{cfg: server.Config{Worker: true}}
	cmd := command("worker", "Drive builds and run jobs beside other servers", cobra.NoArgs, func(ctx context.Context, _ []string) error { return a.serve(ctx, s) })
	cmd.Long = "Worker shares the work of the servers on one PostgreSQL: it drives builds and its runner runs their jobs. It shows no pages;\n--listen answers /livez and /readyz. It needs --database, --cluster and a copy of the servers' secret.key in its data directory."
	a.servingFlags(cmd, &s)
	return cmd
}

func (a *app) servingFlags(cmd *cobra.Command, s *serving) {
	a.dataFlag(cmd, &s.cfg.DataDir)
	f := cmd.Flags()
	f.StringVar(&s.cfg.Database, "database", a.getenv("SHUNT_DATABASE"), "postgres:// URL; without one a SQLite file in the data directory (SHUNT_DATABASE)")
	f.StringVar(&s.cfg.Objects, "objects", a.getenv("SHUNT_OBJECTS"), "s3://BUCKET/PREFIX?endpoint=URL&region=NAME: keep artifacts and logs in this object store, for all servers; its keys are in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (SHUNT_OBJECTS)")
	f.StringVar(&s.cfg.Shared, "shared", a.getenv("SHUNT_SHARED"), "directory, the same on all servers, for artifacts and logs (SHUNT_SHARED)")
	f.StringVar(&s.cfg.Listen, "listen", a.envOr("SHUNT_LISTEN", "localhost:8080"), "host:port")
	f.StringVar(&s.cfg.PublicURL, "public-url", a.getenv("SHUNT_PUBLIC_URL"), "address as people reach it (http://<listen>)")
	f.StringVar(&s.smtp.Host, "smtp-host", a.getenv("SHUNT_SMTP_HOST"), "mail server; without one no mail is sent")
	f.IntVar(&s.smtp.Port, "smtp-port", a.envInt("SHUNT_SMTP_PORT"), "its port (by --smtp-tls: 587, 465 or 25)")
	f.StringVar(&s.smtp.User, "smtp-user", a.getenv("SHUNT_SMTP_USER"), "user to sign in as")
	f.StringVar(&s.passwordFile, "smtp-password-file", a.getenv("SHUNT_SMTP_PASSWORD_FILE"), "file with the password")
	f.StringVar(&s.tls, "smtp-tls", a.envOr("SHUNT_SMTP_TLS", "starttls"), "starttls, tls, opportunistic or none")
	f.StringVar(&s.cfg.MailFrom, "mail-from", a.getenv("SHUNT_MAIL_FROM"), "sender of mails")
	f.StringVar(&s.cfg.MailDir, "mail-dir", a.getenv("SHUNT_MAIL_DIR"), "write mails here, and show them on a page, instead of sending them")
	f.IntVar(&s.cfg.Workers, "workers", a.envInt("SHUNT_WORKERS"), "builds of the main lane at once (4)")
	f.IntVar(&s.cfg.HotfixWorkers, "hotfix-workers", a.envInt("SHUNT_HOTFIX_WORKERS"), "builds of the hotfix lane at once, which never wait for the main lane (2)")
	a.keepFlags(cmd, &s.keep)
	f.DurationVar(&s.cfg.Poll, "poll", 0, "how often a quiet repository is looked at (30s)")
	f.StringVar(&s.cfg.Cluster, "cluster", a.getenv("SHUNT_CLUSTER"), "host:port for runners, where several servers share a PostgreSQL; without one this server is alone")
	f.StringVar(&s.cfg.ClusterAddress, "cluster-address", a.getenv("SHUNT_CLUSTER_ADDRESS"), "that address as runners on other machines reach it")
	f.StringVar(&s.pools, "pools", a.getenv("SHUNT_POOLS"), "pools that this server's runner belongs to, with commas (runs_on of the pipeline file)")
	f.IntVar(&s.cfg.Jobs, "jobs", a.envInt("SHUNT_JOBS"), "jobs of its pools that the runner takes at once (number of processors)")
}

func (a *app) serve(ctx context.Context, s serving) error {
	if err := s.mail(); err != nil {
		return err
	}
	var err error
	if s.cfg.Retention, err = s.keep.retention(); err != nil {
		return err
	}
	for pool := range strings.SplitSeq(s.pools, ",") {
		if pool = strings.TrimSpace(pool); pool != "" {
			s.cfg.Pools = append(s.cfg.Pools, pool)
		}
	}
	exe, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	s.cfg.Exe, s.cfg.Version = exe, version()
	s.cfg.Log = slog.New(slog.NewTextHandler(a.err, nil))
	_, err = os.Stat(filepath.Join(s.cfg.DataDir, "database")) // noted by every server
	first := errors.Is(err, fs.ErrNotExist)
	return server.Run(ctx, s.cfg, func(url string) {
		if s.cfg.Worker {
			a.printf("shunt %s works for %s from %s\n", version(), url, s.cfg.DataDir)
			return
		}
		a.printf("shunt %s serves %s from %s\n", version(), url, s.cfg.DataDir)
		if !first {
			return
		}
		link, err := server.LoginLink(ctx, s.cfg.DataDir)
		if err != nil {
			a.note("no one-time link could be made (%v); make one with:  shunt login-link --data %s", err, s.cfg.DataDir)
			return
		}
		a.printf("Sign in, once:  %s\nAnother link:   shunt login-link --data %s\n", link, s.cfg.DataDir)
	})
}

// mail completes the configuration of the mail server.
func (s *serving) mail() error {
	if s.smtp.Host == "" {
		return nil
	}
	switch s.tls {
	case "starttls", "tls", "opportunistic", "none":
	default:
		return usage("unknown --smtp-tls "+clean(s.tls), "One of:  starttls  tls  opportunistic  none")
	}
	s.smtp.TLS = s.tls
	if s.passwordFile != "" {
		b, err := os.ReadFile(s.passwordFile)
		if err != nil {
			return &delivery.Error{Kind: delivery.KindInvalid, What: "cannot read the mail password", Why: err.Error(), Err: err}
		}
		s.smtp.Password = strings.TrimRight(string(b), "\r\n")
	}
	s.cfg.SMTP = &s.smtp
	return nil
}
