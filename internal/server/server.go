// Package server wires everything together: it is the only place that knows
// every other package. It starts things in the order in which they need each
// other (disk lock, database, runner, engine, queue, listener) and stops them in
// the reverse order. Its views turn rows into what pages and the API show, and
// its acts turn requests into calls of the engine.
package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shuntcd/shunt/internal/auth"
	"github.com/shuntcd/shunt/internal/delivery"
	"github.com/shuntcd/shunt/internal/engine"
	"github.com/shuntcd/shunt/internal/gitrepo"
	"github.com/shuntcd/shunt/internal/notify"
	"github.com/shuntcd/shunt/internal/runner"
	"github.com/shuntcd/shunt/internal/store"
	"github.com/shuntcd/shunt/internal/web"
)

// Operator is the one account that exists until people have roles.
const Operator = "operator"

// Config is how a server runs.
type Config struct {
	DataDir       string // everything that Shunt keeps; made when missing
	Database      string // a postgres:// URL; empty: the SQLite file shunt.db in DataDir
	Objects       string // s3:// address of the object store that all servers share; empty: none
	Shared        string // directory that all servers share, for the same; not with Objects
	Listen        string // host:port
	PublicURL     string // as people reach it; empty: http://<Listen>
	SMTP          *notify.SMTP
	MailFrom      string
	MailDir       string // mails are written here instead of sent, and shown on a page
	Version       string
	Exe           string // this binary, to start the runner with
	Workers       int    // builds of the main lane that are driven at once; default 4
	HotfixWorkers int    // of the hotfix lane, which never waits for the main lane; default 2
	Worker        bool   // drives builds and shows no pages: Listen answers only /livez and /readyz
	Cluster       string // host:port on which runners reach this server, where several share a database; "": it is alone
	// ClusterAddress is Cluster as runners on other machines reach it; "": as it is.
	ClusterAddress string
	Pools          []string      // of runners that this server's belongs to
	Jobs           int           // of its pools that the runner takes at once; default the number of processors, at least 2
	Poll           time.Duration // how often a quiet remote is looked at; default 30 s
	Retention      Retention     // what is removed once a day; default nothing
	Log            *slog.Logger
}

// Server is a running server.
type Server struct {
	cfg        Config
	url        string
	store      *store.Store
	git        *gitrepo.Git
	kept       // blobs, files, logs
	runner     *runner.Client
	engine     *engine.Engine
	auth       *auth.Service
	secrets    *sealer
	clock      delivery.Clock
	background sync.WaitGroup
	cluster    *cluster // nil: this server is alone
	started    time.Time
	waits      atomic.Bool // in reconcile mode
	confirming sync.Mutex
	places     places // environments of the pipelines that pages have shown
}

