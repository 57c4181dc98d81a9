package server

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/shuntcd/shunt/internal/api"
	"github.com/shuntcd/shunt/internal/auth"
	"github.com/shuntcd/shunt/internal/delivery"
	"github.com/shuntcd/shunt/internal/engine"
	"github.com/shuntcd/shunt/internal/failpoint"
	"github.com/shuntcd/shunt/internal/flow"
	"github.com/shuntcd/shunt/internal/gitrepo"
	"github.com/shuntcd/shunt/internal/store"
	"github.com/shuntcd/shunt/internal/web"
)

var (
	projectName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)
	secretName  = regexp.MustCompile(`^[A-Z_][A-Z0-9_]{0,127}$`)
)

// AddProject implements web.Writer.
func (s *Server) AddProject(ctx context.Context, who web.Actor, in api.AddProject) (api.AddedProject, error) {
	var out api.AddedProject
	if !projectName.MatchString(in.Name) || slices.Contains(web.ReservedNames(), in.Name) {
		return out, delivery.Errf(delivery.KindInvalid, "cannot add project "+in.Name, "a name has small letters, digits and dashes, at most 63, and is not one of "+strings.Join(web.ReservedNames(), ", "))
	}
	if in.Local {
		abs, err := filepath.Abs(in.URL)
		if err != nil {
			return out, fmt.Errorf("path of the repository: %w", err)
		}
		in.URL = abs
	}
	if err := gitrepo.CheckURL(in.URL, in.Local); err != nil {
		return out, err
	}
	secret := rand.Text() + rand.Text()
	if err := s.engine.AddProject(ctx, engine.NewProject{Name: in.Name, URL: in.URL, Local: in.Local, InProduction: in.InProduction, NextBuild: in.NextBuild, WebhookSecret: secret, By: who.User}); err != nil {
		return out, err
	}
	out.WebhookSecret = secret
	if in.InstallHook {
		hook, err := s.installHook(ctx, in, secret)
		if err != nil {
			return out, err
		}
		out.HookInstalled = hook
	}
	if _, err := s.engine.Sync(ctx, in.Name); err != nil {
		return out, err
	}
	var err error
	out.Project, err = s.Project(ctx, in.Name)
	return out, err
}

// installHook puts a post-receive hook into a local bare repository; with it git
// itself prints the server's answer to a push.
func (s *Server) installHook(ctx context.Context, in api.AddProject, secret string) (string, error) {
	if !in.Local {
		return "", delivery.Errf(delivery.KindInvalid, "cannot install a hook in "+in.URL, "it is not a local repository; set a webhook in the forge instead")
	}
	dir := filepath.Join(s.cfg.DataDir, "hooks")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("keep the hook's secret: %w", err)
	}
	file := filepath.Join(dir, in.Name+".secret")
	if err := keepFile(file, []byte(secret+"\n")); err != nil {
		return "", fmt.Errorf("keep the hook's secret: %w", err)
	}
	script := "#!/bin/sh\n# Tells Shunt of a push and prints its answer. It never fails a push.\nexec " +
		flow.Quote(s.cfg.Exe) + " hook post-receive --url " + flow.Quote(s.url) + " --project " + flow.Quote(in.Name) + " --secret-file " + flow.Quote(file) + "\n"
	repo := s.git.Repo(in.Name, in.URL, true)
	return repo.HookPath(), repo.InstallHook(ctx, script)
}

// Sync implements web.Writer.
func (s *Server) Sync(ctx context.Context, project string) ([]api.Push, error) {
	pushes, err := s.engine.Sync(ctx, project)
	return s.pushes(pushes), err
}

// Hook implements web.Writer. What a webhook says is only a hint: refs are read
// again, and so a replayed, forged or lost delivery makes no difference.
func (s *Server) Hook(ctx context.Context, project string, header http.Header, body []byte, wait bool) ([]api.Push, error) {
	p, err := s.store.Project(ctx, project)
	if err != nil {
		return nil, err
	}
	id, err := auth.VerifyWebhook(p.WebhookSecret, header, body)
	if err != nil {
		return nil, err
	}
	if err := failpoint.Hit("hook", failpoint.BeforeIntent); err != nil {
		return nil, err
	}
	var fresh bool
	if err := s.store.Write(ctx, func(ctx context.Context, tx *store.Tx) (err error) {
		fresh, err = tx.Delivery(ctx, project, id)
		return errors.Join(err, failpoint.Hit("hook", failpoint.BeforeCall))
	}); err != nil {
		return nil, err
	}
	if err := failpoint.Hit("hook", failpoint.AfterRecord); err != nil {
		return nil, err
	}
	if !wait {
		if fresh {
			s.engine.SyncLater(project)
		}
		return nil, nil
	}
	if _, err := s.engine.Sync(ctx, project); err != nil {
		return nil, err
	}
	var hint struct {
		Refs []struct{ New, Ref string } `json:"refs"`
	}
	if err := json.Unmarshal(body, &hint); err != nil {
		return nil, nil //nolint:nilerr // a forge's own body: there is nothing to answer about
	}
	var pushes []store.Push
	for _, ref := range first(hint.Refs, 100) {
		push, err := s.store.PushOf(ctx, project, ref.Ref, ref.New)
		if err == nil {
			pushes = append(pushes, push)
		} else if !delivery.IsKind(err, delivery.KindNotFound) {
			return nil, err
		}
	}
	return s.pushes(pushes), failpoint.Hit("hook", failpoint.BeforeAnswer)
}

