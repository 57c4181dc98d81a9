package web

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/shuntcd/shunt/internal/api"
	"github.com/shuntcd/shunt/internal/delivery"
)

// maxReason bounds a reason, in characters; it is the limit of api.Because.
const maxReason = 2000

// formRoutes are what people do on pages: plain POSTs that answer 303 to the
// page they belong to, so that they work without a script and a reload repeats
// nothing.
func (s *server) formRoutes() {
	s.mux.HandleFunc("POST /logout", s.handle(s.logout))
	s.mux.HandleFunc("POST /a/{id}", s.handle(s.decide))
	in := func(pattern string, f func(r *http.Request, who Actor, project string) error) {
		s.inner.HandleFunc("POST /{project}/"+pattern, s.handle(func(w http.ResponseWriter, r *http.Request) error {
			if err := s.parseForm(w, r); err != nil {
				return err
			}
			if err := f(r, s.actor(r.Context()), r.PathValue("project")); err != nil {
				return err
			}
			http.Redirect(w, r, parentPage(r.URL.EscapedPath()), http.StatusSeeOther) //nolint:gosec // a path below ours: the router has matched it
			return nil
		}))
	}
	// What is done because of what a page shows is refused when that has changed.
	act := func(pattern string, c Concern, f func(r *http.Request, who Actor, project string) error) {
		in(pattern, func(r *http.Request, who Actor, project string) error {
			if err := s.fresh(r, project, c); err != nil {
				return err
			}
			return f(r, who, project)
		})
	}
	b := s.Backend
	// A test mail and a look at the remote, like signing in and out, do the same
	// whatever the page has shown.
	s.inner.HandleFunc("POST /{project}/settings/test-mail", s.handle(func(w http.ResponseWriter, r *http.Request) error {
		p := r.PathValue("project")
		sent, err := b.TestMail(r.Context(), s.actor(r.Context()), p)
		if err != nil {
			return err //nolint:wrapcheck // explained by fail
		}
		http.Redirect(w, r, to(p, "settings")+"?mailed="+strconv.Itoa(len(sent.To))+"#mail", http.StatusSeeOther)
		return nil
	}))
	in("sync", func(r *http.Request, _ Actor, p string) error { _, err := b.Sync(r.Context(), p); return err })
	act("hold", OfProject, because(func(r *http.Request, who Actor, p, why string) error {
		_, err := b.Hold(r.Context(), who, p, why)
		return err
	}))
	act("release-hold", OfProject, because(func(r *http.Request, who Actor, p, why string) error {
		_, err := b.ReleaseHold(r.Context(), who, p, why)
		return err
	}))
	act("timeline/freezes", OfProject, because(s.planFreeze))
	act("timeline/freezes/{id}/end", OfProject, because(func(r *http.Request, who Actor, p, why string) error {
		id, err := strconv.ParseInt(r.PathValue("id"), 10, 64)
		if err != nil {
			return notFound("no page " + r.URL.Path)
		}
		_, err = b.EndFreeze(r.Context(), who, p, id, why)
		return err
	}))
	act("clear-incident", OfProject, because(func(r *http.Request, who Actor, p, why string) error {
		_, err := b.ClearIncident(r.Context(), who, p, why)
		return err
	}))
	act("rollback", OfProject, because(func(r *http.Request, who Actor, p, why string) error {
		_, err := b.Rollback(r.Context(), who, p, api.Rollback{Reason: why})
		return err
	}))
	act("{number}/rollback", OfProject, because(func(r *http.Request, who Actor, p, why string) error {
		n, err := numberOf(r)
		if err != nil {
			return err
		}
		_, err = b.Rollback(r.Context(), who, p, api.Rollback{To: n, Reason: why})
		return err
	}))
	act("{number}/cancel", OfBuild, because(func(r *http.Request, who Actor, p, why string) error {
		n, err := numberOf(r)
		if err != nil {
			return err
		}
		_, err = b.Cancel(r.Context(), who, p, n, why)
		return err
	}))
	act("{number}/rerun", OfBuild, func(r *http.Request, who Actor, p string) error {
		n, err := numberOf(r)
		if err != nil {
			return err
		}
		_, err = b.Rerun(r.Context(), who, p, n)
		return err
	})
	act("{number}/resolve", OfBuild, because(func(r *http.Request, who Actor, p, why string) error {
		n, err := numberOf(r)
		if err != nil {
			return err
		}
		_, err = b.Resolve(r.Context(), who, p, n, api.Resolve{Action: r.PostForm.Get("action"), Reason: why})
		return err
	}))
	act("environments/{id}/keep", OfEnvironment, s.keep)
	act("environments/{id}/destroy", OfEnvironment, func(r *http.Request, who Actor, p string) error {
		_, err := b.Destroy(r.Context(), who, p, r.PathValue("id"))
		return err
	})
	act("settings/secrets", OfSecret, func(r *http.Request, who Actor, p string) error {
		name, value := strings.TrimSpace(r.PostForm.Get("name")), r.PostForm.Get("value")
		if name == "" || value == "" {
			return invalid("the secret is not stored", "it needs a name and a value")
		}
		// Browsers send the lines of a text area with CRLF; keys must not have it.
		return b.SetSecret(r.Context(), who, p, name, strings.ReplaceAll(value, "\r\n", "\n"))
	})
	act("settings/delete-secret", OfSecret, func(r *http.Request, who Actor, p string) error {
		return b.DeleteSecret(r.Context(), who, p, r.PostForm.Get("name"))
	})
}

