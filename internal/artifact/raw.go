package artifact

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"
)

// rawPublisher pushes with one PUT to any HTTP server.
type rawPublisher struct {
	remote
	base      *url.URL
	directory string
}

func newRawPublisher(t Target, client *http.Client) (*rawPublisher, error) {
	u, err := baseURL(t.URL)
	if err != nil {
		return nil, err
	}
	dir, err := checkDirectory(t.Directory)
	if err != nil {
		return nil, err
	}
	if dir != "" && !strings.HasSuffix(u.Path, "/") {
		return nil, badTarget("its URL names a file, so it takes no directory")
	}
	return &rawPublisher{remote: newRemote(client, t, u.Host), base: u, directory: dir}, nil
}

func (p *rawPublisher) what(item Item) string {
	return "cannot publish " + clean(item.File, 100) + " to " + p.host
}

// address is the URL of the item: the target's own, or below it when it ends in /.
func (p *rawPublisher) address(item Item) string {
	if !strings.HasSuffix(p.base.Path, "/") {
		return p.base.String()
	}
	return below(p.base, p.directory, item.File).String()
}

// Preflight can only find out what a reader may know: the server is there and
// takes the password. There is no way to ask for the right to write.
func (p *rawPublisher) Preflight(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	what := "cannot publish to " + p.host
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, p.base.String(), nil)
	if err != nil {
		return &PublishError{Outcome: OutcomeRefused, What: what, Why: "its address is not valid", Err: err}
	}
	resp, err := p.do(req)
	if err != nil {
		return &PublishError{Outcome: OutcomeRefused, Temporary: true, What: what, Why: p.host + " cannot be reached", Err: p.redactError(err)}
	}
	defer resp.Body.Close() //nolint:errcheck // only read from
	switch {
	case resp.StatusCode == http.StatusUnauthorized:
		return p.explain(what, resp.StatusCode, nil)
	case resp.StatusCode >= 500 && resp.StatusCode != http.StatusNotImplemented:
		e := p.explain(what, resp.StatusCode, nil)
		e.Outcome, e.Temporary = OutcomeRefused, true
		return e
	}
	return nil
}

// Publish looks first, because a server that does not know If-None-Match would
// overwrite.
func (p *rawPublisher) Publish(ctx context.Context, item Item) (Receipt, error) {
	receipt, found, err := p.Probe(ctx, item)
	if found || refused(err) {
		return receipt, err
	}
	header := http.Header{"Content-Type": {"application/octet-stream"}, "If-None-Match": {"*"}}
	status, err := p.upload(ctx, p.what(item), item, http.MethodPut, p.address(item), header, nil, nil)
	if status == http.StatusConflict || status == http.StatusPreconditionFailed {
		return repeated(ctx, p, item, err)
	}
	if err != nil {
		return Receipt{}, err
	}
	return Receipt{URL: p.address(item), SHA256: item.SHA256}, nil
}

// Probe reads the item back.
func (p *rawPublisher) Probe(ctx context.Context, item Item) (Receipt, bool, error) {
	if err := checkItem(p.what(item), item); err != nil {
		return Receipt{}, false, err
	}
	found, err := p.compare(ctx, p.what(item), item, p.address(item))
	if err != nil || !found {
		return Receipt{}, false, err
	}
	return Receipt{URL: p.address(item), SHA256: item.SHA256}, true, nil
}

// refused tells whether a look before the push forbids it. A look that failed
// does not: some users may write and not read, and then the server's own
// write-once rule is the guard.
func refused(err error) bool {
	e, ok := errors.AsType[*PublishError](err)
	return ok && e.Outcome == OutcomeRefused
}

// repeated decides about an upload that the server refused because it holds
// something in that place already: equal bytes are success. Refusal is what the
// server said.
func repeated(ctx context.Context, p Publisher, item Item, refusal error) (Receipt, error) {
	receipt, found, err := p.Probe(ctx, item)
	switch {
	case err != nil:
		if e, ok := errors.AsType[*PublishError](err); ok && e.Outcome == OutcomeUnknown {
			e.Why += "; the upload was answered with: " + refusal.Error()
		}
		return Receipt{}, err
	case !found:
		return Receipt{}, refusal // it was about something else
	}
	return receipt, nil
}
