package web

import (
	"fmt"
	"net/http"
	"time"

	"github.com/shuntcd/shunt/internal/api"
	"github.com/shuntcd/shunt/internal/delivery"
)

type designView struct {
	frame
	Lines api.Lines
}

func (s *server) design(w http.ResponseWriter, r *http.Request) error {
	if !s.Design {
		return notFound("no page /ui")
	}
	return s.render(w, r, http.StatusOK, designPage(designView{s.frame(r, "Design"), sampleLines(s.Clock.Now())}))
}

// sampleLines is a line map with everything that one can show.
func sampleLines(now time.Time) api.Lines {
	in := api.Lines{Project: "sample", Branches: delivery.Branches{Integration: "develop", Production: "master"}, Running: 4}
	for i, x := range []struct {
		branch   string
		status   delivery.BuildStatus
		gate     delivery.GateState
		released bool
	}{
		{"develop", delivery.BuildSucceeded, delivery.GatePromoted, true},
		{"develop", delivery.BuildFailed, "", false},
		{"hotfix/refused", delivery.BuildRejected, delivery.GateRejected, false},
		{"hotfix/shipped", delivery.BuildSucceeded, delivery.GatePromoted, true},
		{"develop", delivery.BuildExpired, delivery.GateExpired, false},
		{"develop", delivery.BuildStopped, "", false},
		{"hotfix/waits", delivery.BuildWaiting, delivery.GateOpen, false},
		{"develop", delivery.BuildRunning, "", false},
		{"develop", delivery.BuildQueued, "", false},
	} {
		n := int64(i + 1)
		st := api.Station{Build: api.Build{Project: "sample", Number: n, Lane: delivery.LaneMain, Branch: x.branch, Commit: "0000000", Subject: fmt.Sprintf("Subject of build %d", n), Author: "Ana Ruiz", Status: x.status, CreatedAt: now.Add(time.Duration(i-9) * time.Hour)}, GateState: x.gate, GateID: "SAMPLE"}
		if x.branch != "develop" {
			st.Lane, st.Base = delivery.LaneHotfix, 1
			if x.branch == "hotfix/waits" {
				st.Base = 4
			}
		}
		if x.released {
			st.ReleasedAt, st.Tag = st.CreatedAt.Add(30*time.Minute), fmt.Sprintf("production/%d", n)
		}
		in.Stations = append(in.Stations, st)
	}
	in.Debts = []api.BackMerge{{Number: 4, OpenedAt: now}}
	return in
}
