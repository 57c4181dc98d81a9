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

	"github.com/shuntcd/shunt/internal/artifact"
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
	Listen        string // host:port
	PublicURL     string // as people reach it; empty: http://<Listen>
	SMTP          *notify.SMTP
	MailFrom      string
	MailDir       string // mails are written here instead of sent, and shown on a page
	Version       string
	Exe           string        // this binary, to start the runner with
	Workers       int           // builds of the main lane that are driven at once; default 4
	HotfixWorkers int           // of the hotfix lane, which never waits for the main lane; default 2
	Poll          time.Duration // how often a quiet remote is looked at; default 30 s
	Retention     Retention     // what is removed once a day; default nothing
	Log           *slog.Logger
}

// Server is a running server.
type Server struct {
	cfg        Config
	url        string
	store      *store.Store
	git        *gitrepo.Git
	blobs      *artifact.Store
	files      *artifact.Files
	runner     *runner.Client
	engine     *engine.Engine
	auth       *auth.Service
	secrets    *sealer
	clock      delivery.Clock
	background sync.WaitGroup
	waits      atomic.Bool // in reconcile mode
	confirming sync.Mutex
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
	if s.blobs, err = artifact.NewStore(filepath.Join(abs, "blobs")); err != nil {
		return nil, err
	}
	s.files = &artifact.Files{Dir: filepath.Join(abs, "published"), Store: s.blobs}
	if s.git, err = gitrepo.New(gitrepo.Config{Dir: filepath.Join(abs, "mirrors"), Home: filepath.Join(abs, "git-home"), Log: cfg.Log}); err != nil {
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
	instance, err := instanceName(filepath.Join(s.cfg.DataDir, "instance"))
	if err != nil {
		return err
	}
	s.engine = engine.New(engine.Config{
		Store: s.store, Git: s.git, Runner: s.runner, Blobs: s.blobs, Files: s.files, Dir: s.cfg.DataDir, Clock: s.clock, Log: s.cfg.Log,
		ServerID: id, Owner: fmt.Sprintf("%s/%d", instance, os.Getpid()), URL: s.url, MailFrom: s.cfg.MailFrom, Open: s.secrets.open,
		Workers: map[delivery.Lane]int{delivery.LaneMain: s.cfg.Workers, delivery.LaneHotfix: s.cfg.HotfixWorkers}, Paused: s.waits.Load,
	})
	if err := s.loadReconcile(ctx); err != nil {
		return err
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
	handler, err := web.New(web.Config{Backend: waiting{s}, Auth: s.auth, PublicURL: s.url, Version: s.cfg.Version, Mailbox: s.cfg.MailDir != "", Design: strings.HasPrefix(s.cfg.Version, "devel"), Log: s.cfg.Log, Clock: s.clock})
	if err != nil {
		return fmt.Errorf("make pages: %w", err)
	}
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	if err := s.store.StartQueue(work, store.QueueConfig{Main: s.cfg.Workers, Hotfix: s.cfg.HotfixWorkers, ID: fmt.Sprintf("%s-%d", instance, os.Getpid())}, s.engine); err != nil {
		return err
	}
	if err := s.engine.Start(ctx); err != nil {
		return err
	}
	for _, loop := range []func(context.Context){s.watchRunner, s.pollRemotes, s.sendMails, s.keepHouse, s.watchReconcile} {
		s.background.Go(func() { loop(work) })
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
	cancel() // ends live pages, so that the listener can drain
	if shut := server.Shutdown(stop); shut != nil {
		err = errors.Join(err, server.Close())
	}
	s.background.Wait()
	return err
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
