package server

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/shuntcd/shunt/internal/delivery"
	"github.com/shuntcd/shunt/internal/engine"
	"github.com/shuntcd/shunt/internal/runner"
	"github.com/shuntcd/shunt/internal/store"
)

// Several servers may share one PostgreSQL. Each has an address for runners
// (Config.Cluster), a row that says it is there, and a runner that holds a lease.
// One of them at a time has the duties that need only one: it looks at remotes,
// sends mail, and looks after gates and environments.

const (
	peerBeat  = 2 * time.Second
	peerDead  = 10 * time.Second
	dutyTTL   = 6 * time.Second
	duty      = "housekeeping"
	caMeta    = "cluster_ca"
	keyMeta   = "secret_recipient"
	certYears = 10
)

// cluster is this server's part among others.
type cluster struct {
	id       string
	address  string // where runners reach this server
	hub      *runner.Hub
	listener net.Listener
	leads    atomic.Bool
	web      *http.Server
}

// arrive tells the others that this server is there. It keeps a server that shares
// nothing from a database that another one works on: their runners could not tell
// each other's jobs.
func (s *Server) arrive(ctx context.Context, me store.Peer) error {
	if !store.IsPostgres(s.cfg.Database) {
		return nil
	}
	return s.store.Write(ctx, func(ctx context.Context, tx *store.Tx) error { // of two that come at once one sees the other
		peers, err := tx.Peers(ctx, tx.Now().Add(-peerDead))
		if err != nil {
			return err
		}
		for _, p := range peers {
			if p.ID != me.ID && (p.Address == "" || me.Address == "") {
				return &delivery.Error{
					Kind: delivery.KindConflict, What: "cannot start on this database", Why: "another server works on it, and only servers with --cluster can share one",
					Next: "Give every server an address that the others' runners reach:  --cluster HOST:PORT, or stop the other one and start again in ten seconds.",
				}
			}
		}
		return tx.Heartbeat(ctx, me)
	})
}

// peer is how the others see this server.
func (s *Server) peer(id string) store.Peer {
	p := store.Peer{ID: id, Version: s.cfg.Version, Worker: s.cfg.Worker, StartedAt: s.started}
	if s.cluster != nil {
		p.Address = s.cluster.address
	}
	return p
}

// sameKey makes sure that all servers seal secrets with one key.
func (s *Server) sameKey(ctx context.Context) error {
	ours := s.secrets.key.Recipient().String()
	return s.store.Write(ctx, func(ctx context.Context, tx *store.Tx) error {
		theirs, err := tx.Meta(ctx, keyMeta)
		if err != nil || theirs == ours {
			return err
		}
		if theirs != "" && s.cfg.Cluster != "" {
			return &delivery.Error{
				Kind: delivery.KindConflict, What: "cannot join the other servers", Why: "this data directory has another secret.key than theirs, and could not open the secrets of their projects",
				Next: "Copy secret.key from the data directory of a server that runs to " + s.cfg.DataDir + ".",
			}
		}
		return tx.SetMeta(ctx, keyMeta, ours)
	})
}

// joinCluster listens for runners and gives this server's own runner its link.
func (s *Server) joinCluster(ctx, work context.Context, id string) error {
	s.started = s.clock.Now()
	if s.cfg.Cluster == "" {
		if err := s.arrive(ctx, s.peer(id)); err != nil {
			return err
		}
		return errors.Join(s.sameKey(ctx), runner.SaveLink(s.runnerDir(), nil))
	}
	if !store.IsPostgres(s.cfg.Database) {
		return delivery.Errf(delivery.KindInvalid, "cannot share the work", "--cluster needs --database postgres://...: a SQLite file belongs to one server")
	}
	c := &cluster{id: id, address: s.cfg.ClusterAddress}
	c.hub = runner.NewHub(s.renewRunner, s.cfg.Log)
	var lc net.ListenConfig
	listener, err := lc.Listen(ctx, "tcp", s.cfg.Cluster)
	if err != nil {
		return &delivery.Error{Kind: delivery.KindInvalid, What: "cannot listen on " + s.cfg.Cluster, Why: err.Error(), Next: "Choose another address:  --cluster HOST:PORT", Err: err}
	}
	c.listener = listener
	if c.address == "" {
		c.address = listener.Addr().String()
		if host, _, err := net.SplitHostPort(c.address); err == nil && net.ParseIP(host).IsUnspecified() {
			_ = listener.Close()
			return delivery.Errf(delivery.KindInvalid, "cannot join the other servers", "--cluster "+s.cfg.Cluster+" is no address that runners on other machines can reach: say which with --cluster-address HOST:PORT")
		}
	}
	s.cluster = c
	if err = s.arrive(ctx, s.peer(id)); err == nil {
		err = s.sameKey(ctx)
	}
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	ca, err := s.clusterCA(ctx)
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	own, err := ca.issue(runner.ServerName)
	if err == nil {
		err = s.giveLink(ca, c)
	}
	if err == nil { // what the only server has begun is its own runner's
		err = s.store.Write(ctx, func(ctx context.Context, tx *store.Tx) error { return tx.ClaimAttempts(ctx, id) })
	}
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	c.web = &http.Server{
		Handler: c.hub.Handler(), ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute, ErrorLog: slog.NewLogLogger(s.cfg.Log.Handler(), slog.LevelDebug),
		TLSConfig:    &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{own.pair()}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: ca.pool(), NextProtos: []string{"http/1.1"}},
		TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){}, // connections are turned round, which HTTP/2 cannot
	}
	return s.store.Feed(work)
}

