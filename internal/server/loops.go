package server

import (
	"context"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/shuntcd/shunt/internal/delivery"
	"github.com/shuntcd/shunt/internal/failpoint"
	"github.com/shuntcd/shunt/internal/notify"
	"github.com/shuntcd/shunt/internal/runner"
	"github.com/shuntcd/shunt/internal/store"
)

func (s *Server) runnerDir() string { return filepath.Join(s.cfg.DataDir, "runner") }

// ensureRunner finds the runner that outlived an earlier server, or starts one.
func (s *Server) ensureRunner(ctx context.Context) (found bool, err error) {
	_, err = s.runner.Info(ctx)
	if errors.Is(err, runner.ErrGone) {
		_, err = runner.Spawn(ctx, s.cfg.Exe, s.runnerDir(), nil)
		return false, err
	}
	return true, err
}

// verifyMirrors looks whether the mirrors are whole, before anything is built from them.
func (s *Server) verifyMirrors(ctx context.Context) {
	projects, err := s.store.Projects(ctx)
	for _, p := range projects {
		repo := s.git.Repo(p.Name, p.URL, p.Local)
		_, look := repo.Verify(ctx)
		if look == nil { // one that is whole may still be older than what the database knows
			_, look = repo.Fetch(ctx)
		}
		err = errors.Join(err, look)
	}
	if err != nil {
		s.cfg.Log.Warn("cannot verify the mirrors", "error", err)
	}
}

// watchRunner starts a new runner within a second when the one there was died,
// and replaces one of another version as soon as it has nothing to do.
func (s *Server) watchRunner(ctx context.Context) {
	every(ctx, 500*time.Millisecond, func() {
		info, err := s.runner.Info(ctx)
		switch {
		case errors.Is(err, runner.ErrGone):
			s.cfg.Log.Warn("the runner is gone; starting another")
			_, err = runner.Spawn(ctx, s.cfg.Exe, s.runnerDir(), nil)
		case err == nil && info.Version != s.cfg.Version && len(info.Jobs) == 0 && !info.Draining:
			s.cfg.Log.Info("replacing the runner of another version", "its", info.Version, "ours", s.cfg.Version)
			err = syscall.Kill(info.PID, syscall.SIGTERM)
		}
		if err != nil && ctx.Err() == nil {
			s.cfg.Log.Error("cannot look after the runner", "error", err)
		}
	})
}