func (s *server) parseForm(w http.ResponseWriter, r *http.Request) error {
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	if err := r.ParseForm(); err != nil {
		return &delivery.Error{Kind: delivery.KindInvalid, What: "the form cannot be read", Why: "it is broken or too large", Err: err}
	}
	return nil
}

// fresh refuses a form of a page that has grown old: something has happened since
// after which its sender might choose anew. It is asked right before the act. What
// happens in the milliseconds between meets the act's own rules, which are asked in
// its transaction; where it has none (a hold, a secret) the later one stands.
func (s *server) fresh(r *http.Request, project string, c Concern) error {
	seen, err := strconv.ParseInt(r.PostForm.Get("seen"), 10, 64)
	if err != nil || seen < 0 {
		return &delivery.Error{Kind: delivery.KindInvalid, What: "nothing was done", Why: "the form does not say what you saw", Next: "Load the page again"}
	}
	of := Subject{Concern: c, Name: r.PathValue("id")}
	if c == OfSecret {
		of.Name = strings.TrimSpace(r.PostForm.Get("name"))
	}
	of.Number, _ = strconv.ParseInt(r.PathValue("number"), 10, 64) // not a number: the act says so
	rows, err := s.Backend.Since(r.Context(), project, of, seen)
	if err != nil || len(rows) == 0 {
		return err //nolint:wrapcheck // explained by fail
	}
	why := []string{"Since you opened it:"}
	for _, a := range rows {
		line := a.Actor + ": " + a.Action
		if a.Number > 0 {
			line += " (build " + num(a.Number) + ")"
		}
		line += ", " + a.At.UTC().Format(minute)
		if a.Detail != "" {
			line += ": " + a.Detail
		}
		why = append(why, line)
	}
	return &delivery.Error{Kind: delivery.KindConflict, What: "nothing was done, because the page was old", Why: strings.Join(why, "\n"), Next: "Look again, then repeat it"}
}

func invalid(what, why string) *delivery.Error {
	return &delivery.Error{Kind: delivery.KindInvalid, What: what, Why: why, Next: "Go back and fill it in"}
}

