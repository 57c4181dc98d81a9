package cli

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"
)

// askAgain is how long a patient client waits between two attempts.
const askAgain = 200 * time.Millisecond

// answerTime bounds the wait for the first byte of an answer; streams may then
// go on for as long as they like.
const answerTime = 2 * time.Minute

// awayTime is how long a server that has answered once may be away.
const awayTime = 2 * time.Minute

// patientClient is an HTTP client that goes on asking a server that is being
// restarted: for patience when it never answered, else for awayTime at least.
// note (may be nil) is called when it has to.
func patientClient(patience time.Duration, note func(format string, args ...any)) *http.Client {
	return &http.Client{Transport: &patient{
		patience: patience,
		note:     note,
		next: &http.Transport{
			Proxy:                 http.ProxyFromEnvironment,
			DialContext:           (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
			ResponseHeaderTimeout: answerTime,
			MaxIdleConnsPerHost:   4,
			IdleConnTimeout:       30 * time.Second,
		},
	}}
}

// patient repeats a request only when that is harmless: a GET always, anything
// else only when no connection was made, so that it was never sent. A POST whose
// answer was lost comes back as an error: its sender must look up what became
// of it.
type patient struct {
	patience time.Duration
	note     func(format string, args ...any)
	next     http.RoundTripper
	answered atomic.Bool
}

// RoundTrip implements http.RoundTripper.
func (p *patient) RoundTrip(req *http.Request) (*http.Response, error) {
	wait := p.patience
	if p.answered.Load() {
		wait = max(wait, awayTime)
	}
	over := time.NewTimer(wait)
	defer over.Stop()
	for first := true; ; first = false {
		resp, err := p.once(req)
		if err == nil {
			p.answered.Store(true)
		}
		if wait == 0 || !again(req, resp, err) {
			return resp, err
		}
		if first && p.note != nil {
			p.note("the server does not answer; asking again for %s", wait)
		}
		select {
		case <-over.C:
			return resp, err
		case <-req.Context().Done():
			return resp, err
		case <-time.After(askAgain):
		}
		if resp != nil {
			_ = resp.Body.Close()
		}
		if req.GetBody != nil {
			body, err := req.GetBody()
			if err != nil {
				return nil, err
			}
			req = req.Clone(req.Context())
			req.Body = body
		}
	}
}

// once reads the whole of a short JSON answer, so that one that breaks off counts
// as lost and not as taken.
func (p *patient) once(req *http.Request) (*http.Response, error) {
	resp, err := p.next.RoundTrip(req)
	if err != nil || req.Method != http.MethodGet || !strings.Contains(resp.Header.Get("Content-Type"), "json") {
		return resp, err
	}
	b, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if err != nil {
		return nil, err
	}
	resp.Body = io.NopCloser(bytes.NewReader(b))
	return resp, nil
}

func again(req *http.Request, resp *http.Response, err error) bool {
	if req.Context().Err() != nil {
		return false
	}
	if req.Method == http.MethodGet {
		return err != nil || resp.StatusCode == http.StatusServiceUnavailable || resp.StatusCode == http.StatusBadGateway
	}
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Op == "dial"
}
