package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/shuntcd/shunt/internal/delivery"
)

// maxAnswer bounds a JSON answer, in bytes.
const maxAnswer = 64 << 20

// Client calls a Shunt server.
type Client struct {
	base  string
	token string
	http  *http.Client
}

// NewClient returns a client of the server at base, such as
// http://localhost:8080, that shows the given token.
func NewClient(base, token string, h *http.Client) *Client {
	return &Client{base: strings.TrimSuffix(base, "/"), token: token, http: h}
}

// errorBody is RFC 9457 problem JSON, with Shunt's kind and next step.
type errorBody struct {
	Status int           `json:"status"`
	Title  string        `json:"title"`
	Detail string        `json:"detail"`
	Kind   delivery.Kind `json:"kind"`
	Next   string        `json:"next"`
	Errors []struct {
		Message  string `json:"message"`
		Location string `json:"location"`
	} `json:"errors"`
}

// Do sends one request. in (may be nil) is sent as JSON; out (may be nil) takes
// the answer. A refusal comes back as *delivery.Error; a server that cannot be
// reached has KindUnavailable.
func (c *Client) Do(ctx context.Context, method, path string, in, out any) error {
	resp, err := c.open(ctx, method, path, in)
	if err != nil {
		return err
	}
	defer resp.Body.Close() //nolint:errcheck // nothing is written
	if out == nil {
		return nil
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(out); err != nil {
		return &delivery.Error{Kind: delivery.KindUnavailable, What: "the server's answer cannot be read", Why: err.Error(), Next: "Is " + c.base + " a Shunt server of this version?", Err: err}
	}
	return nil
}

func (c *Client) open(ctx context.Context, method, path string, in any) (*http.Response, error) {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return nil, fmt.Errorf("encode request: %w", err)
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, body)
	if err != nil {
		return nil, fmt.Errorf("make request: %w", err)
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	req.Header.Set("Authorization", "Bearer "+c.token)
	resp, err := c.http.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return nil, fmt.Errorf("ask the server: %w", ctx.Err())
		}
		return nil, &delivery.Error{Kind: delivery.KindUnavailable, What: "cannot reach the Shunt server at " + c.base, Why: reason(err), Next: "Is it running?  shunt serve   Another address:  --server URL or SHUNT_SERVER", Err: err}
	}
	if resp.StatusCode/100 != 2 {
		defer resp.Body.Close() //nolint:errcheck // nothing is written
		return nil, readError(resp)
	}
	return resp, nil
}

func reason(err error) string {
	if u, ok := errors.AsType[*url.Error](err); ok {
		return u.Err.Error()
	}
	return err.Error()
}

func readError(resp *http.Response) error {
	var e errorBody
	raw, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err == nil {
		err = json.Unmarshal(raw, &e)
	}
	if err != nil || e.Title == "" && e.Detail == "" {
		return &delivery.Error{Kind: kindOfStatus(resp.StatusCode), What: "the server answered " + resp.Status}
	}
	out := &delivery.Error{Kind: e.Kind, What: e.Title, Why: e.Detail, Next: e.Next}
	if out.Kind == "" {
		out.Kind = kindOfStatus(resp.StatusCode)
	}
	for _, d := range e.Errors {
		out.Why += "\n  " + strings.TrimPrefix(d.Location+": ", ": ") + d.Message
	}
	return out
}

func kindOfStatus(status int) delivery.Kind {
	for _, k := range []delivery.Kind{delivery.KindUnauthorized, delivery.KindForbidden, delivery.KindNotFound, delivery.KindConflict, delivery.KindInvalid, delivery.KindUnavailable} {
		if k.HTTPStatus() == status {
			return k
		}
	}
	if status == http.StatusBadRequest {
		return delivery.KindInvalid
	}
	return delivery.KindInternal
}

func get[T any](ctx context.Context, c *Client, path string) (T, error) {
	var out T
	err := c.Do(ctx, http.MethodGet, path, nil, &out)
	return out, err
}

func post[T any](ctx context.Context, c *Client, path string, in any) (T, error) {
	var out T
	err := c.Do(ctx, http.MethodPost, path, in, &out)
	return out, err
}

