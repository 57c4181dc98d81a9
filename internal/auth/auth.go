// Package auth says who somebody is. A person signs in with a one-time link
// (the operator makes it on the server's machine), which becomes a session, the
// cookie of a browser; the command line shows a token. All three are
// credentials: a random secret of 256 bits of which only the SHA-256 is stored,
// so that a copy of the database opens nothing. A prefix tells them apart, in
// logs and for secret scanners: shunt_once_, shunt_s_, shunt_t_.
//
// A webhook is signed with the project's secret instead; see VerifyWebhook.
package auth

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"github.com/shuntcd/shunt/internal/delivery"
)

// SessionIdle is how long a session lives without being used.
const SessionIdle = 30 * 24 * time.Hour

// touchEvery is the resolution of "last seen": reading a page must not cost a
// write each time.
const touchEvery = time.Hour

// secretLen is the length of 256 bits in unpadded base64url.
const secretLen = 43

const (
	prefixOnce    = "shunt_once_"
	prefixSession = "shunt_s_"
	prefixToken   = "shunt_t_"
)

// Store keeps users and credentials. Missing rows are delivery.KindNotFound.
type Store interface {
	InsertUser(ctx context.Context, u delivery.User) error
	User(ctx context.Context, name string) (delivery.User, error)
	InsertCredential(ctx context.Context, c delivery.Credential) error
	Credential(ctx context.Context, hash string) (delivery.Credential, error)
	// UseCredential sets used_at if it was empty, and tells whether it was.
	UseCredential(ctx context.Context, hash string, at time.Time) (first bool, err error)
	// TouchCredential sets used_at.
	TouchCredential(ctx context.Context, hash string, at time.Time) error
	DeleteCredential(ctx context.Context, hash string) error
}

// Service makes and checks credentials.
type Service struct {
	store Store
	clock delivery.Clock
}

// New returns a Service on a store.
func New(store Store, clock delivery.Clock) *Service { return &Service{store: store, clock: clock} }

// Once makes the secret of a link that signs a user in, once, within ttl (more
// than 0).
func (s *Service) Once(ctx context.Context, user string, ttl time.Duration) (string, error) {
	if ttl <= 0 {
		return "", delivery.Errf(delivery.KindInvalid, "cannot make a sign-in link", "it must expire later than now")
	}
	return s.make(ctx, delivery.CredentialOnce, prefixOnce, user, "", ttl)
}

// NewToken makes a bearer token for a user. It does not expire.
func (s *Service) NewToken(ctx context.Context, user, name string) (string, error) {
	return s.make(ctx, delivery.CredentialToken, prefixToken, user, name, 0)
}

// RedeemOnce turns a one-time link into a session's secret. Of two requests
// with one link exactly one wins.
func (s *Service) RedeemOnce(ctx context.Context, secret string) (string, error) {
	c, err := s.find(ctx, secret, prefixOnce, delivery.CredentialOnce)
	if err != nil {
		if delivery.IsKind(err, delivery.KindUnauthorized) {
			return "", linkError("it is not one of this server's links")
		}
		return "", err
	}
	now := s.clock.Now()
	if !c.UsedAt.IsZero() {
		return "", linkError("it was used before")
	}
	if !c.ExpiresAt.IsZero() && !now.Before(c.ExpiresAt) {
		return "", linkError("it has expired")
	}
	first, err := s.store.UseCredential(ctx, c.Hash, now)
	if err != nil {
		return "", fmt.Errorf("use sign-in link: %w", err)
	}
	if !first {
		return "", linkError("it was used before")
	}
	return s.make(ctx, delivery.CredentialSession, prefixSession, c.User, "", 0)
}

