package runner

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/shuntcd/shunt/internal/delivery"
)

// answerTime bounds how long a runner may take to answer beyond what it was
// asked to wait.
const answerTime = 30 * time.Second

// Client talks to the runner of a directory. It is safe for concurrent use,
// and goes on working when the runner is replaced.
type Client struct {
	dir    string
	http   *http.Client
	remote bool   // it does not share this server's disk
	cut    func() // ends a link
}

// Remote tells whether the runner works on another disk: directories are sent to
// it (Send), and files are fetched (Open).
func (c *Client) Remote() bool { return c.remote }

// NewClient makes a client for the runner that works in dir. It does not
// connect. A call fails with ErrGone when no runner answers, with ErrUnknownJob,
// or with an *delivery.Error; any other failure means that the answer was lost,
// and that nobody knows whether the call took effect.
func NewClient(dir string) *Client {
	c := &Client{dir: dir}
	c.http = &http.Client{Transport: &http.Transport{DialContext: c.dial, DisableCompression: true, MaxIdleConnsPerHost: 32, IdleConnTimeout: time.Minute}}
	return c
}

// Close drops idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

func (c *Client) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	path := filepath.Join(c.dir, "runner.sock")
	if data, err := os.ReadFile(filepath.Join(c.dir, "socket")); err == nil && len(data) > 0 {
		path = string(data)
	}
	if len(path) > maxSocketPath {
		return nil, fmt.Errorf("%w: there is no socket", ErrGone)
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
	if err != nil && ctx.Err() == nil {
		return nil, fmt.Errorf("%w: %w", ErrGone, err)
	}
	return conn, err //nolint:wrapcheck // of the caller's context
}

// Info asks the runner who it is.
func (c *Client) Info(ctx context.Context) (Info, error) {
	var info Info
	err := c.call(ctx, http.MethodGet, "/info", nil, 0, &info)
	return info, err
}

// Start starts a job, once: a job that is known by its ID is not started again,
// and its status is the answer. An older fence than the known one is refused
// with a conflict (delivery.ErrLeaseLost); a newer one takes the job over.
func (c *Client) Start(ctx context.Context, spec Spec) (Status, error) {
	var status Status
	err := c.call(ctx, http.MethodPost, "/jobs", toWire(spec), 0, &status)
	return status, err
}

// Wait returns when the job has finished, when its log is longer than
// logOffset bytes, or after wait, which is cut to a minute.
func (c *Client) Wait(ctx context.Context, id string, logOffset int64, wait time.Duration) (Status, error) {
	var status Status
	wait = min(max(0, wait), maxWait)
	query := url.Values{"offset": {strconv.FormatInt(logOffset, 10)}, "wait": {wait.String()}}
	err := c.call(ctx, http.MethodGet, "/jobs/"+url.PathEscape(id)+"?"+query.Encode(), nil, wait, &status)
	return status, err
}

// Log writes the stored lines from offset up to what is complete now to w, and
// returns how many bytes that were.
func (c *Client) Log(ctx context.Context, id string, offset int64, w io.Writer) (int64, error) {
	path := fmt.Sprintf("/jobs/%s/log?offset=%d", url.PathEscape(id), offset)
	resp, err := c.send(ctx, http.MethodGet, path, nil)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close() //nolint:errcheck // read to its end
	n, err := io.Copy(w, resp.Body)
	if err != nil {
		return n, fmt.Errorf("%w: reading the log of job %s: %w", ErrGone, id, err) // or it ended meanwhile; asking again tells
	}
	return n, nil
}

// Stop interrupts a job, and kills it after its grace. It returns at once, and
// may be repeated; the first reason counts.
func (c *Client) Stop(ctx context.Context, id, reason string) error {
	return c.call(ctx, http.MethodPost, "/jobs/"+url.PathEscape(id)+"/stop", control{Stop: reason}, 0, nil)
}

// Release tells the runner that the server has everything: the job is forgotten
// and its log, home and collected files are removed. It may be repeated, and is
// refused while the job runs.
func (c *Client) Release(ctx context.Context, id string) error {
	return c.call(ctx, http.MethodDelete, "/jobs/"+url.PathEscape(id), nil, 0, nil)
}

func (c *Client) call(ctx context.Context, method, path string, body any, wait time.Duration, answer any) error {
	ctx, cancel := context.WithTimeout(ctx, wait+answerTime)
	defer cancel()
	resp, err := c.send(ctx, method, path, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close() //nolint:errcheck // read to its end
	if answer == nil {
		answer = &struct{}{}
	}
	if err := json.NewDecoder(resp.Body).Decode(answer); err != nil {
		return fmt.Errorf("the runner's answer: %w", err)
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	return nil
}

func (c *Client) send(ctx context.Context, method, path string, body any) (*http.Response, error) {
	var content []byte
	if body != nil {
		var err error
		if content, err = json.Marshal(body); err != nil {
			return nil, fmt.Errorf("asking the runner: %w", err)
		}
	}
	resp, err := c.attempt(ctx, method, path, content)
	// Every call may be repeated. A connection that breaks may belong to a runner
	// that just ended; another attempt finds that out, or its successor.
	for pause := 10 * time.Millisecond; err != nil && !errors.Is(err, ErrGone) && ctx.Err() == nil && pause < 100*time.Millisecond; pause *= 2 {
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
		resp, err = c.attempt(ctx, method, path, content)
	}
	if err != nil {
		if errors.Is(err, ErrGone) {
			return nil, &delivery.Error{Kind: delivery.KindUnavailable, What: "the runner cannot be reached", Why: "no runner answers", Err: err}
		}
		return nil, err
	}
	return c.judge(resp)
}

// judge turns an answer that is none into its error.
func (c *Client) judge(resp *http.Response) (*http.Response, error) {
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	defer resp.Body.Close() //nolint:errcheck // an error's body
	var e wireError
	if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&e); err != nil || e.Kind == "" {
		return nil, fmt.Errorf("asking the runner: it answers %s", resp.Status)
	}
	answer := &delivery.Error{Kind: e.Kind, What: e.What, Why: e.Why, Next: e.Next}
	switch {
	case e.UnknownJob:
		answer.Err = ErrUnknownJob
	case e.LeaseLost:
		answer.Err = delivery.ErrLeaseLost
	case e.NoLease:
		answer.Err = ErrNoLease
	}
	return nil, answer
}

func (c *Client) attempt(ctx context.Context, method, path string, content []byte) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, fmt.Sprintf("http://runner/v%d%s", Protocol, path), bytes.NewReader(content))
	if err != nil {
		return nil, fmt.Errorf("asking the runner: %w", err)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("asking the runner: %w", err)
	}
	return resp, nil
}
