package delivery

import "time"

// User is a person who may sign in.
type User struct {
	Name      string // ^[a-z0-9][a-z0-9._-]{0,62}$
	Email     string
	Operator  bool // may do everything; until roles exist, whoever may sign in is one
	CreatedAt time.Time
}

// CredentialKind says what a credential opens.
type CredentialKind string

// The kinds of credential.
const (
	CredentialOnce    CredentialKind = "once"    // a link that signs in once
	CredentialSession CredentialKind = "session" // a browser's cookie
	CredentialToken   CredentialKind = "token"   // the command line's bearer token
)

// Credential proves who somebody is. Only the SHA-256 of its secret is kept.
type Credential struct {
	Hash      string // 64 hex digits
	Kind      CredentialKind
	User      string
	Name      string // of a token, for its owner
	CreatedAt time.Time
	ExpiresAt time.Time // zero: never
	UsedAt    time.Time // of a once link: when it was redeemed; of others: last seen
}
