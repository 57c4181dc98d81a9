package runner

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// With several servers on one database, a runner has a lease. It renews it
// through any server that it reaches, and keeps a link to every one: a TLS
// connection that the runner opens, over which that server asks it, with the
// same protocol as over the unix socket. So a server that takes a build over
// finds the jobs that still run, wherever they run.
//
// A runner that cannot renew kills its jobs LeaseMargin before the lease ends.
// The shims do it, each for its own job, so it happens also when the runner is
// stopped or hangs.

// Times of a runner's lease.
const (
	LeaseTTL    = 8 * time.Second
	LeaseMargin = 2 * time.Second
	renewEvery  = 1500 * time.Millisecond
	renewTime   = 4 * time.Second // for one attempt to renew
	redialEvery = time.Second
)

// ServerName is the name in the certificate of every server of an installation.
const ServerName = "shunt-server"

// Link is what a runner needs to reach the servers. Its own server writes it to
// DIR/link.json; a runner without one has no lease, and its jobs run on while
// their server is down.
type Link struct {
	Servers  []string // host:port; grows by what the servers answer
	CA       string   // PEM: who signs the servers' certificates
	Cert     string   // PEM: of this runner; its common name is the runner's id
	Key      string   // PEM
	Pools    []string
	Capacity int // jobs of its pools at once
}

func linkPath(dir string) string { return filepath.Join(dir, "link.json") }

// SaveLink gives the runner of a directory its link, also one that runs already;
// nil takes it away.
func SaveLink(dir string, l *Link) error {
	if l == nil {
		return removeIfThere(linkPath(dir))
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("save the runner's link: %w", err)
	}
	return save(linkPath(dir), l)
}

// Renewal is what a runner tells when it renews.
type Renewal struct {
	Instance string
	Pools    []string
	Capacity int
	Version  string
}

// Renewed is the answer: the lease lasts for TTL from when the renewal was sent.
type Renewed struct {
	TTL     time.Duration
	Servers []string // all that are there
}

// sinceBoot is the machine's time since it started, with the time that it slept.
// All processes of the machine see the same.
func sinceBoot() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		panic(fmt.Sprintf("runner: this kernel has no CLOCK_BOOTTIME: %v", err))
	}
	return time.Duration(t.Nano())
}

// notYet is the end of a lease that must be held and never was.
const notYet time.Duration = 1

// linker keeps a runner's lease and links.
type linker struct {
	*server
	link  Link
	tls   *tls.Config
	read  time.Time // when link.json was last changed
	last  string    // the server that renewed last
	dials map[string]context.CancelFunc
	wg    sync.WaitGroup
}

// keepLinks holds the lease and the links until ctx ends. It reads link.json
// again when it changes.
func (s *server) keepLinks(ctx context.Context) {
	l := &linker{server: s, dials: map[string]context.CancelFunc{}}
	defer l.wg.Wait()
	for {
		if err := l.reload(); err != nil {
			s.log.Warn("the runner's link cannot be read", "err", err)
		}
		if l.tls != nil {
			if err := l.renew(ctx); err != nil && ctx.Err() == nil {
				s.log.Warn("the runner's lease could not be renewed", "err", err)
			}
			l.dialAll(ctx)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(renewEvery):
		}
	}
}

// reload takes over what link.json says now.
func (l *linker) reload() error {
	info, err := os.Stat(linkPath(l.dir))
	if errors.Is(err, os.ErrNotExist) {
		if l.tls != nil { // this server is alone again
			l.tls, l.read = nil, time.Time{}
			l.hold(0)
			for address, stop := range l.dials {
				stop()
				delete(l.dials, address)
			}
		}
		return nil
	}
	if err != nil || info.ModTime().Equal(l.read) {
		return err
	}
	var link Link
	if err := load(linkPath(l.dir), &link); err != nil {
		return err
	}
	cert, err := tls.X509KeyPair([]byte(link.Cert), []byte(link.Key))
	if err != nil {
		return fmt.Errorf("its certificate: %w", err)
	}
	ca := x509.NewCertPool()
	if !ca.AppendCertsFromPEM([]byte(link.CA)) {
		return errors.New("it names no certificate authority")
	}
	if l.tls == nil { // from now on there is a lease to hold; jobs of before go on
		l.hold(notYet)
	}
	l.link, l.read = link, info.ModTime()
	l.tls = &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: ca, Certificates: []tls.Certificate{cert}, ServerName: ServerName, NextProtos: []string{"http/1.1"}}
	return nil
}

