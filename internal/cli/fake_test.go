package cli

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/shuntcd/shunt/internal/api"
	"github.com/shuntcd/shunt/internal/delivery"
)

const fakeToken = "token-of-ana"

// fake answers as the server does, from a handful of builds: 43 waits at its
// gate, the others have ended in all the ways there are.
type fake struct {
	mux *http.ServeMux

	mu      sync.Mutex
	lose    bool // take the next decision and lose the answer
	decided *api.Decide
	seen    int // how often build 50 was looked at
	secrets map[string]string
	freezes []api.Freeze // the last to begin first
	base    string       // commit in production
	tagged  string       // commit of build 43
}

const fakeArtifact = "the bytes of the shop\n"

func newFake() http.Handler {
	f := &fake{mux: http.NewServeMux(), secrets: map[string]string{}, base: strings.Repeat("a", 40), tagged: strings.Repeat("c", 40)}
	p := "/api/v1/projects/petstore"
	f.get("GET /api/v1/me", func(*http.Request) (any, error) { return api.Me{Name: "ana", Operator: true}, nil })
	f.get("GET /api/v1/projects", func(*http.Request) (any, error) { return []api.Project{f.project()}, nil })
	f.get("GET /api/v1/doctor", func(*http.Request) (any, error) {
		return []api.Check{{Name: "disk", State: "ok", Words: "9 GiB free"}, {Name: "smtp", State: "warn", Words: "no mail is sent"}}, nil
	})
	f.get("GET "+p, func(*http.Request) (any, error) { return f.project(), nil })
	f.get("GET "+p+"/builds", func(r *http.Request) (any, error) {
		list := []api.Build{}
		for _, n := range []int64{47, 46, 45, 44, 43} {
			b := f.build(n).Build
			if c := r.URL.Query().Get("commit"); c == "" || c == b.Commit {
				list = append(list, b)
			}
		}
		return list, nil
	})
	f.get("GET "+p+"/pushes", func(*http.Request) (any, error) { return []api.Push{}, nil })
	f.get("GET "+p+"/builds/{n}", func(r *http.Request) (any, error) {
		n, err := buildNumber(r.PathValue("n"))
		if err != nil || n < 43 || n > 50 {
			return nil, delivery.Errf(delivery.KindNotFound, "no build "+r.PathValue("n"), "")
		}
		return f.build(n), nil
	})
	f.get("GET "+p+"/builds/{n}/artifacts/{name}", func(*http.Request) (any, error) { return fakeArtifact, nil })
	f.get("GET "+p+"/builds/{n}/log", func(r *http.Request) (any, error) {
		return "log of " + r.URL.Query().Get("node") + "\n", nil
	})
	f.get("GET /api/v1/gates/7KQ2", func(*http.Request) (any, error) {
		g := f.gate()
		g.Build = f.build(43)
		return g, nil
	})
	f.get("POST "+p+"/builds/43/decision", f.decide)
	f.get("POST "+p+"/builds/{n}/cancel", func(*http.Request) (any, error) { return f.build(45).Build, nil })
	f.get("GET "+p+"/hotfix", func(*http.Request) (any, error) {
		return api.HotfixBase{Project: "petstore", Commit: f.base, Tag: "production/41", Pattern: "hotfix/*", Open: []api.Build{f.build(43).Build}}, nil
	})
	f.get("GET "+p+"/back-merges", func(*http.Request) (any, error) {
		return []api.BackMerge{{Project: "petstore", Commit: strings.Repeat("b", 40), Number: 43, Owner: "ana", OpenedAt: delivery.SystemClock{}.Now(), Conflicts: []string{"shop/cart\x1b[31m.html"}, Commands: []string{"git switch develop", "git merge origin/master"}}}, nil
	})
	f.get("GET "+p+"/environments", func(*http.Request) (any, error) { return f.build(43).Instances, nil })
	f.get("POST "+p+"/environments/petstore-qa-43/destroy", func(*http.Request) (any, error) {
		i := f.build(43).Instances[0]
		i.State = delivery.InstanceDestroying
		return i, nil
	})
	f.get("PUT "+p+"/secrets/{name}", func(r *http.Request) (any, error) {
		var s api.Secret
		err := json.NewDecoder(r.Body).Decode(&s)
		f.secrets[r.PathValue("name")] = s.Value
		return nil, err
	})
	f.get("GET "+p+"/secrets", func(*http.Request) (any, error) {
		names := []string{}
		for k, v := range f.secrets {
			names = append(names, fmt.Sprintf("%s-%d", k, len(v)))
		}
		return names, nil
	})
	f.get("POST /api/v1/projects", func(r *http.Request) (any, error) {
		var in api.AddProject
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
			return nil, err
		}
		p := api.AddedProject{WebhookSecret: "s3cret"}
		p.Name, p.URL, p.WebhookPath = in.Name, in.URL, "/hooks/"+in.Name
		return p, nil
	})
	f.mux.HandleFunc("POST /hooks/petstore", func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		mac := hmac.New(sha256.New, []byte("s3cret"))
		mac.Write(body)
		if err != nil || r.Header.Get("X-Shunt-Signature") != "sha256="+hex.EncodeToString(mac.Sum(nil)) || r.Header.Get("X-Shunt-Delivery") == "" || !strings.Contains(string(body), `"ref":"refs/heads/hotfix/cart-500"`) || r.URL.RawQuery != "wait=1" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		_ = json.NewEncoder(w).Encode([]api.Push{
			{Ref: "refs/heads/hotfix/cart-500", Build: 43, URL: "http://shunt.example/p/petstore/43"},
			{Ref: "refs/heads/hotfix/bad", Refused: "it carries foreign commits\ngit rebase --onto production/41"},
			{Ref: "refs/heads/other"},
		})
	})
	f.get("GET "+p+"/freezes", func(*http.Request) (any, error) { return append([]api.Freeze{}, f.freezes...), nil })
	f.get("POST "+p+"/freezes", func(r *http.Request) (any, error) {
		var in api.PlanFreeze
		err := json.NewDecoder(r.Body).Decode(&in)
		freeze := api.Freeze{ID: int64(len(f.freezes) + 1), Project: "petstore", State: delivery.FreezePlanned, From: in.From, Until: in.Until, Reason: in.Reason, By: "ana"}
		if in.From.IsZero() {
			freeze.State, freeze.From = delivery.FreezeActive, delivery.SystemClock{}.Now()
		}
		f.freezes = append([]api.Freeze{freeze}, f.freezes...)
		return freeze, err
	})
	f.get("POST "+p+"/freezes/{id}/end", func(r *http.Request) (any, error) {
		var in api.Because
		err := json.NewDecoder(r.Body).Decode(&in)
		for i := range f.freezes {
			if z := &f.freezes[i]; itoa(z.ID) == r.PathValue("id") {
				z.State, z.EndedBy, z.EndedAt, z.EndedWhy = delivery.FreezeEnded, "ana", delivery.SystemClock{}.Now(), in.Reason
				return *z, err
			}
		}
		return nil, delivery.Errf(delivery.KindNotFound, "there is no freeze "+r.PathValue("id"), "")
	})
	// Tells the fake which commits the script has made, and to lose an answer.
	f.get("POST /fake", func(r *http.Request) (any, error) {
		q := r.URL.Query()
		f.lose = q.Has("lose")
		if q.Has("base") {
			f.base = q.Get("base")
		}
		if q.Has("tagged") {
			f.tagged = q.Get("tagged")
		}
		return nil, nil
	})
	return f.mux
}

