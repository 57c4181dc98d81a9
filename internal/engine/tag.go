package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/shuntcd/shunt/internal/artifact"
	"github.com/shuntcd/shunt/internal/delivery"
	"github.com/shuntcd/shunt/internal/gitrepo"
	"github.com/shuntcd/shunt/internal/pipeline"
	"github.com/shuntcd/shunt/internal/store"
)

// tagger is who makes tags and merge commits; it is part of their object ids.
const (
	taggerName  = "Shunt"
	taggerEmail = "shunt@localhost"
)

// message is a tag's message with trailers that a machine can read. The date is
// that of the build, so that the same tag is the same object whenever it is made.
func (e *Engine) message(b delivery.Build, subject string, artifacts []delivery.Artifact, more ...[2]string) gitrepo.Message {
	trailers := [][2]string{
		{"Shunt-Project", b.Project},
		{"Shunt-Build", fmt.Sprint(b.Number)},
		{"Shunt-Lane", string(b.Lane)},
		{"Shunt-Branch", b.Branch()},
		{"Shunt-Commit", b.Commit},
		{"Shunt-Policy", b.PolicyDigest},
		{"Shunt-Server", e.ServerID},
	}
	for _, a := range artifacts {
		trailers = append(trailers, [2]string{"Shunt-Artifact", fmt.Sprintf("%s sha256:%s %d %s", a.Name, a.SHA256, a.Size, a.File)})
	}
	return gitrepo.Message{Subject: subject, Trailers: append(trailers, more...), Name: taggerName, Email: taggerEmail, At: b.CreatedAt.Truncate(time.Second)}
}

// tag pushes the annotated tag build/N.
func (p *performer) tag(ctx context.Context) result {
	switch p.node.Target {
	case "":
	case "takeover":
		return p.takeoverTag(ctx)
	default:
		return p.rollbackTag(ctx)
	}
	artifacts, err := p.Store.Artifacts(ctx, p.build.ID)
	if err != nil {
		return result{err: err}
	}
	var jobs []string
	nodes, err := p.Store.Nodes(ctx, p.build.ID)
	if err != nil {
		return result{err: err}
	}
	for _, n := range nodes {
		if n.Kind == delivery.NodeJob && n.State == delivery.NodeSucceeded && n.FinishedAt.Before(p.node.StartedAt.Add(time.Microsecond)) {
			jobs = append(jobs, n.Target)
		}
	}
	name := delivery.ExpandTag(p.pipeline.Tags.Build, p.build.Number)
	msg := p.message(p.build, fmt.Sprintf("Build %d of %s", p.build.Number, p.build.Project), artifacts, [2]string{"Shunt-Jobs", strings.Join(jobs, " ")})
	object, err := p.pushTag(ctx, name, msg)
	if err != nil {
		return p.ended(ctx, err)
	}
	r := succeeded()
	r.save = func(ctx context.Context, tx *store.Tx) error {
		if err := tx.SetTagObject(ctx, p.build.ID, object); err != nil {
			return err
		}
		return tx.SetRef(ctx, p.build.Project, "refs/tags/"+name, object)
	}
	return r
}

// pushTag makes an annotated tag on the build's commit and pushes it, once.
func (p *performer) pushTag(ctx context.Context, name string, msg gitrepo.Message) (object string, err error) {
	repo := p.repo(p.project)
	if object, err = repo.MakeTag(ctx, name, p.build.Commit, msg); err != nil {
		return "", fmt.Errorf("make tag %s: %w", name, err)
	}
	ref := "refs/tags/" + name
	return p.perform(ctx, effect{
		key: p.effectKey() + "/" + name, kind: "tag", params: text(map[string]string{"tag": name, "object": object, "commit": p.build.Commit}),
		call: func(ctx context.Context) (string, error) {
			err := pushOutcome(repo.Push(ctx, []gitrepo.RefUpdate{{Ref: ref, New: object}}))
			if o, ok := errors.AsType[*outcome](err); ok { // perhaps because somebody made the same tag
				if found, done, err := p.tagOnRemote(ctx, ref, object); err != nil || done {
					return found, err
				}
				return "", o
			}
			return object, err
		},
		probe: func(ctx context.Context) (string, bool, error) { return p.tagOnRemote(ctx, ref, object) },
	})
}

// tagOnRemote looks a tag up: the same object is done; another object at the same
// commit is adopted; another commit is an incident.
func (p *performer) tagOnRemote(ctx context.Context, ref, object string) (string, bool, error) {
	refs, err := p.repo(p.project).RemoteRefs(ctx, ref)
	if err != nil {
		return "", false, err
	}
	got, ok := refs[ref]
	switch {
	case !ok:
		return "", false, nil
	case got == object, refs[ref+"^{}"] == p.build.Commit, got == p.build.Commit:
		return got, true, nil
	}
	return "", false, &outcome{incident: true, words: fmt.Sprintf("the tag %s is already on the remote at another commit; Shunt moves no tag", strings.TrimPrefix(ref, "refs/tags/"))}
}

