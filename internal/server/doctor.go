package server

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shuntcd/shunt/internal/api"
	"github.com/shuntcd/shunt/internal/gitrepo"
)

// Doctor implements web.Reader: what must be right before a hotfix is needed.
func (s *Server) Doctor(ctx context.Context) ([]api.Check, error) {
	return []api.Check{
		check("git", s.checkGit(ctx)), check("disk", s.checkDisk()), check("clock", s.checkClock()), check("mail", s.checkMail(ctx)),
		check("public URL", s.checkURL(ctx)), check("runner", s.checkRunner(ctx)), check("remotes", s.checkRemotes(ctx)),
	}, nil
}

// finding is what a check found; a non-empty bad fails it, a non-empty warn warns.
type finding struct{ good, warn, bad string }

func check(name string, f finding) api.Check {
	switch {
	case f.bad != "":
		return api.Check{Name: name, State: "fail", Words: f.bad}
	case f.warn != "":
		return api.Check{Name: name, State: "warn", Words: f.warn}
	}
	return api.Check{Name: name, State: "ok", Words: f.good}
}

func (s *Server) checkGit(ctx context.Context) finding {
	v, err := gitrepo.Version(ctx, "git")
	if err == nil {
		err = gitrepo.CheckVersion(v)
	}
	if err != nil {
		return finding{bad: err.Error()}
	}
	return finding{good: "git " + v}
}

func (s *Server) checkDisk() finding {
	var st unix.Statfs_t
	if err := unix.Statfs(s.cfg.DataDir, &st); err != nil {
		return finding{bad: err.Error()}
	}
	free := st.Bavail * uint64(st.Bsize)                                                                         //nolint:gosec // a block size is positive
	words := fmt.Sprintf("%d GiB free of %d GiB at %s", free>>30, st.Blocks*uint64(st.Bsize)>>30, s.cfg.DataDir) //nolint:gosec // as above
	switch {
	case free < 1<<30:
		return finding{bad: words + ": make room before builds fail"}
	case free < 10<<30:
		return finding{warn: words}
	}
	return finding{good: words}
}

// checkClock compares the clock with the disk's, and with when things were built.
func (s *Server) checkClock() finding {
	file := filepath.Join(s.cfg.DataDir, "clock")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		return finding{bad: err.Error()}
	}
	now := s.clock.Now()
	if err := os.Chtimes(file, time.Time{}, now); err != nil {
		return finding{bad: err.Error()}
	}
	if now.Year() < 2026 {
		return finding{bad: "it says " + now.Format(time.RFC1123) + ", before this program was written"}
	}
	return finding{good: now.Format(time.RFC1123)}
}

func (s *Server) checkMail(ctx context.Context) finding {
	switch {
	case s.cfg.MailDir != "":
		return finding{good: "mails are kept in " + s.cfg.MailDir}
	case s.cfg.SMTP == nil:
		return finding{warn: "no mail server is configured: nobody is told of a waiting hotfix  (--smtp-host)"}
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if err := s.cfg.SMTP.Check(ctx); err != nil {
		return finding{bad: err.Error()}
	}
	return finding{good: fmt.Sprintf("%s:%d takes mail", s.cfg.SMTP.Host, s.cfg.SMTP.Port)}
}

func (s *Server) checkURL(ctx context.Context) finding {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+"/livez", nil)
	if err != nil {
		return finding{bad: err.Error()}
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return finding{bad: s.url + " does not answer here, and links in mails point there"}
	}
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<16))
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return finding{bad: fmt.Sprintf("%s answers %s: is it this server?", s.url, resp.Status)}
	}
	if strings.HasPrefix(s.url, "http://") && !strings.Contains(s.url, "localhost") && !strings.Contains(s.url, "127.0.0.1") {
		return finding{warn: s.url + " answers, but without TLS: sessions can be read on the way"}
	}
	return finding{good: s.url}
}

func (s *Server) checkRunner(ctx context.Context) finding {
	info, err := s.runner.Info(ctx)
	if err != nil {
		return finding{bad: err.Error()}
	}
	return finding{good: fmt.Sprintf("version %s, process %d, %d jobs", info.Version, info.PID, len(info.Jobs))}
}

func (s *Server) checkRemotes(ctx context.Context) finding {
	projects, err := s.store.Projects(ctx)
	if err != nil {
		return finding{bad: err.Error()}
	}
	for _, p := range projects {
		f, err := s.store.FetchState(ctx, p.Name)
		if err == nil && f.Error != "" {
			return finding{bad: p.Name + ": " + f.Error}
		}
	}
	return finding{good: fmt.Sprintf("%d projects, all read", len(projects))}
}