// hold notes until when the lease lasts and tells the jobs.
func (l *linker) hold(until time.Duration) {
	l.mu.Lock()
	l.lease = until
	jobs := make([]*job, 0, len(l.jobs))
	for _, j := range l.jobs {
		jobs = append(jobs, j)
	}
	l.mu.Unlock()
	if until == notYet {
		return
	}
	if until == 0 {
		until = 1 << 62 // jobs that began under a lease go on without one
	}
	for _, j := range jobs {
		j.extend(until)
	}
}

// renew asks the server that answered last, and all others when it is slow; the
// first answer counts. The lease is counted from before the question.
func (l *linker) renew(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, renewTime)
	defer cancel()
	asked := sinceBoot()
	type answer struct {
		server string
		got    Renewed
		err    error
	}
	servers := slices.Clone(l.link.Servers)
	if i := slices.Index(servers, l.last); i > 0 {
		servers[0], servers[i] = servers[i], servers[0]
	}
	if len(servers) == 0 {
		return errors.New("it knows no server")
	}
	answers := make(chan answer, len(servers))
	ask := func(address string) {
		got, err := l.renewAt(ctx, address)
		answers <- answer{address, got, err}
	}
	go ask(servers[0])
	waiting, rest := 1, servers[1:]
	slow := time.After(500 * time.Millisecond)
	var failed error
	for waiting > 0 || len(rest) > 0 {
		select {
		case a := <-answers:
			waiting--
			if a.err == nil {
				l.last = a.server
				if len(a.got.Servers) > 0 {
					l.link.Servers = a.got.Servers
				}
				l.hold(asked + a.got.TTL - LeaseMargin)
				return nil
			}
			failed = errors.Join(failed, fmt.Errorf("%s: %w", a.server, a.err))
			if waiting > 0 {
				continue
			}
		case <-slow:
		}
		for _, address := range rest {
			waiting++
			go ask(address)
		}
		rest = nil
	}
	return failed
}

func (l *linker) renewAt(ctx context.Context, address string) (got Renewed, err error) {
	body, err := json.Marshal(Renewal{Instance: l.instance, Pools: l.link.Pools, Capacity: l.link.Capacity, Version: l.version})
	if err != nil {
		return got, fmt.Errorf("renew: %w", err)
	}
	conn, err := l.connect(ctx, address)
	if err != nil {
		return got, err
	}
	defer conn.Close() //nolint:errcheck // the answer has been read
	resp, _, err := exchange(ctx, conn, http.MethodPost, "/v1/renew", body)
	if err != nil {
		return got, err
	}
	defer resp.Body.Close() //nolint:errcheck // read to its end
	if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&got); err != nil {
		return got, fmt.Errorf("renew: %w", err)
	}
	return got, nil
}

func (l *linker) connect(ctx context.Context, address string) (net.Conn, error) {
	d := tls.Dialer{NetDialer: &net.Dialer{Timeout: 3 * time.Second, KeepAliveConfig: keepAlive()}, Config: l.tls}
	conn, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("reach a server: %w", err)
	}
	return conn, nil
}

// keepAlive finds a peer that is cut off within seconds.
func keepAlive() net.KeepAliveConfig {
	return net.KeepAliveConfig{Enable: true, Idle: 2 * time.Second, Interval: time.Second, Count: 3}
}

// exchange sends one request and reads the head of its answer. What follows it is
// in the reader.
func exchange(ctx context.Context, conn net.Conn, method, path string, body []byte) (*http.Response, *bufio.Reader, error) {
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return nil, nil, fmt.Errorf("ask a server: %w", err)
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, "https://"+ServerName+path, bytes.NewReader(body))
	if err != nil {
		return nil, nil, fmt.Errorf("ask a server: %w", err)
	}
	if path == linkRoute {
		req.Header.Set("Connection", "Upgrade")
		req.Header.Set("Upgrade", linkProtocol)
	}
	if err := req.Write(conn); err != nil {
		return nil, nil, fmt.Errorf("ask a server: %w", err)
	}
	r := bufio.NewReader(conn)
	resp, err := http.ReadResponse(r, req)
	if err != nil {
		return nil, nil, fmt.Errorf("ask a server: %w", err)
	}
	if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusSwitchingProtocols {
		words, _ := io.ReadAll(io.LimitReader(resp.Body, 500))
		_ = resp.Body.Close()
		return nil, nil, fmt.Errorf("ask a server: it answers %s: %s", resp.Status, bytes.TrimSpace(words))
	}
	return resp, r, nil
}

