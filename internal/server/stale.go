package server

import (
	"context"

	"github.com/shuntcd/shunt/internal/api"
	"github.com/shuntcd/shunt/internal/delivery"
	"github.com/shuntcd/shunt/internal/store"
	"github.com/shuntcd/shunt/internal/web"
)

// changesShown is how many rows tell a person what became of the page.
const changesShown = 10

// matters lists the audit actions after which a person who saw a page before
// would choose anew. What is in no list changes no choice: a gate that opens, a
// refused push, a paid back-merge, a test mail.
func matters(k web.Concern) []string {
	deployed := []string{"promote started", "rollback started", "deployment succeeded", "deployment failed", "deployment unknown", "deployment given_up", "promoted", "rollback", "released", "takeover"}
	switch k {
	case web.OfBuild:
		return append(deployed, "cancel", "re-run", "retry", "give-up", "confirm-live", "confirm-not-live", "rejected", "gate expired", "approval void",
			"build succeeded", "build failed", "build rejected", "build expired", "build cancelled", "build superseded")
	case web.OfProject: // and by what production moves, or is about to
		return append(deployed, "hold", "hold released", "freeze planned", "freeze ended", "incident", "incident cleared", "reconciled", "project rebuilt")
	case web.OfEnvironment: // and by what it ends
		return []string{"environment kept", "environment destroy", "environment up", "environment failed", "environment destroying", "environment destroyed", "promoted", "rejected", "gate expired", "cancel"}
	case web.OfSecret:
		return []string{"secret set", "secret deleted"}
	}
	return nil
}

// Seen implements web.Reader. Writers take turns, so a row with a lower number is
// never committed later.
func (s *Server) Seen(ctx context.Context) (int64, error) { return s.store.LastAudit(ctx) }

// Since implements web.Reader.
func (s *Server) Since(ctx context.Context, project string, of web.Subject, seen int64) ([]api.AuditRow, error) {
	last, err := s.store.LastAudit(ctx)
	if err != nil {
		return nil, err
	}
	if last < seen {
		return nil, &delivery.Error{Kind: delivery.KindConflict, What: "nothing was done, because your page is newer than what is known here", Why: "the database was put back to an earlier state", Next: "Look again, then repeat it"}
	}
	number, detail := of.Number, ""
	switch of.Concern {
	case web.OfBuild:
	case web.OfProject:
		number = 0 // also when a build's page asks to roll back to it
	case web.OfEnvironment:
		i, err := s.store.Instance(ctx, of.Name)
		if err != nil {
			return nil, err
		}
		number = i.Number
	case web.OfSecret:
		detail = of.Name
	}
	rows, err := s.store.AuditSince(ctx, project, seen, number, detail, matters(of.Concern), changesShown)
	return auditRows(rows), err
}

func auditRows(rows []store.AuditRow) []api.AuditRow {
	out := make([]api.AuditRow, 0, len(rows))
	for _, r := range rows {
		out = append(out, api.AuditRow{Seq: r.Seq, At: r.At, Project: r.Project, Number: r.Number, Actor: r.Actor, Action: r.Action, Detail: r.Detail, Hash: r.Hash})
	}
	return out
}