// Session returns the user of a session. The session's life starts anew, at
// most once an hour; after SessionIdle without use it is over.
func (s *Service) Session(ctx context.Context, secret string) (delivery.User, error) {
	c, err := s.find(ctx, secret, prefixSession, delivery.CredentialSession)
	if err != nil {
		return delivery.User{}, err
	}
	seen := c.CreatedAt
	if c.UsedAt.After(seen) {
		seen = c.UsedAt
	}
	now := s.clock.Now()
	if now.Sub(seen) >= SessionIdle {
		if err := s.store.DeleteCredential(ctx, c.Hash); err != nil {
			return delivery.User{}, fmt.Errorf("end session: %w", err)
		}
		return delivery.User{}, notSignedIn()
	}
	return s.seen(ctx, c, seen, now)
}

// Token returns the user of a bearer token.
func (s *Service) Token(ctx context.Context, secret string) (delivery.User, error) {
	c, err := s.find(ctx, secret, prefixToken, delivery.CredentialToken)
	if err != nil {
		return delivery.User{}, err
	}
	return s.seen(ctx, c, c.UsedAt, s.clock.Now())
}

// SignOut ends a session. Ending one that is over is no error.
func (s *Service) SignOut(ctx context.Context, session string) error {
	c, err := s.find(ctx, session, prefixSession, delivery.CredentialSession)
	if delivery.IsKind(err, delivery.KindUnauthorized) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := s.store.DeleteCredential(ctx, c.Hash); err != nil && !delivery.IsKind(err, delivery.KindNotFound) {
		return fmt.Errorf("end session: %w", err)
	}
	return nil
}

func (s *Service) seen(ctx context.Context, c delivery.Credential, last, now time.Time) (delivery.User, error) {
	u, err := s.store.User(ctx, c.User)
	if delivery.IsKind(err, delivery.KindNotFound) {
		return delivery.User{}, notSignedIn()
	}
	if err != nil {
		return delivery.User{}, fmt.Errorf("read user: %w", err)
	}
	if now.Sub(last) >= touchEvery {
		if err := s.store.TouchCredential(ctx, c.Hash, now); err != nil {
			return delivery.User{}, fmt.Errorf("note last use: %w", err)
		}
	}
	return u, nil
}

// find looks a secret up. The hash is the key of the lookup, so its timing says
// nothing about the secret.
func (s *Service) find(ctx context.Context, secret, prefix string, kind delivery.CredentialKind) (delivery.Credential, error) {
	body, ok := strings.CutPrefix(secret, prefix)
	if !ok || len(body) != secretLen {
		return delivery.Credential{}, notSignedIn()
	}
	c, err := s.store.Credential(ctx, hash(secret))
	if delivery.IsKind(err, delivery.KindNotFound) {
		return delivery.Credential{}, notSignedIn()
	}
	if err != nil {
		return delivery.Credential{}, fmt.Errorf("read credential: %w", err)
	}
	if c.Kind != kind {
		return delivery.Credential{}, notSignedIn()
	}
	return c, nil
}

func (s *Service) make(ctx context.Context, kind delivery.CredentialKind, prefix, user, name string, ttl time.Duration) (string, error) {
	if _, err := s.store.User(ctx, user); err != nil {
		return "", fmt.Errorf("read user: %w", err)
	}
	raw := make([]byte, 32)
	if _, err := rand.Read(raw); err != nil {
		return "", fmt.Errorf("make secret: %w", err)
	}
	secret := prefix + base64.RawURLEncoding.EncodeToString(raw)
	c := delivery.Credential{Hash: hash(secret), Kind: kind, User: user, Name: name, CreatedAt: s.clock.Now()}
	if ttl > 0 {
		c.ExpiresAt = c.CreatedAt.Add(ttl)
	}
	if err := s.store.InsertCredential(ctx, c); err != nil {
		return "", fmt.Errorf("store credential: %w", err)
	}
	return secret, nil
}

func hash(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:])
}

func notSignedIn() *delivery.Error {
	return &delivery.Error{Kind: delivery.KindUnauthorized, What: "you are not signed in", Next: "Make a sign-in link on the server:  shunt login-link"}
}

func linkError(why string) *delivery.Error {
	return &delivery.Error{Kind: delivery.KindUnauthorized, What: "this link does not sign you in", Why: why, Next: "Make a new one on the server:  shunt login-link"}
}
