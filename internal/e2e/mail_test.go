package e2e

import (
	"net"
	"strings"
	"syscall"
	"testing"

	"github.com/emersion/go-smtp"

	"github.com/shuntcd/shunt/internal/api"
	"github.com/shuntcd/shunt/internal/delivery"
)

// The server dies while it hands a mail to a relay that has not taken it. The mail
// is sent after it has started again.
func TestAMailIsNotLostWithItsServer(t *testing.T) {
	t.Parallel()
	address := freeAddress(t)
	silent, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	asked := make(chan net.Conn, 1)
	go func() {
		if c, err := silent.Accept(); err == nil { // and says nothing
			asked <- c
		}
	}()
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	file := shop(nil)[".shunt.yml"] + "notify:\n  - email: [team@example.org]\n    on: [waiting]\n"
	w := newWorld(t, shop(map[string]string{".shunt.yml": file}), "--mail-dir", "", "--smtp-host", host, "--smtp-port", port, "--smtp-tls", "none", "--mail-from", "shunt@example.org")
	w.add(api.AddProject{InstallHook: true})
	b := w.push("develop")
	conn := <-asked
	w.kill(syscall.SIGKILL)
	_, _ = conn.Close(), silent.Close()

	r := &relay{}
	server := smtp.NewServer(r)
	server.Addr, server.Domain, server.AllowInsecureAuth = address, "relay.example.org", true
	go func() { _ = server.ListenAndServe() }()
	t.Cleanup(func() { _ = server.Close() })
	w.start()
	w.reach(b.Number, delivery.BuildWaiting)
	w.until("the mail is there", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return strings.Contains(strings.Join(r.got, ""), "team@example.org")
	})
}
