package web

import (
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/shuntcd/shunt/internal/api"
	"github.com/shuntcd/shunt/internal/delivery"
)

type compareView struct {
	frame
	C api.Comparison
}

// compare shows what differs between ?from= (default: what production runs) and
// ?to= (default: the newest build).
func (s *server) compare(w http.ResponseWriter, r *http.Request) error {
	name, q := r.PathValue("project"), r.URL.Query()
	number := func(key string) int64 {
		n, _ := strconv.ParseInt(q.Get(key), 10, 64) // not a number: the default
		return max(0, n)
	}
	from, until := number("from"), number("to")
	if until == 0 {
		p, err := s.Backend.Project(r.Context(), name)
		if err != nil {
			return err //nolint:wrapcheck // explained by fail
		}
		if p.Latest == nil {
			return notFound("no build to compare yet")
		}
		until = p.Latest.Number
	}
	c, err := s.Backend.Compare(r.Context(), name, from, until)
	if err != nil {
		return err //nolint:wrapcheck // explained by fail
	}
	return s.render(w, r, http.StatusOK, comparePage(compareView{s.frame(r, name+" "+num(c.From.Number)+" and "+num(c.To.Number)).of(name, "builds"), c}))
}

type timelineView struct {
	frame
	First   bool         // nothing newer is on another page
	Freezes []api.Freeze // active or to come, those that begin first first; only on the first page
	Moments []api.Moment
	Older   string // time before which older ones are; empty: none
}

func (s *server) timeline(w http.ResponseWriter, r *http.Request, seen int64) error {
	name := r.PathValue("project")
	before, _ := time.Parse(time.RFC3339Nano, r.URL.Query().Get("before")) // not a time: now
	ms, err := s.Backend.Timeline(r.Context(), name, before)
	if err != nil {
		return err //nolint:wrapcheck // explained by fail
	}
	v := timelineView{frame: s.frame(r, name+" timeline").live(name, 0).of(name, "timeline").seeing(seen), First: before.IsZero(), Moments: ms}
	if v.First {
		freezes, err := s.Backend.Freezes(r.Context(), name)
		if err != nil {
			return err //nolint:wrapcheck // explained by fail
		}
		for _, f := range slices.Backward(freezes) {
			if f.State == delivery.FreezePlanned || f.State == delivery.FreezeActive {
				v.Freezes = append(v.Freezes, f)
			}
		}
	}
	if len(ms) == 100 {
		v.Older = ms[99].At.UTC().Format(time.RFC3339Nano)
	}
	return s.render(w, r, http.StatusOK, timelinePage(v))
}

// day is the date of a moment, when it is another than that of the one before.
func (v timelineView) day(i int) string {
	const form = "Monday 2 January 2006"
	day := v.Moments[i].At.UTC().Format(form)
	if i > 0 && v.Moments[i-1].At.UTC().Format(form) == day {
		return ""
	}
	return day
}

// momentState is how a moment is shown.
func momentState(m api.Moment) string {
	switch m.Kind {
	case "hold":
		return "held"
	case "freeze":
		return "frozen"
	case "freeze planned":
		return "planned"
	case "incident":
		return "incident"
	case "hold released", "freeze ended", "incident cleared":
		return "ok"
	}
	return string(m.State)
}

func byIn(m api.Moment) string {
	if m.Took > 0 {
		return "by " + m.By + ", in " + span(m.Took)
	}
	return "by " + m.By
}

func momentWords(m api.Moment) string {
	switch m.Kind {
	case "hold":
		return "The main lane was held"
	case "hold released":
		return "The hold was released"
	case "freeze":
		return "The main lane was frozen"
	case "freeze planned":
		return "A freeze was planned"
	case "freeze ended":
		return "A freeze was ended"
	case "incident":
		return "Incident: nothing ships"
	case "incident cleared":
		return "The incident was cleared"
	case "takeover":
		return "ran in " + m.Environment + " before Shunt came"
	}
	what := map[delivery.DeploymentState][2]string{
		delivery.DeploymentSucceeded: {"went into ", "was put back into "},
		delivery.DeploymentFailed:    {"did not get into ", "could not be put back into "},
		delivery.DeploymentRunning:   {"is on its way into ", "is put back into "},
		delivery.DeploymentUnknown:   {"may or may not be in ", "may or may not be back in "},
		delivery.DeploymentGivenUp:   {"was given up before ", "was given up before "},
	}[m.State]
	if m.Kind == "rollback" {
		return what[1] + m.Environment
	}
	return what[0] + m.Environment
}

// utcForm is how people write a time in a form.
const utcForm = "2006-01-02 15:04"

func utcText(t time.Time) string { return t.UTC().Format(utcForm) }

type artifactsView struct {
	frame
	As    []api.BuildArtifact
	Older int64
}

func (s *server) artifactList(w http.ResponseWriter, r *http.Request) error {
	name := r.PathValue("project")
	before, _ := strconv.ParseInt(r.URL.Query().Get("before"), 10, 64) // not a number: from the newest
	as, err := s.Backend.Artifacts(r.Context(), name, max(0, before))
	if err != nil {
		return err //nolint:wrapcheck // explained by fail
	}
	v := artifactsView{frame: s.frame(r, name+" artifacts").live(name, 0).of(name, "artifacts"), As: as}
	if len(as) == 100 {
		v.Older = as[99].Number
	}
	return s.render(w, r, http.StatusOK, artifactsPage(v))
}
