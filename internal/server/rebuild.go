package server

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/shuntcd/shunt/internal/delivery"
	"github.com/shuntcd/shunt/internal/engine"
	"github.com/shuntcd/shunt/internal/gitrepo"
	"github.com/shuntcd/shunt/internal/store"
	"github.com/shuntcd/shunt/internal/web"
)

// Rebuild says which project to read back from git, and into which data directory.
type Rebuild struct {
	Data     string // made when missing; its server must not run
	Database string // a postgres:// URL; empty: shunt.db in Data
	Project  string
	URL      string
	Local    bool // URL is a path
	By       string
}

// Rebuilt is what came back.
type Rebuilt struct {
	Builds        int
	Production    int64 // build in production; 0: none
	NextBuild     int64
	WebhookSecret string // a new one: the old one was in the database
	Strange       []string
}

// Make reads a project back from its remote's annotated tags.
func (r Rebuild) Make(ctx context.Context, log *slog.Logger) (out Rebuilt, err error) {
	if !projectName.MatchString(r.Project) || slices.Contains(web.ReservedNames(), r.Project) {
		return out, delivery.Errf(delivery.KindInvalid, "cannot rebuild project "+r.Project, "a name has small letters, digits and dashes, at most 63, and is not one of "+strings.Join(web.ReservedNames(), ", "))
	}
	if r.Local {
		if r.URL, err = filepath.Abs(r.URL); err != nil {
			return out, fmt.Errorf("path of the repository: %w", err)
		}
	}
	if err := gitrepo.CheckURL(r.URL, r.Local); err != nil {
		return out, err
	}
	if err := os.MkdirAll(r.Data, 0o750); err != nil {
		return out, fmt.Errorf("make data directory: %w", err)
	}
	unlock, err := lockDir(r.Data)
	if err != nil {
		return out, err
	}
	defer unlock()
	s, err := open(ctx, Config{DataDir: r.Data, Database: r.Database, Log: log})
	if err != nil {
		return out, err
	}
	defer func() { err = errors.Join(err, s.store.Close()) }()
	e := engine.New(engine.Config{Store: s.store, Git: s.git, Blobs: s.blobs, Files: s.files, Logs: s.logs, Dir: s.cfg.DataDir, Clock: s.clock, Log: log})
	defer e.Stop()
	out.WebhookSecret = rand.Text() + rand.Text()
	in := engine.NewProject{Name: r.Project, URL: r.URL, Local: r.Local, WebhookSecret: out.WebhookSecret, By: cmp.Or(r.By, Operator)}
	plan, err := e.Rebuild(ctx, in, func(ctx context.Context, tx *store.Tx, plan *engine.Plan) error {
		id, err := tx.Meta(ctx, "server_id")
		if err != nil || id != "" || !serverID.MatchString(plan.Server()) {
			return err
		}
		return tx.SetMeta(ctx, "server_id", plan.Server()) // tags name it: it goes on as the one that made them
	})
	if err != nil {
		return out, err
	}
	p, err := s.store.Project(ctx, r.Project)
	out.Builds, out.Production, out.NextBuild, out.Strange = plan.Builds(), p.ProductionBuild, p.NextBuild, plan.Strange()
	return out, err
}

var serverID = regexp.MustCompile(`^[0-9a-f]{16}$`)
