package server

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"html"
	"net/url"
	"slices"

	"github.com/shuntcd/shunt/internal/api"
	"github.com/shuntcd/shunt/internal/delivery"
	"github.com/shuntcd/shunt/internal/notify"
	"github.com/shuntcd/shunt/internal/pipeline"
	"github.com/shuntcd/shunt/internal/store"
	"github.com/shuntcd/shunt/internal/web"
)

// TestMail implements web.Writer. The mail takes the way of every other one:
// through the outbox, with its retries.
func (s *Server) TestMail(ctx context.Context, who web.Actor, project string) (api.TestMail, error) {
	v := api.TestMail{To: []string{}}
	text, err := s.store.ProjectPipeline(ctx, project)
	if err != nil {
		return v, err
	}
	var pl pipeline.Pipeline
	if text != "" {
		if err := json.Unmarshal([]byte(text), &pl); err != nil {
			return v, fmt.Errorf("stored policy: %w", err)
		}
	}
	for _, n := range pl.Notify {
		v.To = append(v.To, n.Email...)
	}
	slices.Sort(v.To)
	if v.To = slices.Compact(v.To); len(v.To) == 0 {
		return v, &delivery.Error{Kind: delivery.KindRefused, What: "no mail was sent", Why: "the pipeline file of the integration branch tells nobody", Next: "Add addresses under notify: in " + pipeline.FileName}
	}
	u, err := url.Parse(s.url)
	if err != nil {
		return v, fmt.Errorf("public URL: %w", err)
	}
	said := who.User + " asked Shunt for this mail, to see whether its mails about " + project + " arrive. They do. Nothing else has happened."
	page := s.url + "/" + project
	msg, err := json.Marshal(notify.Message{
		Key: "test-" + rand.Text(), Host: u.Hostname(), Date: s.clock.Now(), From: s.cfg.MailFrom, To: v.To, Subject: "[" + project + "] A test of Shunt's mail",
		Text: said + "\n\n" + page + "\n", HTML: "<p>" + html.EscapeString(said) + `</p><p><a href="` + html.EscapeString(page) + `">` + html.EscapeString(page) + "</a></p>", List: project + "." + u.Hostname(),
	})
	if err != nil {
		return v, fmt.Errorf("write mail: %w", err)
	}
	return v, s.store.Write(ctx, func(ctx context.Context, tx *store.Tx) error {
		if err := tx.Post(ctx, project, "test", string(msg)); err != nil {
			return err
		}
		return tx.Audit(ctx, project, 0, who.User, "test mail", fmt.Sprintf("to %d addresses", len(v.To)))
	})
}
