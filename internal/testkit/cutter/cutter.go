// Package cutter is a TCP proxy before a PostgreSQL server that does to a
// connection what networks and failovers do: it cuts, it stalls, and it loses the
// answer of a COMMIT that the server has carried out.
package cutter

import (
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
)

// Proxy stands before one server.
type Proxy struct {
	listener net.Listener
	socket   string // of the server
	wg       sync.WaitGroup
	lost     atomic.Int64
	every    atomic.Int64 // lose the answer of one COMMIT of n; 0: none

	mu    sync.Mutex
	conns map[net.Conn]bool
	cut   bool
	flow  chan struct{} // closed: bytes flow
}

// New starts a proxy before the database that a URL of package pg names, and
// returns the URL through the proxy.
func New(database string) (p *Proxy, through string, err error) {
	u, err := url.Parse(database)
	if err != nil {
		return nil, "", err
	}
	l, err := net.Listen("tcp", fmt.Sprintf("127.%d.%d.%d:0", 1+rand.IntN(250), rand.IntN(250), 1+rand.IntN(250)))
	if err != nil {
		return nil, "", err
	}
	p = &Proxy{listener: l, socket: u.Query().Get("host") + "/.s.PGSQL.5432", conns: map[net.Conn]bool{}, flow: make(chan struct{})}
	close(p.flow)
	p.wg.Go(p.accept)
	return p, "postgres://shunt@" + l.Addr().String() + u.Path + "?sslmode=disable&connect_timeout=5", nil
}

// Close ends the proxy and all its connections.
func (p *Proxy) Close() {
	_ = p.listener.Close()
	p.Heal()
	p.closeAll()
	p.wg.Wait()
}

// Cut ends all connections, and each new one at once, until Heal.
func (p *Proxy) Cut() {
	p.mu.Lock()
	p.cut = true
	p.mu.Unlock()
	p.closeAll()
}

// Stall keeps all bytes back, both ways, until Heal: the other side is there and
// says nothing.
func (p *Proxy) Stall() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.flow = make(chan struct{})
}

// Heal ends Cut and Stall.
func (p *Proxy) Heal() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = false
	select {
	case <-p.flow:
	default:
		close(p.flow)
	}
}

// LoseCommits loses the answer of one COMMIT of n, by chance, from now on: the
// server commits, and the client's connection breaks. 0 loses none.
func (p *Proxy) LoseCommits(n int64) { p.every.Store(n) }

// Lost counts the answers that were lost.
func (p *Proxy) Lost() int64 { return p.lost.Load() }

func (p *Proxy) closeAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		_ = c.Close()
	}
}

func (p *Proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("unix", p.socket)
		p.mu.Lock()
		if p.cut || err != nil {
			p.mu.Unlock()
			_ = client.Close()
			if err == nil {
				_ = server.Close()
			}
			continue
		}
		p.conns[client], p.conns[server] = true, true
		p.mu.Unlock()
		p.wg.Go(func() { p.serve(client, server) })
	}
}

// serve copies messages both ways. A connection whose COMMIT is to lose its
// answer is closed as soon as the server has given it.
func (p *Proxy) serve(client, server net.Conn) {
	var deaf atomic.Bool
	var both sync.WaitGroup
	end := func() { _, _ = client.Close(), server.Close() }
	both.Go(func() {
		defer end()
		for first := true; ; first = false {
			message, err := readMessage(client, first)
			if err != nil {
				return
			}
			p.wait()
			if message[0] == 'Q' && strings.HasPrefix(strings.ToLower(string(message[5:])), "commit") {
				if n := p.every.Load(); n > 0 && rand.N(n) == 0 {
					deaf.Store(true)
				}
			}
			if _, err := server.Write(message); err != nil {
				return
			}
		}
	})
	both.Go(func() {
		defer end()
		buf := make([]byte, 64<<10)
		for {
			n, err := server.Read(buf)
			if n > 0 && deaf.Load() {
				p.lost.Add(1)
				return
			}
			p.wait()
			if _, write := client.Write(buf[:n]); err != nil || write != nil {
				return
			}
		}
	})
	both.Wait()
	p.mu.Lock()
	delete(p.conns, client)
	delete(p.conns, server)
	p.mu.Unlock()
}

func (p *Proxy) wait() {
	p.mu.Lock()
	flow := p.flow
	p.mu.Unlock()
	<-flow
}

// readMessage reads one message of PostgreSQL's protocol 3: a type (the first
// message has none), a length that counts itself, and the rest.
func readMessage(r io.Reader, first bool) ([]byte, error) {
	head := 5
	if first {
		head = 4
	}
	message := make([]byte, head)
	if _, err := io.ReadFull(r, message); err != nil {
		return nil, err
	}
	size := binary.BigEndian.Uint32(message[head-4:])
	if size < 4 || size > 64<<20 {
		return nil, fmt.Errorf("a message of %d bytes", size)
	}
	message = append(message, make([]byte, size-4)...)
	_, err := io.ReadFull(r, message[head:])
	return message, err
}