// get answers JSON, or text, behind the token.
func (f *fake) get(pattern string, answer func(*http.Request) (any, error)) {
	f.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		defer f.mu.Unlock()
		var v any
		err := error(delivery.Errf(delivery.KindUnauthorized, "nobody is signed in", ""))
		if r.Header.Get("Authorization") == "Bearer "+fakeToken || pattern == "POST /fake" {
			v, err = answer(r)
		}
		if err != nil {
			e, _ := asError(err)
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(e.Kind.HTTPStatus())
			v = map[string]any{"title": e.What, "detail": e.Why, "kind": e.Kind, "next": e.Next, "status": e.Kind.HTTPStatus()}
		}
		if text, ok := v.(string); ok {
			_, _ = w.Write([]byte(text))
			return
		}
		_ = json.NewEncoder(w).Encode(v)
	})
}

func (f *fake) decide(r *http.Request) (any, error) {
	var in api.Decide
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
		return nil, delivery.Errf(delivery.KindInvalid, "bad decision", err.Error())
	}
	if f.decided != nil {
		return nil, delivery.Errf(delivery.KindConflict, "build 43 was decided", "ana was first")
	}
	if in.Version != 2 || in.Commit != f.tagged {
		return nil, delivery.Errf(delivery.KindConflict, "the gate changed", fmt.Sprint(in.Version, in.Commit))
	}
	f.decided = &in
	if f.lose {
		f.lose = false
		panic(http.ErrAbortHandler)
	}
	return f.gate().Gate, nil
}