// serveCluster answers runners until ctx ends.
func (s *Server) serveCluster(ctx context.Context) {
	c := s.cluster
	c.web.BaseContext = func(net.Listener) context.Context { return ctx }
	defer context.AfterFunc(ctx, func() {
		_ = c.web.Close()
		c.hub.Close()
	})()
	if err := c.web.ServeTLS(c.listener, "", ""); err != nil && !errors.Is(err, http.ErrServerClosed) {
		s.cfg.Log.Error("runners cannot reach this server any more", "error", err)
	}
}

// healthOnly is what a worker shows.
func healthOnly(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/livez" && r.URL.Path != "/readyz" {
			http.Error(w, "this is a worker; the pages are on the servers", http.StatusNotFound)
			return
		}
		h.ServeHTTP(w, r)
	})
}

// giveLink gives this server's runner what it needs to reach all servers.
func (s *Server) giveLink(ca *authority, c *cluster) error {
	cert, err := ca.issue(runner.CommonName(c.id))
	if err != nil {
		return err
	}
	capacity := s.cfg.Jobs
	if capacity <= 0 {
		capacity = max(2, runtime.NumCPU())
	}
	return runner.SaveLink(s.runnerDir(), &runner.Link{
		Servers: []string{c.address}, CA: string(ca.certPEM), Cert: string(cert.certPEM), Key: string(cert.keyPEM), Pools: s.cfg.Pools, Capacity: capacity,
	})
}

// renewRunner writes a runner's renewal down.
func (s *Server) renewRunner(ctx context.Context, id string, r runner.Renewal) (out runner.Renewed, err error) {
	out.TTL = runner.LeaseTTL
	err = s.store.Write(ctx, func(ctx context.Context, tx *store.Tx) error {
		_, err := tx.RenewRunner(ctx, store.Runner{ID: id, Instance: r.Instance, Pools: r.Pools, Capacity: r.Capacity, Version: r.Version}, runner.LeaseTTL)
		if err != nil {
			return err
		}
		out.Servers = nil
		peers, err := tx.Peers(ctx, tx.Now().Add(-peerDead))
		for _, p := range peers {
			if p.Address != "" {
				out.Servers = append(out.Servers, p.Address)
			}
		}
		return err
	})
	return out, err
}

// beat tells the others that this server is there, and takes the duty when it is
// free. Also a server that is alone on PostgreSQL beats, so that no second one joins it by mistake.
func (s *Server) beat(ctx context.Context, id string) {
	if !store.IsPostgres(s.cfg.Database) {
		return
	}
	peer := s.peer(id)
	every(ctx, peerBeat, func() {
		held := false
		begun := s.clock.Now()
		err := s.store.Write(ctx, func(ctx context.Context, tx *store.Tx) (err error) {
			if err := tx.Heartbeat(ctx, peer); err != nil {
				return err
			}
			held, err = tx.Hold(ctx, duty, id, dutyTTL)
			return err
		})
		if err != nil && ctx.Err() == nil {
			s.cfg.Log.Warn("cannot tell the other servers that this one is there", "error", err)
		}
		if s.cluster != nil {
			// A duty that was written down late may be somebody else's by now.
			s.cluster.leads.Store(err == nil && held && s.clock.Now().Sub(begun) < dutyTTL/2)
		}
	})
}

