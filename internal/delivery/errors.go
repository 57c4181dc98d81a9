package delivery

import (
	"errors"
	"net/http"
	"strings"
)

// Kind is the category of an error. One table (kinds) maps it to an HTTP
// status and to an exit code of the command line.
type Kind string

// The kinds of error.
const (
	KindInvalid      Kind = "invalid"      // the input is wrong; say where and how
	KindUnauthorized Kind = "unauthorized" // nobody is signed in
	KindForbidden    Kind = "forbidden"    // somebody is, who may not
	KindNotFound     Kind = "not_found"
	KindConflict     Kind = "conflict"    // somebody else was first, or the thing changed meanwhile
	KindRefused      Kind = "refused"     // a rule of package flow says no
	KindUnavailable  Kind = "unavailable" // try again later: git remote, disk or database is away
	KindInternal     Kind = "internal"    // a bug, or a broken machine
)

type kindRow struct{ status, exit int }

func (k Kind) row() kindRow {
	switch k {
	case KindInvalid:
		return kindRow{http.StatusUnprocessableEntity, 2}
	case KindUnauthorized:
		return kindRow{http.StatusUnauthorized, 1}
	case KindForbidden:
		return kindRow{http.StatusForbidden, 1}
	case KindNotFound:
		return kindRow{http.StatusNotFound, 1}
	case KindConflict, KindRefused:
		return kindRow{http.StatusConflict, 1}
	case KindUnavailable:
		return kindRow{http.StatusServiceUnavailable, 1}
	case KindInternal:
	}
	return kindRow{http.StatusInternalServerError, 1}
}

// HTTPStatus is the status code with which the API answers this kind.
func (k Kind) HTTPStatus() int { return k.row().status }

// ExitCode is the exit code of the command line for this kind: 1 failed, 2 usage.
func (k Kind) ExitCode() int { return k.row().exit }

// Error is an error that a person may read: what could not be done, why, and
// what to do next. Err is the cause; its text is for logs and is never shown.
type Error struct {
	Kind Kind
	What string // "cannot promote build 44"
	Why  string // "it does not contain hotfix cart-500 (build 43, 3f9c1e2)"
	Next string // "Merge it:  shunt backmerge petstore"
	Err  error
}

// Error joins what, why and next; the cause is not part of it.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.What)
	if e.Why != "" {
		b.WriteString(": " + e.Why)
	}
	if e.Next != "" {
		b.WriteString("\n" + e.Next)
	}
	return b.String()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Errf makes an Error of a kind from what and why.
func Errf(kind Kind, what, why string) *Error { return &Error{Kind: kind, What: what, Why: why} }

// KindOf finds the kind of the first *Error in err's chain; an error without
// one is internal.
func KindOf(err error) Kind {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Kind
	}
	return KindInternal
}

// IsKind tells whether err carries an *Error of that kind.
func IsKind(err error, k Kind) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && e.Kind == k
}

// ErrLeaseLost says that the caller no longer owns what it tries to write: its
// fence is older than the one in the store. The only answer is to stop.
var ErrLeaseLost = errors.New("lease lost: a newer fence owns this")