// pushOutcome turns a push's error into an effect's: a rejection is known not to
// have happened.
func pushOutcome(err error) error {
	push, ok := errors.AsType[*gitrepo.PushError](err)
	if !ok || push.Outcome != gitrepo.PushRejected {
		return err
	}
	return &outcome{words: "the remote refused the push: " + push.Error(), err: err}
}

// publish pushes one artifact to its repository.
func (p *performer) publish(ctx context.Context) result {
	pub, item, err := p.publisher(ctx)
	if err != nil {
		return p.ended(ctx, err)
	}
	receipt := func(r artifact.Receipt, err error) (string, error) {
		if err == nil {
			return r.URL, nil
		}
		return "", publishOutcome(err)
	}
	_, err = p.perform(ctx, effect{
		key: p.effectKey(), kind: "publish", params: text(map[string]string{"artifact": item.Name, "sha256": item.SHA256}),
		call: func(ctx context.Context) (string, error) { return receipt(pub.Publish(ctx, item)) },
		probe: func(ctx context.Context) (string, bool, error) {
			r, found, err := pub.Probe(ctx, item)
			answer, err := receipt(r, err)
			return answer, found, err
		},
	})
	if err != nil {
		return p.ended(ctx, err)
	}
	return succeeded()
}

func publishOutcome(err error) error {
	if e, ok := errors.AsType[*artifact.PublishError](err); ok && e.Outcome == artifact.OutcomeRefused && !e.Temporary {
		return &outcome{words: e.Error(), err: err}
	}
	return err
}

func (p *performer) publisher(ctx context.Context) (artifact.Publisher, artifact.Item, error) {
	d := p.pipeline.Publication(p.node.Name)
	if d == nil {
		return nil, artifact.Item{}, &outcome{words: "the pipeline file has no " + p.node.Name}
	}
	artifacts, err := p.Store.Artifacts(ctx, p.build.ID)
	if err != nil {
		return nil, artifact.Item{}, err
	}
	for _, a := range artifacts {
		if a.Name != d.Artifact {
			continue
		}
		pub, err := p.target(ctx, *d, a)
		open := func() (io.ReadCloser, error) {
			f, _, err := p.Blobs.Open(ctx, a.SHA256)
			return f, err
		}
		return pub, artifact.Item{Name: a.Name, File: a.File, SHA256: a.SHA256, Size: a.Size, Open: open}, err
	}
	return nil, artifact.Item{}, &outcome{words: "no job of this build made artifact " + d.Artifact}
}

// target makes the publisher of a destination, with its names expanded.
func (p *performer) target(ctx context.Context, d pipeline.Publish, a delivery.Artifact) (artifact.Publisher, error) {
	vars := map[string]string{"SHUNT_PROJECT": p.build.Project, "SHUNT_BUILD": fmt.Sprint(p.build.Number), "SHUNT_COMMIT": p.build.Commit, "SHUNT_LANE": string(p.build.Lane), "SHUNT_FILE": a.File}
	t := artifact.Target{Kind: string(d.Kind), Repository: d.Repository, Format: d.Format}
	var err error
	for _, f := range []struct {
		to   *string
		from string
	}{{&t.URL, d.URL}, {&t.Coordinates, d.Coordinates}, {&t.Directory, d.Directory}} {
		if *f.to, err = artifact.Expand(f.from, vars); err != nil {
			return nil, &outcome{words: err.Error(), err: err}
		}
	}
	if d.Kind == pipeline.PublishFiles {
		t.Directory = fmt.Sprintf("%s/%d", p.build.Project, p.build.Number)
	}
	for i, to := range []*string{&t.User, &t.Password} {
		if i >= len(d.Secrets) {
			break
		}
		sealed, err := p.Store.Secret(ctx, p.build.Project, d.Secrets[i])
		if delivery.IsKind(err, delivery.KindNotFound) {
			return nil, &outcome{words: "secret " + d.Secrets[i] + " is not set; set it:  shunt secret set " + p.build.Project + " " + d.Secrets[i], err: err}
		}
		if err != nil {
			return nil, err
		}
		if *to, err = p.Open(sealed); err != nil {
			return nil, fmt.Errorf("open secret: %w", err)
		}
	}
	pub, err := artifact.NewPublisher(t, &http.Client{}, p.Files)
	if err != nil {
		return nil, &outcome{words: err.Error(), err: err}
	}
	return pub, nil
}