func projectPath(project string) string { return "/api/v1/projects/" + url.PathEscape(project) }

func buildPath(project string, number int64) string {
	return projectPath(project) + "/builds/" + strconv.FormatInt(number, 10)
}

// Me says who the token belongs to.
func (c *Client) Me(ctx context.Context) (Me, error) { return get[Me](ctx, c, "/api/v1/me") }

// Projects lists the projects.
func (c *Client) Projects(ctx context.Context) ([]Project, error) {
	return get[[]Project](ctx, c, "/api/v1/projects")
}

// Project returns one project.
func (c *Client) Project(ctx context.Context, name string) (Project, error) {
	return get[Project](ctx, c, projectPath(name))
}

// AddProject takes a repository over.
func (c *Client) AddProject(ctx context.Context, in AddProject) (AddedProject, error) {
	return post[AddedProject](ctx, c, "/api/v1/projects", in)
}

// Sync reads the remote's refs now and says what became of each change.
func (c *Client) Sync(ctx context.Context, project string) ([]Push, error) {
	return post[[]Push](ctx, c, projectPath(project)+"/sync", nil)
}

// Pushes lists the latest pushes and what became of them, newest first.
func (c *Client) Pushes(ctx context.Context, project string) ([]Push, error) {
	return get[[]Push](ctx, c, projectPath(project)+"/pushes")
}

// Builds lists builds, newest first.
func (c *Client) Builds(ctx context.Context, project string, f BuildFilter) ([]Build, error) {
	q := url.Values{}
	for k, v := range map[string]string{"lane": f.Lane, "status": f.Status, "branch": f.Branch, "commit": f.Commit} {
		if v != "" {
			q.Set(k, v)
		}
	}
	if f.Before > 0 {
		q.Set("before", strconv.FormatInt(f.Before, 10))
	}
	if f.Limit > 0 {
		q.Set("limit", strconv.Itoa(f.Limit))
	}
	return get[[]Build](ctx, c, projectPath(project)+"/builds?"+q.Encode())
}

// Build returns one build.
func (c *Client) Build(ctx context.Context, project string, number int64) (BuildDetail, error) {
	return get[BuildDetail](ctx, c, buildPath(project, number))
}

// Log streams the stored log lines of a node's attempt (0: the latest) from a
// byte offset; with follow the stream ends when the attempt has. format is
// "stored" (runlog's lines) or "text". The caller closes it.
func (c *Client) Log(ctx context.Context, project string, number int64, node string, attempt int, offset int64, follow bool, format string) (io.ReadCloser, error) {
	q := url.Values{"node": {node}, "attempt": {strconv.Itoa(attempt)}, "offset": {strconv.FormatInt(offset, 10)}, "follow": {strconv.FormatBool(follow)}, "format": {format}}
	resp, err := c.open(ctx, http.MethodGet, buildPath(project, number)+"/log?"+q.Encode(), nil)
	if err != nil {
		return nil, err
	}
	return resp.Body, nil
}

// Artifact downloads an artifact's bytes. The caller closes it.
func (c *Client) Artifact(ctx context.Context, project string, number int64, name string) (io.ReadCloser, error) {
	resp, err := c.open(ctx, http.MethodGet, buildPath(project, number)+"/artifacts/"+url.PathEscape(name), nil)
	if err != nil {
		return nil, err
	}
	return resp.Body, nil
}

// Gate returns the promote page.
func (c *Client) Gate(ctx context.Context, id string) (GateDetail, error) {
	return get[GateDetail](ctx, c, "/api/v1/gates/"+url.PathEscape(id))
}

// Decide promotes or rejects the build's open gate.
func (c *Client) Decide(ctx context.Context, project string, number int64, in Decide) (Gate, error) {
	return post[Gate](ctx, c, buildPath(project, number)+"/decision", in)
}

// Cancel stops a build that has not ended.
func (c *Client) Cancel(ctx context.Context, project string, number int64, reason string) (Build, error) {
	return post[Build](ctx, c, buildPath(project, number)+"/cancel", Because{Reason: reason})
}

// Rerun runs the failed nodes of a build again on the same commit.
func (c *Client) Rerun(ctx context.Context, project string, number int64) (Build, error) {
	return post[Build](ctx, c, buildPath(project, number)+"/rerun", nil)
}

