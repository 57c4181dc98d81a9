package server

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/shuntcd/shunt/internal/api"
	"github.com/shuntcd/shunt/internal/delivery"
	"github.com/shuntcd/shunt/internal/engine"
	"github.com/shuntcd/shunt/internal/notify"
	"github.com/shuntcd/shunt/internal/runlog"
	"github.com/shuntcd/shunt/internal/store"
	"github.com/shuntcd/shunt/internal/web"
)

// Log implements web.Reader.
func (s *Server) Log(ctx context.Context, project string, number int64, node string, attempt int) (web.Log, error) {
	b, err := s.store.BuildByNumber(ctx, project, number)
	if err != nil {
		return nil, err
	}
	attempts, err := s.store.Attempts(ctx, b.ID)
	if err != nil {
		return nil, err
	}
	var found *delivery.Attempt
	for _, a := range attempts {
		if a.Node == node && (attempt == 0 || a.Attempt == attempt) {
			found = &a
		}
	}
	if found == nil {
		return nil, &delivery.Error{Kind: delivery.KindNotFound, What: fmt.Sprintf("there is no log of %s in build %d", node, number), Why: "it has not run", Next: fmt.Sprintf("See what has:  shunt status %s %d", project, number)}
	}
	ended := found.State != delivery.AttemptRunning
	if err := s.logs.Sync(ctx, found.ID, ended); err != nil && ended { // one that runs is shown as far as it is here
		return nil, err
	}
	f, err := s.logs.Open(found.ID)
	if err != nil {
		return nil, err
	}
	return &logFile{File: f, store: s.store, logs: s.logs, attempt: *found, whole: ended}, nil
}

// logFile is a log that a driver may still append whole lines to: the engine of
// this server, or of another one, from which the object store brings them.
type logFile struct {
	*os.File
	store   *store.Store
	logs    *engine.Logs
	attempt delivery.Attempt
	whole   bool // nothing comes any more
}

// Size implements web.Log.
func (l *logFile) Size() int64 {
	info, err := l.Stat()
	if err != nil {
		return 0
	}
	return info.Size()
}

// Done implements web.Log.
func (l *logFile) Done() bool {
	if l.whole {
		return true
	}
	// A read of one row, and of what is missing here; the interface carries no context.
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	a, err := l.store.Attempt(ctx, l.attempt.ID)
	if err == nil {
		l.attempt = a
	}
	l.whole = l.attempt.State != delivery.AttemptRunning && l.logs.Sync(ctx, l.attempt.ID, true) == nil
	return l.whole
}

// Wait implements web.Log.
func (l *logFile) Wait(ctx context.Context, offset int64) error {
	for l.Size() <= offset && !l.Done() { //nolint:contextcheck // see Done
		if l.attempt.State == delivery.AttemptRunning {
			_ = l.logs.Sync(ctx, l.attempt.ID, false) // what cannot be had now comes later
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
	return nil
}

// Index implements web.Log.
func (l *logFile) Index(ctx context.Context) (*runlog.Index, error) { return l.logs.Index(ctx, l.File) }

// Artifact implements web.Reader.
func (s *Server) Artifact(ctx context.Context, project string, number int64, name string) (api.Artifact, io.ReadSeekCloser, error) {
	b, err := s.store.BuildByNumber(ctx, project, number)
	if err != nil {
		return api.Artifact{}, nil, err
	}
	artifacts, err := s.store.Artifacts(ctx, b.ID)
	if err != nil {
		return api.Artifact{}, nil, err
	}
	for _, a := range artifacts {
		if a.Name != name {
			continue
		}
		if err := s.blobs.Verify(ctx, a.SHA256); err != nil {
			return api.Artifact{}, nil, err
		}
		f, _, err := s.blobs.Open(ctx, a.SHA256)
		return api.Artifact{Name: a.Name, File: a.File, SHA256: a.SHA256, Size: a.Size}, f, err
	}
	return api.Artifact{}, nil, delivery.Errf(delivery.KindNotFound, "there is no artifact "+name, fmt.Sprintf("build %d of %s did not make it", number, project))
}

// Mails implements web.Reader.
func (s *Server) Mails(context.Context) ([]api.Mail, error) {
	if s.cfg.MailDir == "" {
		return nil, delivery.Errf(delivery.KindNotFound, "there is no mailbox", "this server sends its mail")
	}
	stored, err := notify.ReadDir(s.cfg.MailDir)
	out := make([]api.Mail, 0, len(stored))
	for _, m := range stored {
		out = append(out, api.Mail{ID: m.ID, Subject: m.Subject, From: m.From, To: m.To, At: m.Date, Text: m.Text, HTML: m.HTML})
	}
	return out, err
}

// Subscribe implements web.Reader.
func (s *Server) Subscribe(ctx context.Context, after int64) (<-chan api.Event, func(), error) {
	live, cancel := s.store.Subscribe() // first, so that nothing falls between
	var missed []store.Event
	if after > 0 {
		var err error
		if missed, err = s.store.EventsAfter(ctx, after, 1000); err != nil {
			cancel()
			return nil, nil, err
		}
	}
	ctx, stop := context.WithCancel(ctx)
	out := make(chan api.Event)
	go func() {
		defer close(out)
		defer cancel()
		last := after
		send := func(e store.Event) bool {
			if e.ID <= last {
				return true
			}
			last = e.ID
			select {
			case out <- api.Event{ID: e.ID, Project: e.Project, Number: e.Number, Kind: e.Kind}:
				return true
			case <-ctx.Done():
				return false
			}
		}
		for _, e := range missed {
			if !send(e) {
				return
			}
		}
		for {
			select {
			case e, open := <-live:
				if !open || !send(e) {
					return
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	return out, stop, nil
}

// Ready implements web.Reader.
func (s *Server) Ready(ctx context.Context) error {
	if _, err := s.store.Meta(ctx, "server_id"); err != nil {
		return err
	}
	_, err := s.runner.Info(ctx)
	return err
}
