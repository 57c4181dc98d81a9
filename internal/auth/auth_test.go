package auth

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shuntcd/shunt/internal/delivery"
)

type memory struct {
	mu    sync.Mutex
	users map[string]delivery.User
	creds map[string]delivery.Credential
}

func (m *memory) InsertUser(_ context.Context, u delivery.User) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.users[u.Name] = u
	return nil
}

func (m *memory) User(_ context.Context, name string) (delivery.User, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	u, ok := m.users[name]
	if !ok {
		return u, delivery.Errf(delivery.KindNotFound, "no such user", "")
	}
	return u, nil
}

func (m *memory) InsertCredential(_ context.Context, c delivery.Credential) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.creds[c.Hash] = c
	return nil
}

func (m *memory) Credential(_ context.Context, hash string) (delivery.Credential, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	c, ok := m.creds[hash]
	if !ok {
		return c, delivery.Errf(delivery.KindNotFound, "no such credential", "")
	}
	return c, nil
}

func (m *memory) UseCredential(_ context.Context, hash string, at time.Time) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := m.creds[hash]
	if !c.UsedAt.IsZero() {
		return false, nil
	}
	c.UsedAt = at
	m.creds[hash] = c
	return true, nil
}

func (m *memory) TouchCredential(_ context.Context, hash string, at time.Time) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := m.creds[hash]
	c.UsedAt = at
	m.creds[hash] = c
	return nil
}

func (m *memory) DeleteCredential(_ context.Context, hash string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.creds, hash)
	return nil
}

type clock struct{ now time.Time }

func (c *clock) Now() time.Time { return c.now }

func newService(t *testing.T) (*Service, *memory, *clock) {
	t.Helper()
	m := &memory{users: map[string]delivery.User{}, creds: map[string]delivery.Credential{}}
	c := &clock{now: time.Date(2026, 11, 22, 3, 0, 0, 0, time.UTC)}
	if err := m.InsertUser(t.Context(), delivery.User{Name: "ana", Operator: true}); err != nil {
		t.Fatal(err)
	}
	return New(m, c), m, c
}

func wantUnauthorized(t *testing.T, err error) {
	t.Helper()
	if !delivery.IsKind(err, delivery.KindUnauthorized) {
		t.Fatalf("err = %v, want unauthorized", err)
	}
}

func TestLinkSignsInOnce(t *testing.T) {
	t.Parallel()
	s, m, _ := newService(t)
	once, err := s.Once(t.Context(), "ana", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	session, err := s.RedeemOnce(t.Context(), once)
	if err != nil {
		t.Fatal(err)
	}
	if u, err := s.Session(t.Context(), session); err != nil || u.Name != "ana" {
		t.Fatalf("Session = %v, %v", u, err)
	}
	_, err = s.RedeemOnce(t.Context(), once)
	wantUnauthorized(t, err)
	if !strings.Contains(err.Error(), "shunt login-link") {
		t.Errorf("error does not say how to get a new link: %v", err)
	}
	for h, c := range m.creds {
		if strings.Contains(h+c.Name+c.User, "shunt_") {
			t.Errorf("a secret is stored: %v", c)
		}
	}
	if err := s.SignOut(t.Context(), session); err != nil {
		t.Fatal(err)
	}
	_, err = s.Session(t.Context(), session)
	wantUnauthorized(t, err)
	if err := s.SignOut(t.Context(), session); err != nil {
		t.Fatalf("second SignOut: %v", err)
	}
}

func TestLinkRace(t *testing.T) {
	t.Parallel()
	s, _, _ := newService(t)
	once, err := s.Once(t.Context(), "ana", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wins := make(chan string, 50)
	for range 50 {
		wg.Go(func() {
			if session, err := s.RedeemOnce(context.Background(), once); err == nil {
				wins <- session
			}
		})
	}
	wg.Wait()
	if len(wins) != 1 {
		t.Fatalf("%d requests redeemed one link", len(wins))
	}
}

func TestExpiry(t *testing.T) {
	t.Parallel()
	s, m, c := newService(t)
	start := c.now
	late, err := s.Once(t.Context(), "ana", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	once, _ := s.Once(t.Context(), "ana", time.Minute)
	token, err := s.NewToken(t.Context(), "ana", "laptop")
	if err != nil {
		t.Fatal(err)
	}
	session, err := s.RedeemOnce(t.Context(), once)
	if err != nil {
		t.Fatal(err)
	}
	c.now = start.Add(time.Minute)
	_, err = s.RedeemOnce(t.Context(), late)
	wantUnauthorized(t, err)

	for _, day := range []int{20, 40, 60} { // used every 20 days it lives on
		c.now = start.Add(time.Duration(day) * 24 * time.Hour)
		if _, err := s.Session(t.Context(), session); err != nil {
			t.Fatalf("day %d: %v", day, err)
		}
	}
	c.now = c.now.Add(SessionIdle)
	_, err = s.Session(t.Context(), session)
	wantUnauthorized(t, err)
	if _, ok := m.creds[hash(session)]; ok {
		t.Error("the idle session is still stored")
	}
	if _, err := s.Token(t.Context(), token); err != nil {
		t.Errorf("token: %v", err)
	}
}

func TestKindsDoNotMix(t *testing.T) {
	t.Parallel()
	s, m, _ := newService(t)
	once, _ := s.Once(t.Context(), "ana", time.Hour)
	token, _ := s.NewToken(t.Context(), "ana", "laptop")
	other, _ := s.Once(t.Context(), "ana", time.Hour)
	session, err := s.RedeemOnce(t.Context(), other)
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"", "shunt_s_", once, token, strings.Replace(token, "shunt_t_", "shunt_s_", 1), session + "x", session[:len(session)-1]} {
		_, err := s.Session(t.Context(), bad)
		wantUnauthorized(t, err)
	}
	for _, bad := range []string{"", once, session, strings.ToUpper(token)} {
		_, err := s.Token(t.Context(), bad)
		wantUnauthorized(t, err)
	}
	for _, bad := range []string{"", token, session} {
		_, err := s.RedeemOnce(t.Context(), bad)
		wantUnauthorized(t, err)
	}
	delete(m.users, "ana")
	_, err = s.Session(t.Context(), session)
	wantUnauthorized(t, err)
	_, err = s.Token(t.Context(), token)
	wantUnauthorized(t, err)
	if _, err := s.Once(t.Context(), "nobody", time.Hour); !delivery.IsKind(err, delivery.KindNotFound) {
		t.Errorf("Once for nobody: %v", err)
	}
}
