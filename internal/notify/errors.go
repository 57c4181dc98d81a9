package notify

import (
	"errors"
	"net/textproto"
	"slices"
	"strings"
)

// SendError says why a message did not reach everybody.
type SendError struct {
	// Permanent means that the server refused this message or these people for
	// good. Trouble with the server itself (away, TLS, password) is temporary:
	// the mail goes out when somebody has repaired it.
	Permanent bool
	// Undelivered lists the recipients that are worth another try, or, if
	// permanent, the ones that will not get it. The others have it.
	Undelivered []string
	Why         string // in words; never holds the password
	Err         error
}

// Error says what and why.
func (e *SendError) Error() string {
	s := "cannot send the mail: " + e.Why
	if len(e.Undelivered) > 0 {
		s += " (" + list(e.Undelivered, 5) + ")"
	}
	return s
}

// Unwrap returns the cause.
func (e *SendError) Unwrap() error { return e.Err }

// IsPermanent tells whether sending again cannot help. Every other error is
// temporary, also a lost answer: mail is sent at least once.
func IsPermanent(err error) bool {
	e, ok := errors.AsType[*SendError](err)
	return ok && e.Permanent
}

// Rest is the message for the next try after a temporary error: for those who
// do not have it yet.
func Rest(m Message, err error) Message {
	if e, ok := errors.AsType[*SendError](err); ok && !e.Permanent && len(e.Undelivered) > 0 {
		m.To = slices.Clone(e.Undelivered)
	}
	return m
}

func permanent(why string, err error) *SendError {
	return &SendError{Permanent: true, Why: why, Err: err}
}

func temporary(why string, err error) *SendError { return &SendError{Why: why, Err: err} }

// replied finds the server's reply in an error: 450, "greylisted".
func replied(err error) (code int, text string, ok bool) {
	if reply, is := errors.AsType[*textproto.Error](err); is {
		return reply.Code, line(strings.TrimSpace(reply.Msg), 200), true
	}
	return 0, "", false
}