// Run serves until ctx ends, then stops gracefully: jobs go on in the runner.
// ready is called once requests are answered.
func Run(ctx context.Context, cfg Config, ready func(url string)) error {
	cfg.defaults()
	if err := makeData(cfg.DataDir); err != nil {
		return err
	}
	unlock, err := lockDir(cfg.DataDir)
	if err != nil {
		return err
	}
	defer unlock()
	var lc net.ListenConfig
	listener, err := lc.Listen(ctx, "tcp", cfg.Listen)
	if err != nil {
		return &delivery.Error{Kind: delivery.KindInvalid, What: "cannot listen on " + cfg.Listen, Why: err.Error(), Next: "Choose another address:  --listen localhost:8081", Err: err}
	}
	defer listener.Close() //nolint:errcheck // the HTTP server closes it first
	s, err := open(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() {
		if err := s.store.Close(); err != nil {
			cfg.Log.Error("cannot close the database", "error", err)
		}
	}()
	s.url = strings.TrimSuffix(cfg.PublicURL, "/")
	if s.url == "" {
		s.url = "http://" + friendly(listener.Addr(), cfg.Listen)
	}
	return s.serve(ctx, listener, ready)
}

func (cfg *Config) defaults() {
	if cfg.Workers <= 0 {
		cfg.Workers = 4
	}
	if cfg.HotfixWorkers <= 0 {
		cfg.HotfixWorkers = 2
	}
	if cfg.Poll <= 0 {
		cfg.Poll = 30 * time.Second
	}
	if cfg.MailFrom == "" {
		cfg.MailFrom = "Shunt <shunt@localhost>"
	}
}

// friendly names the address that a person types: localhost as they said it.
func friendly(addr net.Addr, listen string) string {
	host, _, err := net.SplitHostPort(listen)
	tcp, ok := addr.(*net.TCPAddr)
	if err != nil || !ok || host == "" {
		return addr.String()
	}
	return net.JoinHostPort(host, fmt.Sprint(tcp.Port))
}

// open opens what lives in the data directory.
func open(ctx context.Context, cfg Config) (*Server, error) {
	abs, err := filepath.Abs(cfg.DataDir)
	if err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	cfg.DataDir = abs
	s := &Server{cfg: cfg, clock: delivery.SystemClock{}}
	// The commands that act on a data directory find the database by this file; it
	// may hold a password.
	if err := keepFile(filepath.Join(abs, "database"), []byte(cfg.Database)); err != nil {
		return nil, fmt.Errorf("note the database: %w", err)
	}
	if s.secrets, err = openSealer(filepath.Join(abs, "secret.key")); err != nil {
		return nil, err
	}
	if s.kept, err = (place{Objects: cfg.Objects, Shared: cfg.Shared}).open(abs, cfg.Log); err != nil {
		return nil, err
	}
	if err := s.note(abs); err != nil {
		return nil, err
	}
	if s.git, err = gitrepo.New(gitrepo.Config{Dir: filepath.Join(abs, "mirrors"), Home: filepath.Join(abs, "git-home"), Log: cfg.Log, Shared: cfg.Cluster != ""}); err != nil {
		return nil, err
	}
	s.runner = runner.NewClient(filepath.Join(abs, "runner"))
	if s.store, err = openStore(ctx, cfg.Database, abs, cfg.Log, s.clock); err != nil {
		return nil, err
	}
	s.auth = auth.New(s.store, s.clock)
	if err := s.refuseMoved(ctx); err != nil {
		return nil, errors.Join(err, s.store.Close())
	}
	return s, nil
}

// exitDisk is the exit code of a process whose disk failed.
const exitDisk = 74 // EX_IOERR of sysexits.h

func openStore(ctx context.Context, database, dir string, log *slog.Logger, clock delivery.Clock) (*store.Store, error) {
	return store.Open(ctx, store.Config{Database: cmp.Or(database, filepath.Join(dir, "shunt.db")), Clock: clock, Log: log, Fatal: func(err error) {
		log.Error("the process ends, for it can no longer know what is saved", "error", err)
		os.Exit(exitDisk) //nolint:forbidigo // a panic would be caught by whoever guards a request or a job, and the process would go on
	}})
}

// serve runs the parts until ctx ends.
func (s *Server) serve(ctx context.Context, listener net.Listener, ready func(url string)) error {
	id, err := s.identity(ctx)
	if err != nil {
		return err
	}
	if err := s.claim(ctx, s.store, id); err != nil {
		return err
	}
	instance, err := instanceName(filepath.Join(s.cfg.DataDir, "instance"))
	if err != nil {
		return err
	}
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	if err := s.joinCluster(ctx, work, instance); err != nil {
		return err
	}
	handler, err := s.wire(id, instance)
	if err != nil {
		return err
	}
	if err := s.loadReconcile(ctx); err != nil {
		return err
	}
	s.background.Go(func() { s.beat(work, instance) })
	if s.cluster != nil {
		s.background.Go(func() { s.serveCluster(work) })
	}
	found, err := s.ensureRunner(ctx)
	if err != nil {
		return err
	}
	if !found { // it outlives a server, but not a power loss
		if err := s.store.Check(ctx); err != nil {
			return err
		}
		s.verifyMirrors(ctx)
	}
	if s.cluster != nil {
		if err := s.awaitLease(ctx); err != nil {
			return err
		}
		s.background.Go(func() { s.engine.Follow(work) })
	}
	if err := s.store.StartQueue(work, store.QueueConfig{Main: s.cfg.Workers, Hotfix: s.cfg.HotfixWorkers, ID: fmt.Sprintf("%s-%d", instance, os.Getpid())}, s.engine); err != nil {
		return err
	}
	if err := s.engine.Start(ctx); err != nil {
		return err
	}
	for _, loop := range []func(context.Context){s.watchRunner, s.pollRemotes, s.sendMails, s.keepHouse, s.watchReconcile} {
		s.background.Go(func() { loop(work) })
	}
	if s.cfg.Worker {
		handler = healthOnly(handler)
	}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, BaseContext: func(net.Listener) context.Context { return work }}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	if ready != nil {
		ready(s.url)
	}
	select {
	case <-ctx.Done():
		err = nil
	case err = <-served:
	}
	s.engine.Stop()
	stop, done := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer done()
	err = errors.Join(err, s.store.StopQueue(stop))
	err = errors.Join(err, s.leave(stop, instance))
	cancel() // ends live pages, so that the listener can drain
	if shut := server.Shutdown(stop); shut != nil {
		err = errors.Join(err, server.Close())
	}
	s.background.Wait()
	return err
}

