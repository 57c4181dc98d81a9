package engine

import (
	"context"

	"github.com/shuntcd/shunt/internal/delivery"
	"github.com/shuntcd/shunt/internal/flow"
	"github.com/shuntcd/shunt/internal/pipeline"
	"github.com/shuntcd/shunt/internal/store"
)

type mailData struct {
	Project    delivery.Project
	Build      delivery.Build
	Gate       delivery.Gate
	Deployment delivery.Deployment
	Debt       delivery.BackMerge
	Refusal    *flow.Refusal
	Commit     delivery.Commit
	Branch     string
	After      string
	Reason     string
	To         []string
}

func (e *Engine) mailData(ctx context.Context, b delivery.Build) mailData { return mailData{Build: b} }
func (e *Engine) post(ctx context.Context, tx *store.Tx, pl *pipeline.Pipeline, kind string, d mailData) error {
	return nil
}

func (e *Engine) postProject(ctx context.Context, tx *store.Tx, p delivery.Project, kind string, d mailData) error {
	return nil
}
func (d *driver) mailEnd(ctx context.Context, tx *store.Tx) error { return nil }
func mailAddress(s string) []string                              { return nil }