// Resolve answers what a stopped build asks.
func (c *Client) Resolve(ctx context.Context, project string, number int64, in Resolve) (Build, error) {
	return post[Build](ctx, c, buildPath(project, number)+"/resolve", in)
}

// Rollback puts an earlier production build back; it answers that build.
func (c *Client) Rollback(ctx context.Context, project string, in Rollback) (Build, error) {
	return post[Build](ctx, c, projectPath(project)+"/rollback", in)
}

// Hold stops promotions of the main lane.
func (c *Client) Hold(ctx context.Context, project, reason string) (Project, error) {
	return post[Project](ctx, c, projectPath(project)+"/hold", Because{Reason: reason})
}

// ReleaseHold lets the main lane promote again.
func (c *Client) ReleaseHold(ctx context.Context, project, reason string) (Project, error) {
	return post[Project](ctx, c, projectPath(project)+"/release-hold", Because{Reason: reason})
}

// ClearIncident says that a person has looked at the incident and accepts the
// production branch and tags as they are now.
func (c *Client) ClearIncident(ctx context.Context, project, reason string) (Project, error) {
	return post[Project](ctx, c, projectPath(project)+"/clear-incident", Because{Reason: reason})
}

// Hotfix says where a hotfix must start and which ones are open.
func (c *Client) Hotfix(ctx context.Context, project string) (HotfixBase, error) {
	return get[HotfixBase](ctx, c, projectPath(project)+"/hotfix")
}

// BackMerges lists debts, open ones first.
func (c *Client) BackMerges(ctx context.Context, project string) ([]BackMerge, error) {
	return get[[]BackMerge](ctx, c, projectPath(project)+"/back-merges")
}

// Instances lists the ephemeral environments that are up, or were in the last day.
func (c *Client) Instances(ctx context.Context, project string) ([]Instance, error) {
	return get[[]Instance](ctx, c, projectPath(project)+"/environments")
}

// Keep changes how long an ephemeral environment lives.
func (c *Client) Keep(ctx context.Context, project, id string, in Keep) (Instance, error) {
	return post[Instance](ctx, c, projectPath(project)+"/environments/"+url.PathEscape(id)+"/keep", in)
}

// Destroy ends an ephemeral environment now.
func (c *Client) Destroy(ctx context.Context, project, id string) (Instance, error) {
	return post[Instance](ctx, c, projectPath(project)+"/environments/"+url.PathEscape(id)+"/destroy", nil)
}

// SetSecret stores a secret of a project.
func (c *Client) SetSecret(ctx context.Context, project, name, value string) error {
	return c.Do(ctx, http.MethodPut, projectPath(project)+"/secrets/"+url.PathEscape(name), Secret{Value: value}, nil)
}

// DeleteSecret removes a secret.
func (c *Client) DeleteSecret(ctx context.Context, project, name string) error {
	return c.Do(ctx, http.MethodDelete, projectPath(project)+"/secrets/"+url.PathEscape(name), nil, nil)
}

// Secrets lists the names of a project's secrets.
func (c *Client) Secrets(ctx context.Context, project string) ([]string, error) {
	return get[[]string](ctx, c, projectPath(project)+"/secrets")
}

// Audit lists audit rows of a project, newest first, below a sequence number (0: all).
func (c *Client) Audit(ctx context.Context, project string, before int64) ([]AuditRow, error) {
	return get[[]AuditRow](ctx, c, projectPath(project)+"/audit?before="+strconv.FormatInt(before, 10))
}

// Mails lists the demo's mailbox, newest first.
func (c *Client) Mails(ctx context.Context) ([]Mail, error) {
	return get[[]Mail](ctx, c, "/api/v1/mails")
}

// Doctor lists the server's health checks.
func (c *Client) Doctor(ctx context.Context) ([]Check, error) {
	return get[[]Check](ctx, c, "/api/v1/doctor")
}

// CreateToken makes a token for the command line.
func (c *Client) CreateToken(ctx context.Context, name string) (Token, error) {
	return post[Token](ctx, c, "/api/v1/tokens", Token{Name: name})
}