// reasonOf reads a form's reason; it may be empty.
func reasonOf(r *http.Request) (string, error) {
	why := strings.TrimSpace(r.PostForm.Get("reason"))
	if utf8.RuneCountInString(why) > maxReason {
		return "", invalid("the reason is too long", fmt.Sprintf("at most %d characters fit", maxReason))
	}
	return why, nil
}

// because is a form that needs a reason.
func because(f func(r *http.Request, who Actor, project, why string) error) func(*http.Request, Actor, string) error {
	return func(r *http.Request, who Actor, project string) error {
		why, err := reasonOf(r)
		if err != nil {
			return err
		}
		if why == "" {
			return invalid("nothing was done", "it needs a reason, which others will read")
		}
		return f(r, who, project, why)
	}
}

func (s *server) planFreeze(r *http.Request, who Actor, project, why string) error {
	in := api.PlanFreeze{Reason: why}
	for name, t := range map[string]*time.Time{"from": &in.From, "until": &in.Until} {
		text := strings.TrimSpace(r.PostForm.Get(name))
		if text == "" && name == "from" {
			continue // now
		}
		var err error
		if *t, err = time.Parse(utcForm, text); err != nil {
			return invalid("the freeze is not planned", fmt.Sprintf("%.40q is no date and time in UTC, such as %s", text, utcText(s.Clock.Now())))
		}
	}
	_, err := s.Backend.PlanFreeze(r.Context(), who, project, in)
	return err //nolint:wrapcheck // explained by fail
}

func (s *server) keep(r *http.Request, who Actor, project string) error {
	var in api.Keep
	switch r.PostForm.Get("pin") {
	case "true":
		in.Pin = new(true)
	case "false":
		in.Pin = new(false)
	default:
		in.Extend = r.PostForm.Get("extend")
	}
	_, err := s.Backend.Keep(r.Context(), who, project, r.PathValue("id"), in)
	return err //nolint:wrapcheck // explained by fail
}

// decide is the click on a gate. The form carries what the person saw, the
// version and the commit; when the world has moved on, the same page is shown
// again with 409 and says what became of it.
func (s *server) decide(w http.ResponseWriter, r *http.Request) error {
	if err := s.parseForm(w, r); err != nil {
		return err
	}
	ctx, f := r.Context(), r.PostForm
	g, err := s.Backend.Gate(ctx, r.PathValue("id"))
	if err != nil {
		return err //nolint:wrapcheck // explained by fail
	}
	in := api.Decide{Commit: f.Get("commit"), Promote: f.Get("decision") == "promote"}
	if !in.Promote && f.Get("decision") != "reject" {
		return invalid("nothing was decided", "the form does not say promote or reject")
	}
	if in.Reason, err = reasonOf(r); err != nil {
		return err
	}
	if in.Version, err = strconv.ParseInt(f.Get("version"), 10, 64); err != nil || in.Version < 1 || in.Commit == "" {
		return invalid("nothing was decided", "the form does not say what you saw")
	}
	if f.Get("without") != "" {
		if in.Without, err = strconv.ParseInt(f.Get("without"), 10, 64); err != nil {
			return invalid("nothing was decided", "the build to leave out is not a number")
		}
	}
	if in.Reason == "" && (!in.Promote || in.Without > 0) {
		return invalid("nothing was decided", "it needs a reason, which others will read")
	}
	_, err = s.Backend.Decide(ctx, s.actor(ctx), g.Project, g.Number, in)
	if delivery.KindOf(err) == delivery.KindConflict || delivery.KindOf(err) == delivery.KindRefused {
		p := s.explain(ctx, r.Method, r.URL.Path, err)
		if g, err = s.Backend.Gate(ctx, g.ID); err != nil {
			return err //nolint:wrapcheck // explained by fail
		}
		return s.showGate(w, r, p.Status, g, p)
	}
	if err != nil {
		return err //nolint:wrapcheck // explained by fail
	}
	http.Redirect(w, r, to("a", g.ID), http.StatusSeeOther)
	return nil
}
