package artifact

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"maps"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"
)

const (
	maxAnswer     = 1 << 20                                                            // bytes of an answer that are read; the contents of an artifact excepted
	lookupTimeout = 30 * time.Second                                                   // for a question
	slowestRate   = 64 << 10                                                           // bytes per second; slower transfers are given up
	emptySHA      = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855" // of no bytes
)

// transferTimeout bounds a transfer of size bytes.
func transferTimeout(size int64) time.Duration {
	return 2*time.Minute + time.Duration(size/slowestRate)*time.Second
}

// remote talks to an HTTP server on behalf of a publisher.
type remote struct {
	client         *http.Client
	host           string // for words
	user, password string
}

func newRemote(client *http.Client, t Target, host string) remote {
	own := http.Client{Transport: &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
		TLSHandshakeTimeout:    10 * time.Second,
		ExpectContinueTimeout:  time.Second,
		IdleConnTimeout:        30 * time.Second,
		MaxResponseHeaderBytes: 64 << 10,
	}}
	if client != nil {
		own = *client
	}
	// A redirect would carry the artifact, and perhaps the password, to a place
	// that nobody configured.
	own.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	own.Jar = nil
	return remote{client: &own, host: host, user: t.User, password: t.Password}
}

// do sends a request and returns the answer; the caller closes its body.
func (r remote) do(req *http.Request) (*http.Response, error) {
	if r.user != "" || r.password != "" {
		req.SetBasicAuth(r.user, r.password)
	}
	req.Header.Set("User-Agent", "shunt")
	return r.client.Do(req) //nolint:gosec // the address is the target's, and the caller's dialer has the egress rules
}

// get asks a question and returns status and body, of which at most maxAnswer
// bytes are read.
func (r remote) get(ctx context.Context, url string) (status int, body []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Accept", "application/json")
	resp, err := r.do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close() //nolint:errcheck // only read from
	body, err = io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	return resp.StatusCode, body, err
}

// upload sends an item wrapped in head and tail as the body of req, with known
// length and without ever holding it in memory, and sorts the answer: 2xx is
// nil, anything else a *PublishError. Status is 0 without an answer.
func (r remote) upload(ctx context.Context, what string, item Item, method, url string, header http.Header, head, tail []byte) (status int, err error) {
	if item.Size == 0 && item.SHA256 != emptySHA {
		return 0, &PublishError{Outcome: OutcomeRefused, What: what, Why: "its bytes in the store are not the ones that were built", Err: ErrMismatch}
	}
	file, err := item.Open()
	if err != nil {
		return 0, &PublishError{Outcome: OutcomeRefused, What: what, Why: "its file cannot be read", Err: err}
	}
	content := &exactReader{r: file, want: item.SHA256, left: item.Size, hash: sha256.New()}
	body := &sentReader{r: io.MultiReader(strings.NewReader(string(head)), content, strings.NewReader(string(tail))), c: file}

	ctx, cancel := context.WithTimeout(ctx, transferTimeout(item.Size))
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		return 0, errors.Join(&PublishError{Outcome: OutcomeRefused, What: what, Why: "its address is not valid", Err: err}, file.Close())
	}
	req.ContentLength = int64(len(head)) + item.Size + int64(len(tail))
	// Lets the server refuse before the body travels, so that its words arrive.
	req.Header.Set("Expect", "100-continue")
	if req.ContentLength == 0 { // the transport takes 0 with a body for "unknown"
		req.Body = http.NoBody
		_ = body.Close()
	}
	maps.Copy(req.Header, header)
	resp, err := r.do(req)
	if err != nil {
		return 0, r.uploadError(what, err, content, body)
	}
	defer resp.Body.Close()                                       //nolint:errcheck // only read from
	answer, _ := io.ReadAll(io.LimitReader(resp.Body, maxAnswer)) // a status without its words is an answer still
	if bad := content.failure(); bad != nil {
		return resp.StatusCode, r.uploadError(what, bad, content, body)
	}
	if resp.StatusCode >= 200 && resp.StatusCode < 300 {
		return resp.StatusCode, nil
	}
	return resp.StatusCode, r.explain(what, resp.StatusCode, answer)
}

// uploadError sorts an upload without an answer.
func (r remote) uploadError(what string, err error, content *exactReader, body *sentReader) error {
	e := &PublishError{Outcome: OutcomeUnknown, What: what, Err: r.redactError(err)}
	switch {
	case content.failure() != nil:
		// The last bytes never left, so the server has no whole upload to keep.
		e.Outcome, e.Why = OutcomeRefused, "its bytes in the store are not the ones that were built"
		if !errors.Is(content.failure(), ErrMismatch) {
			e.Why = "its file cannot be read to the end"
		}
		e.Err = content.failure()
	case !body.sent.Load():
		e.Outcome, e.Temporary, e.Why = OutcomeRefused, true, r.host+" cannot be reached; nothing was sent"
	default:
		e.Why = "the answer of " + r.host + " got lost after the upload had begun"
	}
	return e
}