// leave tells the others that this server ends.
func (s *Server) leave(ctx context.Context, id string) error {
	if !store.IsPostgres(s.cfg.Database) {
		return nil
	}
	return s.store.Write(ctx, func(ctx context.Context, tx *store.Tx) error { return tx.Leave(ctx, id) })
}

// leads tells whether this server has the duties of one.
func (s *Server) leads() bool { return s.cluster == nil || s.cluster.leads.Load() }

func (s *Server) engineCluster() *engine.Cluster {
	if s.cluster == nil {
		return nil
	}
	return &engine.Cluster{ID: s.cluster.id, Hub: s.cluster.hub, Leads: s.cluster.leads.Load}
}

// awaitLease waits until this server's runner holds its lease; builds would only
// wait for it.
func (s *Server) awaitLease(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		r, err := s.store.Runner(ctx, s.cluster.id)
		if err == nil && r.LeaseUntil.After(s.store.Now()) {
			return nil
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return &delivery.Error{
				Kind: delivery.KindUnavailable, What: "cannot join the other servers", Why: "the runner of this server does not reach " + s.cluster.address,
				Next: "See " + s.runnerDir() + "/runner.log, and --cluster-address.", Err: err,
			}
		}
	}
}

// authority signs the certificates of an installation's servers and runners.
type authority struct {
	cert    *x509.Certificate
	key     *ecdsa.PrivateKey
	certPEM []byte
}

// issued is a certificate and its key.
type issued struct{ certPEM, keyPEM []byte }

func (i issued) pair() tls.Certificate {
	pair, err := tls.X509KeyPair(i.certPEM, i.keyPEM)
	if err != nil {
		panic("server: a certificate that was just made cannot be read: " + err.Error())
	}
	return pair
}

func (a *authority) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

// caText is how the authority is kept in the database; its key is sealed.
type caText struct{ Cert, Key string }

// clusterCA reads the installation's authority; the first server makes it.
func (s *Server) clusterCA(ctx context.Context) (*authority, error) {
	var kept caText
	err := s.store.Write(ctx, func(ctx context.Context, tx *store.Tx) error {
		text, err := tx.Meta(ctx, caMeta)
		if err != nil {
			return err
		}
		if text != "" {
			return json.Unmarshal([]byte(text), &kept)
		}
		made, err := newAuthority()
		if err != nil {
			return err
		}
		kept.Cert = string(made.certPEM)
		if kept.Key, err = s.secrets.seal(string(made.keyPEM)); err != nil {
			return err
		}
		b, err := json.Marshal(kept)
		if err != nil {
			return fmt.Errorf("keep the certificate authority: %w", err)
		}
		return tx.SetMeta(ctx, caMeta, string(b))
	})
	if err != nil {
		return nil, err
	}
	keyPEM, err := s.secrets.open(kept.Key)
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair([]byte(kept.Cert), []byte(keyPEM))
	if err != nil {
		return nil, fmt.Errorf("read the certificate authority: %w", err)
	}
	key, ok := pair.PrivateKey.(*ecdsa.PrivateKey)
	if !ok {
		return nil, errors.New("read the certificate authority: its key is of another kind")
	}
	return &authority{cert: pair.Leaf, key: key, certPEM: []byte(kept.Cert)}, nil
}

func newAuthority() (issued, error) {
	template := &x509.Certificate{Subject: pkix.Name{CommonName: "Shunt"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	return sign(template, nil)
}

// issue makes a certificate for a server (ServerName) or a runner.
func (a *authority) issue(name string) (issued, error) {
	return sign(&x509.Certificate{
		Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, a)
}

// sign makes a key and a certificate for it; without an authority it signs itself.
func sign(template *x509.Certificate, by *authority) (issued, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return issued{}, fmt.Errorf("make a key: %w", err)
	}
	if template.SerialNumber, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120)); err != nil {
		return issued{}, fmt.Errorf("make a serial number: %w", err)
	}
	now := delivery.SystemClock{}.Now()
	template.NotBefore, template.NotAfter = now.Add(-time.Hour), now.AddDate(certYears, 0, 0)
	parent, signer := template, key
	if by != nil {
		parent, signer = by.cert, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		return issued{}, fmt.Errorf("make a certificate: %w", err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return issued{}, fmt.Errorf("make a key: %w", err)
	}
	var cert, private bytes.Buffer
	if err := errors.Join(pem.Encode(&cert, &pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.Encode(&private, &pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})); err != nil {
		return issued{}, fmt.Errorf("make a certificate: %w", err)
	}
	return issued{cert.Bytes(), private.Bytes()}, nil
}