// every calls f at once and then at an interval, until ctx ends.
func every(ctx context.Context, d time.Duration, f func()) {
	tick := time.NewTicker(d)
	defer tick.Stop()
	for {
		f()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// pollRemotes looks at each remote now and then, so that a lost webhook is found
// within one poll. A remote that does not answer is asked less and less often.
func (s *Server) pollRemotes(ctx context.Context) {
	next := map[string]time.Time{}
	wait := map[string]time.Duration{}
	begun := false
	look := min(time.Second, s.cfg.Poll/10)
	every(ctx, look, func() {
		if !s.leads() {
			return // another server looks at them
		}
		projects, err := s.store.Projects(ctx)
		if err != nil {
			return // the database says so itself
		}
		defer func() { begun = true }()
		for _, p := range projects {
			now := s.clock.Now()
			if _, known := next[p.Name]; !known && begun {
				next[p.Name] = now.Add(s.cfg.Poll) // it was added just now, and looked at then
			}
			if now.Before(next[p.Name]) {
				continue
			}
			if _, err := s.engine.Sync(ctx, p.Name); err != nil && ctx.Err() == nil {
				wait[p.Name] = min(max(2*wait[p.Name], s.cfg.Poll), 10*time.Minute)
				s.cfg.Log.Warn("cannot look at a remote", "project", p.Name, "error", err, "again_in", wait[p.Name])
			} else {
				wait[p.Name] = s.cfg.Poll
			}
			sooner := look + time.Duration(rand.Int64N(int64(wait[p.Name]/10)+1)) //nolint:gosec // spreads load, keeps no secret
			next[p.Name] = now.Add(wait[p.Name] - sooner)
		}
	})
}

// sendMails empties the outbox. A mail that the server does not take now is
// tried again for three days; the pipeline never waits for it.
func (s *Server) sendMails(ctx context.Context) {
	sender := s.sender()
	if sender == nil {
		return
	}
	events, cancel := s.store.Subscribe()
	defer func() { cancel() }()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		var due []store.Mail
		var err error
		if s.leads() {
			due, err = s.store.DueMails(ctx, s.clock.Now(), 50)
		}
		if err != nil && ctx.Err() == nil {
			s.cfg.Log.Error("cannot read the outbox", "error", err)
		}
		for _, m := range due {
			if s.waits.Load() {
				break
			}
			s.sendMail(ctx, sender, m)
		}
		for waiting := true; waiting; {
			select {
			case <-ctx.Done():
				return
			case e, open := <-events:
				if !open {
					events, cancel = s.store.Subscribe()
				}
				waiting = open && e.Kind != "mail"
			case <-tick.C:
				waiting = false
			}
		}
	}
}

func (s *Server) sender() notify.Sender {
	switch {
	case s.cfg.MailDir != "":
		return notify.Dir{Path: s.cfg.MailDir}
	case s.cfg.SMTP != nil:
		return *s.cfg.SMTP
	}
	return nil
}

func (s *Server) sendMail(ctx context.Context, sender notify.Sender, m store.Mail) {
	var msg notify.Message
	err := json.Unmarshal([]byte(m.Message), &msg)
	if failpoint.Hit("mail", failpoint.BeforeCall) != nil {
		return
	}
	if err == nil {
		err = sender.Send(ctx, msg)
	}
	if ctx.Err() != nil || failpoint.Hit("mail", failpoint.BeforeRecord) != nil {
		return // it is sent again: at least once
	}
	save := s.store.Write(ctx, func(ctx context.Context, tx *store.Tx) error {
		if err == nil {
			tx.Event(m.Project, 0, "mail")
			return tx.MailSent(ctx, m.ID)
		}
		next := tx.Now().Add(min(time.Hour, time.Duration(1<<min(m.Tries, 12))*5*time.Second))
		if notify.IsPermanent(err) || tx.Now().Sub(m.At) > 72*time.Hour {
			next = time.Time{}
		}
		rest := toJSON(notify.Rest(msg, err)) // those whom the relay took are not written to again
		return tx.MailFailed(ctx, m.ID, rest, err.Error(), next)
	})
	save = errors.Join(save, failpoint.Hit("mail", failpoint.AfterRecord))
	if err != nil || save != nil {
		s.cfg.Log.Warn("cannot send a mail", "kind", m.Kind, "error", errors.Join(err, save))
	}
}

func toJSON(m notify.Message) string {
	b, err := json.Marshal(m)
	if err != nil {
		panic("server: a mail does not marshal: " + err.Error())
	}
	return string(b)
}

// keepHouse removes each hour work directories that nobody owns any more, and
// does once a day, the first time after an hour, what is due daily.
func (s *Server) keepHouse(ctx context.Context) {
	hours := 0
	every(ctx, time.Hour, func() {
		s.sweepWork(ctx)
		if hours%24 == 1 { // a server that begins has better things to do
			s.daily(ctx)
		}
		hours++
	})
}

// daily repacks mirrors, removes what is old (see Retention) and forgets old
// webhook ids.
func (s *Server) daily(ctx context.Context) {
	err := s.store.Write(ctx, func(ctx context.Context, tx *store.Tx) error {
		return tx.ForgetDeliveries(ctx, tx.Now().Add(-7*24*time.Hour))
	})
	projects, list := s.store.Projects(ctx)
	err = errors.Join(err, list)
	for _, p := range projects {
		err = errors.Join(err, s.git.Repo(p.Name, p.URL, p.Local).Maintain(ctx))
	}
	if !s.waits.Load() {
		swept, sweep := s.cfg.Retention.sweep(ctx, s.store, s.kept, false)
		if err = errors.Join(err, sweep); swept.Blobs+swept.Logs > 0 {
			s.cfg.Log.Info("removed what is old", "artifacts", swept.Blobs, "logs", swept.Logs, "bytes", swept.Bytes)
		}
	}
	if err != nil && ctx.Err() == nil {
		s.cfg.Log.Warn("cannot keep house", "error", err)
	}
}

// sweepWork releases the jobs and removes the work directories of attempts that
// have ended: their server died between saving the result and removing them, or
// the disk failed or forgot it.
func (s *Server) sweepWork(ctx context.Context) {
	dir := filepath.Join(s.cfg.DataDir, "work")
	names := map[string]bool{}
	if entries, err := os.ReadDir(dir); err == nil {
		for _, entry := range entries {
			names[entry.Name()] = true
		}
	}
	if info, err := s.runner.Info(ctx); err == nil {
		for _, id := range info.Jobs {
			names[id] = true
		}
	}
	for name := range names {
		id, _, _ := strings.Cut(name, "-verify-") // looking a deployment up has no attempt of its own
		a, err := s.store.Attempt(ctx, id)
		ended := err == nil && a.State != delivery.AttemptRunning
		if !ended {
			continue
		}
		if err := s.runner.Release(ctx, name); err != nil && !errors.Is(err, runner.ErrUnknownJob) {
			continue
		}
		if err := runner.RemoveAll(filepath.Join(dir, name)); err != nil {
			s.cfg.Log.Warn("cannot remove a work directory", "dir", name, "error", err)
		}
	}
}
