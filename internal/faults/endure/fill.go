package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/shuntcd/shunt/internal/delivery"
	"github.com/shuntcd/shunt/internal/pipeline"
	"github.com/shuntcd/shunt/internal/store"
)

// fill writes projects with ended builds into a new SQLite file, as rows through
// the store.
func fill(ctx context.Context, file string, projects, builds int) (err error) {
	const text = "version: 1\njobs:\n  build: { steps: [{ run: 'true' }] }\nenvironments:\n  production: { deploy: 'true' }\n"
	pl, err := pipeline.Parse(pipeline.FileName, []byte(text))
	if err != nil {
		return err
	}
	s, err := store.Open(ctx, store.Config{Database: file, Clock: delivery.SystemClock{}, Log: slog.New(slog.DiscardHandler), Fatal: func(err error) { panic(err) }})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	for p := range projects {
		name := fmt.Sprintf("shop-%02d", p)
		err := s.Write(ctx, func(ctx context.Context, tx *store.Tx) error {
			err := tx.InsertProject(ctx, delivery.Project{Name: name, URL: "/nowhere/" + name, Local: true, Branches: pl.Branches, Tags: pl.Tags, NextBuild: 1, WebhookSecret: "s"})
			for range builds {
				if err != nil {
					return err
				}
				err = fillBuild(ctx, tx, name, pl, text)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func fillBuild(ctx context.Context, tx *store.Tx, project string, pl *pipeline.Pipeline, text string) error {
	n, err := tx.TakeNumber(ctx, project)
	if err != nil {
		return err
	}
	b := delivery.Build{
		Project: project, Number: n, Lane: delivery.LaneMain, Ref: "refs/heads/develop", Commit: fmt.Sprintf("%040x", n), Subject: fmt.Sprint("Change ", n), AuthorName: "Ana Ruiz",
		Pipeline: []byte(text), PolicyDigest: pl.Digest(), Status: delivery.BuildRejected, Reason: "rejected by ana: not today", FinishedAt: tx.Now(),
	}
	id, err := tx.InsertBuild(ctx, b, pl.Graph(b.Lane))
	if err != nil {
		return err
	}
	return errors.Join(
		tx.InsertAttempt(ctx, delivery.Attempt{ID: fmt.Sprintf("%s-%d-job-build-1", project, n), BuildID: id, Node: "job/build", Attempt: 1, StartedAt: tx.Now()}),
		tx.Audit(ctx, project, n, "shunt", "build created", b.Ref+" "+b.Commit),
		tx.Audit(ctx, project, n, "ana", "rejected", "not today"),
	)
}