// wire makes the engine and the pages on what is open. Nothing runs yet.
func (s *Server) wire(id, instance string) (http.Handler, error) {
	s.engine = engine.New(engine.Config{
		Store: s.store, Git: s.git, Runner: s.runner, Blobs: s.blobs, Files: s.files, Logs: s.logs, Dir: s.cfg.DataDir, Clock: s.clock, Log: s.cfg.Log,
		ServerID: id, Owner: fmt.Sprintf("%s/%d", instance, os.Getpid()), URL: s.url, MailFrom: s.cfg.MailFrom, Open: s.secrets.open,
		Workers: map[delivery.Lane]int{delivery.LaneMain: s.cfg.Workers, delivery.LaneHotfix: s.cfg.HotfixWorkers}, Paused: s.waits.Load, Cluster: s.engineCluster(), Elapsed: s.elapsed(),
	})
	handler, err := web.New(web.Config{Backend: waiting{s}, Auth: s.auth, PublicURL: s.url, Version: s.cfg.Version, Mailbox: s.cfg.MailDir != "", Design: strings.HasPrefix(s.cfg.Version, "devel"), Log: s.cfg.Log, Clock: s.clock})
	if err != nil {
		return nil, fmt.Errorf("make pages: %w", err)
	}
	return handler, nil
}

// elapsed is the time since the machine was started, with the time that it slept.
// It is nil on PostgreSQL, whose clock is the one that counts.
func (s *Server) elapsed() func() time.Duration {
	if store.IsPostgres(s.cfg.Database) {
		return nil
	}
	return func() time.Duration {
		var now unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
			return 0 // no Linux since 2011
		}
		return time.Duration(now.Nano())
	}
}

// identity is the installation's id; the first start also makes the operator.
func (s *Server) identity(ctx context.Context) (string, error) {
	var id string
	err := s.store.Write(ctx, func(ctx context.Context, tx *store.Tx) (err error) {
		if id, err = tx.Meta(ctx, "server_id"); err != nil {
			return err
		}
		if id == "" {
			id = randomName()
			if err := tx.SetMeta(ctx, "server_id", id); err != nil {
				return err
			}
		}
		if s.cfg.Worker {
			if s.cfg.PublicURL != "" {
				return nil
			}
			if s.url, err = tx.Meta(ctx, "url"); err == nil && s.url == "" {
				err = &delivery.Error{Kind: delivery.KindInvalid, What: "cannot start a worker", Why: "no server has used this database yet, so nobody knows where its pages are", Next: "Start  shunt serve  first, or say it:  --public-url https://..."}
			}
			return err
		}
		return tx.SetMeta(ctx, "url", s.url)
	})
	if err != nil {
		return "", err
	}
	return id, ensureOperator(ctx, s.store)
}

func ensureOperator(ctx context.Context, st *store.Store) error {
	_, err := st.User(ctx, Operator)
	if delivery.IsKind(err, delivery.KindNotFound) {
		return st.InsertUser(ctx, delivery.User{Name: Operator, Operator: true})
	}
	return err
}

// withData opens the database of a data directory for one act of the command
// line; the server may run meanwhile.
func withData(ctx context.Context, dataDir string, f func(st *store.Store, a *auth.Service) error) error {
	database, err := os.ReadFile(filepath.Join(dataDir, "database"))
	if err != nil {
		return &delivery.Error{Kind: delivery.KindNotFound, What: "there is no Shunt in " + dataDir, Why: "no server has ever used this directory", Next: "Name its data directory:  --data DIR", Err: err}
	}
	st, err := openStore(ctx, string(database), dataDir, slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError})), delivery.SystemClock{})
	if err != nil {
		return err
	}
	return errors.Join(f(st, auth.New(st, delivery.SystemClock{})), st.Close())
}

// LoginLink makes a link that signs the operator in once, within 24 hours.
// Whoever can write the data directory may have one.
func LoginLink(ctx context.Context, dataDir string) (link string, err error) {
	err = withData(ctx, dataDir, func(st *store.Store, a *auth.Service) error {
		if err := ensureOperator(ctx, st); err != nil {
			return err
		}
		base, err := st.Meta(ctx, "url")
		if err != nil {
			return err
		}
		secret, err := a.Once(ctx, Operator, 24*time.Hour)
		link = base + "/login?once=" + secret
		return err
	})
	return link, err
}

// NewToken makes a token for the operator's command line.
func NewToken(ctx context.Context, dataDir, name string) (token string, err error) {
	err = withData(ctx, dataDir, func(st *store.Store, a *auth.Service) error {
		if err := ensureOperator(ctx, st); err != nil {
			return err
		}
		token, err = a.NewToken(ctx, Operator, name)
		return err
	})
	return token, err
}