// Decide implements web.Writer.
func (s *Server) Decide(ctx context.Context, who web.Actor, project string, number int64, in api.Decide) (api.Gate, error) {
	g, err := s.engine.Decide(ctx, project, number, delivery.Decision{Version: in.Version, Commit: in.Commit, Promote: in.Promote, By: who.User, From: who.From, Reason: strings.TrimSpace(in.Reason), Without: in.Without})
	if err == nil {
		err = failpoint.Hit(map[bool]string{true: "promote", false: "reject"}[in.Promote], failpoint.BeforeAnswer)
	}
	if err != nil {
		return api.Gate{}, err
	}
	b, err := s.store.Build(ctx, g.BuildID)
	return s.gate(b, g), err
}

// after returns a build as it is once an act has succeeded.
func (s *Server) after(ctx context.Context, act, project string, number int64, err error) (api.Build, error) {
	if err == nil {
		err = failpoint.Hit(act, failpoint.BeforeAnswer)
	}
	if err != nil {
		return api.Build{}, err
	}
	b, err := s.store.BuildByNumber(ctx, project, number)
	return s.build(b), err
}

// Cancel implements web.Writer.
func (s *Server) Cancel(ctx context.Context, who web.Actor, project string, number int64, reason string) (api.Build, error) {
	return s.after(ctx, "cancel", project, number, s.engine.Cancel(ctx, project, number, who.User, reason))
}

// Rerun implements web.Writer.
func (s *Server) Rerun(ctx context.Context, who web.Actor, project string, number int64) (api.Build, error) {
	return s.after(ctx, "rerun", project, number, s.engine.Rerun(ctx, project, number, who.User))
}

// Resolve implements web.Writer.
func (s *Server) Resolve(ctx context.Context, who web.Actor, project string, number int64, in api.Resolve) (api.Build, error) {
	return s.after(ctx, "resolve", project, number, s.engine.Resolve(ctx, project, number, in.Action, who.User, in.Reason))
}

// Rollback implements web.Writer.
func (s *Server) Rollback(ctx context.Context, who web.Actor, project string, in api.Rollback) (api.Build, error) {
	b, err := s.engine.Rollback(ctx, project, in.To, who.User, in.Reason)
	return s.after(ctx, "rollback", project, b.Number, err)
}

func (s *Server) projectAfter(ctx context.Context, project string, err error) (api.Project, error) {
	if err != nil {
		return api.Project{}, err
	}
	return s.Project(ctx, project)
}

// Hold implements web.Writer.
func (s *Server) Hold(ctx context.Context, who web.Actor, project, reason string) (api.Project, error) {
	return s.projectAfter(ctx, project, s.engine.Hold(ctx, project, who.User, reason, false))
}

// ReleaseHold implements web.Writer.
func (s *Server) ReleaseHold(ctx context.Context, who web.Actor, project, reason string) (api.Project, error) {
	return s.projectAfter(ctx, project, s.engine.Hold(ctx, project, who.User, reason, true))
}

// PlanFreeze implements web.Writer.
func (s *Server) PlanFreeze(ctx context.Context, who web.Actor, project string, in api.PlanFreeze) (api.Freeze, error) {
	f, err := s.engine.AddFreeze(ctx, delivery.Freeze{Project: project, Begins: in.From, Ends: in.Until, Reason: in.Reason, By: who.User})
	return freeze(f, f.CreatedAt), err // by the time of the transaction, which may be another machine's
}

// EndFreeze implements web.Writer.
func (s *Server) EndFreeze(ctx context.Context, who web.Actor, project string, id int64, reason string) (api.Freeze, error) {
	f, err := s.engine.EndFreeze(ctx, project, id, who.User, reason)
	return freeze(f, f.EndedAt), err
}

// ClearIncident implements web.Writer.
func (s *Server) ClearIncident(ctx context.Context, who web.Actor, project, reason string) (api.Project, error) {
	return s.projectAfter(ctx, project, s.engine.ClearIncident(ctx, project, who.User, reason))
}

// Keep implements web.Writer.
func (s *Server) Keep(ctx context.Context, who web.Actor, project, id string, in api.Keep) (api.Instance, error) {
	var extend time.Duration
	if in.Extend != "" {
		var err error
		if extend, err = time.ParseDuration(in.Extend); err != nil || extend <= 0 || extend > 30*24*time.Hour {
			return api.Instance{}, delivery.Errf(delivery.KindInvalid, "cannot keep "+id, fmt.Sprintf("%q is no duration up to 720h, such as 2h", in.Extend))
		}
	}
	i, err := s.engine.KeepInstance(ctx, project, id, who.User, extend, in.Pin)
	return instance(i), err
}

// Destroy implements web.Writer.
func (s *Server) Destroy(ctx context.Context, who web.Actor, project, id string) (api.Instance, error) {
	i, err := s.engine.DestroyInstance(ctx, project, id, who.User)
	return instance(i), err
}

// SetSecret implements web.Writer.
func (s *Server) SetSecret(ctx context.Context, who web.Actor, project, name, value string) error {
	if !secretName.MatchString(name) {
		return delivery.Errf(delivery.KindInvalid, "cannot set secret "+name, "a name has capital letters, digits and underscores")
	}
	if _, err := s.store.Project(ctx, project); err != nil {
		return err
	}
	sealed, err := s.secrets.seal(value)
	if err != nil {
		return err
	}
	return s.store.Write(ctx, func(ctx context.Context, tx *store.Tx) error {
		if err := tx.SetSecret(ctx, project, name, sealed); err != nil {
			return err
		}
		return tx.Audit(ctx, project, 0, who.User, "secret set", name)
	})
}

// DeleteSecret implements web.Writer.
func (s *Server) DeleteSecret(ctx context.Context, who web.Actor, project, name string) error {
	return s.store.Write(ctx, func(ctx context.Context, tx *store.Tx) error {
		if err := tx.DeleteSecret(ctx, project, name); err != nil {
			return err
		}
		return tx.Audit(ctx, project, 0, who.User, "secret deleted", name)
	})
}