func (f *fake) project() api.Project {
	w := f.build(43).Build
	var freeze *api.Freeze
	if len(f.freezes) > 0 {
		freeze = &f.freezes[0]
	}
	return api.Project{
		Name: "petstore", URL: "/srv/petstore.git", Branches: delivery.Branches{Integration: "develop", Production: "master", Hotfix: "hotfix/*"},
		Environments: []api.EnvironmentState{
			{Name: "qa", Ephemeral: true, Instances: f.build(43).Instances},
			{Name: "production", Production: true, Running: &api.Running{Build: 41, Commit: f.base, Lane: delivery.LaneMain, Since: delivery.SystemClock{}.Now().Add(-9 * 24 * time.Hour), By: "ana", URL: "http://localhost:9001"}},
		},
		Waiting: []api.Build{w}, Hold: "rolled back", Freeze: freeze, NextBuild: 51,
	}
}

func (f *fake) build(n int64) api.BuildDetail {
	sum := sha256.Sum256([]byte(fakeArtifact))
	b := api.BuildDetail{
		Build:     api.Build{Project: "petstore", Number: n, Lane: delivery.LaneHotfix, Branch: "hotfix/cart-500", Commit: f.tagged, Subject: "Cart \x1b]0;pwned\a answers", URL: "http://shunt.example/p/petstore/" + itoa(n)},
		BuildTag:  "build/43",
		Artifacts: []api.Artifact{{Name: "app", File: "petstore.tar.gz", SHA256: hex.EncodeToString(sum[:]), Size: int64(len(fakeArtifact))}},
		Nodes: []api.Node{
			{Name: "job/build", Kind: delivery.NodeJob, Target: "build", State: delivery.NodeSucceeded, Attempts: []api.Attempt{{Attempt: 1}}},
			{Name: "gate/production", Kind: delivery.NodeGate, Target: "production", State: delivery.NodeWaiting},
		},
		Instances: []api.Instance{{ID: "petstore-qa-43", Project: "petstore", Environment: "qa", Number: 43, State: delivery.InstanceUp, URL: "http://localhost:9143"}},
	}
	if n != 43 && n != 50 {
		b.Commit = strings.Repeat("d", 40)
	}
	switch n {
	case 43:
		b.Status = delivery.BuildWaiting
		b.Gates = []api.Gate{f.gate().Gate}
		if f.decided != nil {
			b.Status = delivery.BuildRejected
			if f.decided.Promote {
				b.Status, b.ProductionTag = delivery.BuildSucceeded, "production/43"
			}
		}
	case 44:
		b.Status, b.Reason = delivery.BuildFailed, "job smoke failed"
		b.WhyFailed = &api.WhyFailed{Node: "job/smoke", Reason: "exit code 1", Tail: []string{"want 200, got 500"}}
	case 45:
		b.Status = delivery.BuildCancelled
	case 46:
		b.Status = delivery.BuildRejected
	case 47:
		b.Status = delivery.BuildSucceeded
	case 48:
		b.Status = delivery.BuildExpired
	case 49:
		b.Status, b.Actions = delivery.BuildStopped, []api.Action{{Name: "retry"}, {Name: "give-up", Refused: "not now"}}
	case 50: // goes on while it is watched
		b.Status = delivery.BuildRunning
		b.Nodes[1].State = delivery.NodePending
		if f.seen++; f.seen > 2 {
			b.Status, b.Nodes[1].State = delivery.BuildSucceeded, delivery.NodeSucceeded
		}
	}
	return b
}

func (f *fake) gate() api.GateDetail {
	g := api.GateDetail{Gate: api.Gate{ID: "7KQ2", Project: "petstore", Number: 43, Environment: "production", Version: 2, State: delivery.GateOpen, Binding: delivery.Binding{Commit: f.tagged}, URL: "http://shunt.example/a/7KQ2"}, Title: "cart-500", CommitCount: 1, Forecast: api.Forecast{Words: "clean into develop"}}
	if f.decided != nil {
		g.State, g.DecidedBy, g.DecidedAt = delivery.GateRejected, "ana", delivery.SystemClock{}.Now()
		if f.decided.Promote {
			g.State = delivery.GatePromoted
		}
	}
	return g
}