// explain turns an answer that is not a success into words. Server errors and
// time-outs are unknown, because the server may have stored before it failed.
func (r remote) explain(what string, status int, answer []byte) *PublishError {
	e := &PublishError{Outcome: OutcomeRefused, What: what, Err: fmt.Errorf("%s answered %d", r.host, status)}
	said := r.said(answer)
	switch {
	case status == http.StatusUnauthorized:
		e.Why, e.Next = r.host+" does not accept the user name and password (401)", "Check the secrets that the target names."
	case status == http.StatusForbidden:
		e.Why, e.Next = "the user may not write there (403)", "Give the user the right to add to this repository."
	case status == http.StatusNotFound:
		e.Why, e.Next = "there is no such repository or address (404)", "Check URL and repository of the target."
	case status == http.StatusRequestEntityTooLarge:
		e.Why = "it is too large for " + r.host + " or a proxy before it (413)"
	case status == http.StatusUnprocessableEntity:
		e.Why = r.host + " cannot process it (422)"
	case status == http.StatusTooManyRequests:
		e.Temporary, e.Why = true, r.host+" is busy (429)"
	case status >= 300 && status < 400:
		e.Why, e.Next = fmt.Sprintf("%s answers with a redirect (%d), which is not followed", r.host, status), "Give the final address in the target."
	case status >= 500, status == http.StatusRequestTimeout:
		e.Outcome, e.Why = OutcomeUnknown, fmt.Sprintf("%s failed after it was asked (%d)", r.host, status)
	default:
		e.Why = fmt.Sprintf("%s refused it (%d)", r.host, status)
	}
	if said != "" {
		e.Why += ": " + said
	}
	return e
}

// said extracts the words of an answer: Nexus sends [{"id":..., "message":...}].
// A page of HTML says nothing.
func (r remote) said(answer []byte) string {
	var problems []struct {
		ID      string `json:"id"`
		Message string `json:"message"`
	}
	text := string(answer)
	if json.Unmarshal(answer, &problems) == nil {
		var words []string
		for _, p := range problems {
			if p.ID != "" && p.ID != "*" {
				p.Message = p.ID + ": " + p.Message
			}
			words = append(words, p.Message)
		}
		text = strings.Join(words, "; ")
	} else if strings.HasPrefix(strings.TrimSpace(text), "<") {
		return ""
	}
	return clean(r.redact(text), 300)
}

// redact removes the password from text that came back from a server.
func (r remote) redact(s string) string {
	if r.password == "" {
		return s
	}
	basic := base64.StdEncoding.EncodeToString([]byte(r.user + ":" + r.password))
	return strings.NewReplacer(basic, "***", r.password, "***").Replace(s)
}

func (r remote) redactError(err error) error {
	if r.redact(err.Error()) == err.Error() {
		return err
	}
	return errors.New(r.redact(err.Error()))
}

// compare reads what url holds. Equal bytes give found; other bytes are the
// refusal; 404 is not found; anything else means that nobody can tell.
func (r remote) compare(ctx context.Context, what string, item Item, url string) (found bool, err error) {
	unknown := func(why string, err error) (bool, error) {
		return false, &PublishError{Outcome: OutcomeUnknown, What: what, Why: why, Err: err}
	}
	ctx, cancel := context.WithTimeout(ctx, transferTimeout(item.Size))
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return unknown("its address is not valid", err)
	}
	req.Header.Set("Accept-Encoding", "identity") // the digest is of the bytes, not of their compression
	resp, err := r.do(req)
	if err != nil {
		return unknown(r.host+" cannot be reached to look it up", r.redactError(err))
	}
	defer resp.Body.Close() //nolint:errcheck // only read from
	switch {
	case resp.StatusCode == http.StatusNotFound, resp.StatusCode == http.StatusGone:
		return false, nil
	case resp.StatusCode != http.StatusOK:
		answer, _ := io.ReadAll(io.LimitReader(resp.Body, maxAnswer)) // a status without its words is an answer still
		e := r.explain(what, resp.StatusCode, answer)
		e.Outcome, e.Why = OutcomeUnknown, "it cannot be looked up: "+e.Why
		return false, e
	case resp.ContentLength >= 0 && resp.ContentLength != item.Size:
		return false, otherBytes(what, url)
	}
	h := sha256.New()
	n, err := io.Copy(h, io.LimitReader(resp.Body, item.Size+1))
	switch {
	case err != nil, n < item.Size:
		return unknown("reading it back from "+r.host+" broke off", err)
	case n > item.Size || hex.EncodeToString(h.Sum(nil)) != item.SHA256:
		return false, otherBytes(what, url)
	}
	return true, nil
}

// exactReader hands out exactly the promised bytes. The last of them is held
// back until the digest is known to be right: what was approved is what is
// pushed, or the server never sees the end of it.
type exactReader struct {
	r    io.Reader
	want string
	left int64
	hash hash.Hash
	err  atomic.Pointer[error] // the transport may read in another goroutine
}

func (e *exactReader) failure() error {
	if p := e.err.Load(); p != nil {
		return *p
	}
	return nil
}

func (e *exactReader) fail(err error) (int, error) {
	e.err.Store(&err)
	return 0, err
}

func (e *exactReader) Read(p []byte) (int, error) {
	if err := e.failure(); err != nil {
		return 0, err
	}
	if e.left == 0 {
		return 0, io.EOF
	}
	if len(p) == 0 {
		return 0, nil
	}
	n, err := e.r.Read(p[:min(int64(len(p)), e.left)])
	e.hash.Write(p[:n])
	e.left -= int64(n)
	switch {
	case e.left == 0 && hex.EncodeToString(e.hash.Sum(nil)) != e.want, e.left > 0 && errors.Is(err, io.EOF):
		return e.fail(ErrMismatch)
	case e.left > 0 && err != nil:
		return e.fail(err)
	}
	return n, nil
}

// sentReader remembers whether anybody began to read the body.
type sentReader struct {
	r    io.Reader
	c    io.Closer
	sent atomic.Bool
}

func (s *sentReader) Read(p []byte) (int, error) {
	s.sent.Store(true)
	return s.r.Read(p)
}

// Close closes the file.
func (s *sentReader) Close() error { return s.c.Close() }