// dialAll keeps a link to every server that is known.
func (l *linker) dialAll(ctx context.Context) {
	for address, stop := range l.dials {
		if !slices.Contains(l.link.Servers, address) {
			stop()
			delete(l.dials, address)
		}
	}
	for _, address := range l.link.Servers {
		if _, there := l.dials[address]; there {
			continue
		}
		one, stop := context.WithCancel(ctx)
		l.dials[address] = stop
		self := &linker{server: l.server, tls: l.tls}
		l.wg.Go(func() {
			defer stop()
			for one.Err() == nil {
				if err := self.serveLink(one, address); err != nil && one.Err() == nil {
					l.log.Debug("a link to a server ended", "server", address, "err", err)
				}
				select {
				case <-one.Done():
				case <-time.After(redialEvery):
				}
			}
		})
	}
}

// serveLink opens a link and answers what the server asks over it.
func (l *linker) serveLink(ctx context.Context, address string) error {
	conn, err := l.connect(ctx, address)
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // nothing is left to say
	hello, cancel := context.WithTimeout(ctx, renewTime)
	defer cancel()
	_, rest, err := exchange(hello, conn, http.MethodPost, linkRoute, nil) //nolint:bodyclose // what follows is another protocol
	if err != nil {
		return err
	}
	if err := conn.SetDeadline(time.Time{}); err != nil {
		return fmt.Errorf("link: %w", err)
	}
	one := newOneConn(&bufferedConn{Conn: conn, r: rest})
	web := &http.Server{Handler: l.routes(), ReadHeaderTimeout: 10 * time.Second, HTTP2: pings(), Protocols: unencrypted2(), BaseContext: func(net.Listener) context.Context { return ctx }}
	defer context.AfterFunc(ctx, func() { _ = web.Close() })()
	if err := web.Serve(one); err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("link: %w", err)
	}
	return nil
}

// The link is HTTP/2 in the other direction, inside the TLS connection.
const (
	linkRoute    = "/v1/link"
	linkProtocol = "shunt-runner/1"
)

func unencrypted2() *http.Protocols {
	var p http.Protocols
	p.SetUnencryptedHTTP2(true)
	return &p
}

// pings finds a dead link within seconds.
func pings() *http.HTTP2Config {
	return &http.HTTP2Config{SendPingTimeout: 2 * time.Second, PingTimeout: 3 * time.Second}
}

// bufferedConn is a connection of which a reader holds the next bytes.
type bufferedConn struct {
	net.Conn
	r *bufio.Reader
}

// Read implements net.Conn.
func (c *bufferedConn) Read(p []byte) (int, error) { return c.r.Read(p) }

// oneConn is a listener that accepts one connection, and ends with it.
type oneConn struct {
	conn net.Conn
	once chan struct{}
	done chan struct{}
	end  sync.Once
}

func newOneConn(c net.Conn) *oneConn {
	l := &oneConn{once: make(chan struct{}, 1), done: make(chan struct{})}
	l.conn = &closeNote{Conn: c, note: l.Close}
	l.once <- struct{}{}
	return l
}

// Accept implements net.Listener.
func (l *oneConn) Accept() (net.Conn, error) {
	select {
	case <-l.once:
		return l.conn, nil
	case <-l.done:
		return nil, io.EOF
	}
}

// Close implements net.Listener.
func (l *oneConn) Close() error {
	l.end.Do(func() { close(l.done) })
	return nil
}

// Addr implements net.Listener.
func (l *oneConn) Addr() net.Addr { return l.conn.LocalAddr() }

// closeNote tells when its connection is closed.
type closeNote struct {
	net.Conn
	note func() error
}

// Close implements net.Conn.
func (c *closeNote) Close() error { return errors.Join(c.Conn.Close(), c.note()) }
