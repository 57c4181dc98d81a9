package web

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/shuntcd/shunt/internal/api"
	"github.com/shuntcd/shunt/internal/delivery"
)

// The parts of addresses that inputs share. huma reads their tags, and only those
// of exported types when they are embedded.
type (
	// ProjectPath names a project.
	ProjectPath struct {
		Project string `path:"project"`
	}
	// BuildPath names a build.
	BuildPath struct {
		ProjectPath
		Number int64 `path:"number" minimum:"1"`
	}
	// InstancePath names an ephemeral environment's instance.
	InstancePath struct {
		ProjectPath
		ID string `path:"id"`
	}
	// FreezePath names a freeze.
	FreezePath struct {
		ProjectPath
		ID int64 `path:"id" minimum:"1"`
	}
	// SecretPath names a secret.
	SecretPath struct {
		ProjectPath
		Name string `path:"name"`
	}
)

// The inputs of the routes.
type (
	inNothing struct{}
	inBuilds  struct {
		ProjectPath
		api.BuildFilter
	}
	inLines struct {
		ProjectPath
		Limit int `query:"limit" minimum:"0" maximum:"200" doc:"0: 40"`
	}
	inCompare struct {
		ProjectPath
		From int64 `query:"from" minimum:"0" doc:"0: what production runs"`
		To   int64 `query:"to" minimum:"1" required:"true"`
	}
	inTimeline struct {
		ProjectPath
		Before time.Time `query:"before" doc:"only what happened before; default now"`
	}
	inBelow struct {
		ProjectPath
		Before int64 `query:"before" minimum:"0" doc:"only builds below; 0: from the newest"`
	}
	inAudit struct {
		ProjectPath
		Before int64 `query:"before" doc:"only rows below this sequence number; 0: from the newest"`
	}
	inGate struct {
		ID string `path:"id"`
	}
	inSetSecret struct {
		SecretPath
		Body api.Secret
	}
	inKeep struct {
		InstancePath
		Body api.Keep
	}
	inProjectBecause struct {
		ProjectPath
		Body api.Because
	}
	inPlanFreeze struct {
		ProjectPath
		Body api.PlanFreeze
	}
	inEndFreeze struct {
		FreezePath
		Body api.Because
	}
	inCancel struct {
		BuildPath
		Body api.Because
	}
	inDecide struct {
		BuildPath
		Body api.Decide
	}
	inResolve struct {
		BuildPath
		Body api.Resolve
	}
	inRollback struct {
		ProjectPath
		Body api.Rollback
	}
	inAdd   struct{ Body api.AddProject }
	inToken struct{ Body api.Token }
	inLog   struct {
		BuildPath
		Node    string `query:"node" required:"true" doc:"such as job/smoke"`
		Attempt int    `query:"attempt" minimum:"0" doc:"0: the latest"`
		Offset  int64  `query:"offset" minimum:"0" doc:"bytes; where a stored line begins"`
		Follow  bool   `query:"follow" doc:"go on until the attempt has ended"`
		Format  string `query:"format" enum:"stored,text,spans" default:"stored" doc:"stored: <unix microseconds> <flag><text>; text: what was printed, without escape sequences; spans: JSON lines for pages"`
	}
	inSearch struct {
		BuildPath
		Node    string `query:"node" required:"true" doc:"such as job/smoke"`
		Attempt int    `query:"attempt" minimum:"0" doc:"0: the latest"`
		Query   string `query:"q" required:"true" minLength:"1" maxLength:"200" doc:"text as it is shown, whatever its case"`
		From    int64  `query:"from" minimum:"0" doc:"line from which on to look; 0: from the first"`
	}
	inArtifact struct {
		BuildPath
		Name string `path:"name"`
	}
	out[T any] struct{ Body T }
)

// apiRoutes registers the HTTP API. Paths and bodies are those of api.Client.
func (s *server) apiRoutes() error {
	cfg := huma.DefaultConfig("Shunt", s.Version)
	cfg.OpenAPIPath, cfg.DocsPath, cfg.SchemasPath, cfg.CreateHooks = "", "", "", nil
	cfg.Servers = []*huma.Server{{URL: strings.TrimSuffix(s.PublicURL, "/")}}
	cfg.Components.SecuritySchemes = map[string]*huma.SecurityScheme{"token": {Type: "http", Scheme: "bearer", Description: "shunt token"}}
	cfg.Security = []map[string][]string{{"token": {}}}
	a := humago.New(s, cfg)
	const (
		root    = "/api/v1"
		project = root + "/projects/{project}"
		build   = project + "/builds/{number}"
		env     = project + "/environments/{id}"
	)
	b := s.Backend

	get(s, a, root+"/me", "me", "Who the token belongs to", func(ctx context.Context, _ *inNothing) (api.Me, error) {
		u := callerOf(ctx).user
		return api.Me{Name: u.Name, Email: u.Email, Operator: u.Operator}, nil
	})
	get(s, a, root+"/projects", "projects", "List the projects", func(ctx context.Context, _ *inNothing) ([]api.Project, error) { return b.Projects(ctx) })
	post(s, a, root+"/projects", "add-project", "Take a repository over", func(ctx context.Context, in *inAdd) (api.AddedProject, error) {
		return b.AddProject(ctx, s.actor(ctx), in.Body)
	})
	get(s, a, project, "project", "One project", func(ctx context.Context, in *ProjectPath) (api.Project, error) { return b.Project(ctx, in.Project) })
	post(s, a, project+"/sync", "sync", "Read the remote's refs now", func(ctx context.Context, in *ProjectPath) ([]api.Push, error) { return b.Sync(ctx, in.Project) })
	get(s, a, project+"/pushes", "pushes", "What became of the latest pushes", func(ctx context.Context, in *ProjectPath) ([]api.Push, error) { return b.Pushes(ctx, in.Project) })
	get(s, a, project+"/builds", "builds", "List builds, newest first", func(ctx context.Context, in *inBuilds) ([]api.Build, error) {
		return b.Builds(ctx, in.Project, in.BuildFilter)
	})
	get(s, a, project+"/lines", "lines", "The line map of the latest builds", func(ctx context.Context, in *inLines) (api.Lines, error) {
		return b.Lines(ctx, in.Project, in.Limit)
	})
	get(s, a, project+"/compare", "compare", "What differs between two builds", func(ctx context.Context, in *inCompare) (api.Comparison, error) {
		return b.Compare(ctx, in.Project, in.From, in.To)
	})
	get(s, a, project+"/timeline", "timeline", "Deployments, holds, freezes and incidents", func(ctx context.Context, in *inTimeline) ([]api.Moment, error) {
		return b.Timeline(ctx, in.Project, in.Before)
	})
	get(s, a, project+"/artifacts", "artifacts", "List artifacts, those of the newest builds first", func(ctx context.Context, in *inBelow) ([]api.BuildArtifact, error) {
		return b.Artifacts(ctx, in.Project, in.Before)
	})
	get(s, a, build, "build", "One build", func(ctx context.Context, in *BuildPath) (api.BuildDetail, error) {
		return b.Build(ctx, in.Project, in.Number)
	})
	get(s, a, root+"/gates/{id}", "gate", "The promote page", func(ctx context.Context, in *inGate) (api.GateDetail, error) { return b.Gate(ctx, in.ID) })
	post(s, a, build+"/decision", "decide", "Promote or reject", func(ctx context.Context, in *inDecide) (api.Gate, error) {
		return b.Decide(ctx, s.actor(ctx), in.Project, in.Number, in.Body)
	})
	post(s, a, build+"/cancel", "cancel", "Stop a build", func(ctx context.Context, in *inCancel) (api.Build, error) {
		return b.Cancel(ctx, s.actor(ctx), in.Project, in.Number, in.Body.Reason)
	})
	post(s, a, build+"/rerun", "rerun", "Run what failed again, on the same commit", func(ctx context.Context, in *BuildPath) (api.Build, error) {
		return b.Rerun(ctx, s.actor(ctx), in.Project, in.Number)
	})
	post(s, a, build+"/resolve", "resolve", "Answer what a stopped build asks", func(ctx context.Context, in *inResolve) (api.Build, error) {
		return b.Resolve(ctx, s.actor(ctx), in.Project, in.Number, in.Body)
	})
	post(s, a, project+"/rollback", "rollback", "Put an earlier production build back", func(ctx context.Context, in *inRollback) (api.Build, error) {
		return b.Rollback(ctx, s.actor(ctx), in.Project, in.Body)
	})
	post(s, a, project+"/hold", "hold", "Stop promotions of the main lane", func(ctx context.Context, in *inProjectBecause) (api.Project, error) {
		return b.Hold(ctx, s.actor(ctx), in.Project, in.Body.Reason)
	})
	post(s, a, project+"/release-hold", "release-hold", "Let the main lane promote again", func(ctx context.Context, in *inProjectBecause) (api.Project, error) {
		return b.ReleaseHold(ctx, s.actor(ctx), in.Project, in.Body.Reason)
	})
	get(s, a, project+"/freezes", "freezes", "List planned, active and past freezes, those that begin last first", func(ctx context.Context, in *ProjectPath) ([]api.Freeze, error) {
		return b.Freezes(ctx, in.Project)
	})
	post(s, a, project+"/freezes", "plan-freeze", "Plan a time in which the main lane does not promote", func(ctx context.Context, in *inPlanFreeze) (api.Freeze, error) {
		return b.PlanFreeze(ctx, s.actor(ctx), in.Project, in.Body)
	})
	post(s, a, project+"/freezes/{id}/end", "end-freeze", "End a freeze before its time, or take it back", func(ctx context.Context, in *inEndFreeze) (api.Freeze, error) {
		return b.EndFreeze(ctx, s.actor(ctx), in.Project, in.ID, in.Body.Reason)
	})
	post(s, a, project+"/clear-incident", "clear-incident", "Accept production's branch and tags as they are now", func(ctx context.Context, in *inProjectBecause) (api.Project, error) {
		return b.ClearIncident(ctx, s.actor(ctx), in.Project, in.Body.Reason)
	})
	get(s, a, project+"/hotfix", "hotfix", "Where a hotfix must start", func(ctx context.Context, in *ProjectPath) (api.HotfixBase, error) { return b.Hotfix(ctx, in.Project) })
	get(s, a, project+"/back-merges", "back-merges", "List back-merge debts", func(ctx context.Context, in *ProjectPath) ([]api.BackMerge, error) {
		return b.BackMerges(ctx, in.Project)
	})
	get(s, a, project+"/environments", "environments", "List ephemeral environments", func(ctx context.Context, in *ProjectPath) ([]api.Instance, error) {
		return b.Instances(ctx, in.Project)
	})
	post(s, a, env+"/keep", "keep", "Change how long an environment lives", func(ctx context.Context, in *inKeep) (api.Instance, error) {
		return b.Keep(ctx, s.actor(ctx), in.Project, in.ID, in.Body)
	})
	post(s, a, env+"/destroy", "destroy", "End an environment now", func(ctx context.Context, in *InstancePath) (api.Instance, error) {
		return b.Destroy(ctx, s.actor(ctx), in.Project, in.ID)
	})
	get(s, a, project+"/secrets", "secrets", "List the names of secrets", func(ctx context.Context, in *ProjectPath) ([]string, error) { return b.Secrets(ctx, in.Project) })
	none(s, a, http.MethodPut, project+"/secrets/{name}", "set-secret", "Store a secret", func(ctx context.Context, in *inSetSecret) error {
		return b.SetSecret(ctx, s.actor(ctx), in.Project, in.Name, in.Body.Value)
	})
	none(s, a, http.MethodDelete, project+"/secrets/{name}", "delete-secret", "Remove a secret", func(ctx context.Context, in *SecretPath) error {
		return b.DeleteSecret(ctx, s.actor(ctx), in.Project, in.Name)
	})
	post(s, a, project+"/test-mail", "test-mail", "Send a mail to all that the pipeline file tells", func(ctx context.Context, in *ProjectPath) (api.TestMail, error) {
		return b.TestMail(ctx, s.actor(ctx), in.Project)
	})
	get(s, a, project+"/audit", "audit", "List audit rows, newest first", func(ctx context.Context, in *inAudit) ([]api.AuditRow, error) {
		return b.Audit(ctx, in.Project, in.Before)
	})
	get(s, a, root+"/mails", "mails", "The demo's mailbox", func(ctx context.Context, _ *inNothing) ([]api.Mail, error) { return s.mails(ctx) })
	get(s, a, root+"/doctor", "doctor", "Health checks", func(ctx context.Context, _ *inNothing) ([]api.Check, error) { return b.Doctor(ctx) })
	s.reconcileRoutes(a)
	post(s, a, root+"/tokens", "create-token", "Make a token for the command line", func(ctx context.Context, in *inToken) (api.Token, error) {
		secret, err := s.Auth.NewToken(ctx, callerOf(ctx).user.Name, in.Body.Name)
		return api.Token{Name: in.Body.Name, Token: secret}, err //nolint:wrapcheck // explained by fail
	})
	get(s, a, build+"/log/search", "search-log", "Look for a text in a whole log", s.apiSearch)
	stream(s, a, build+"/log", "log", "The log of a node's attempt", s.apiLog)
	stream(s, a, build+"/artifacts/{name}", "artifact", "An artifact's bytes", s.apiArtifact)

	// huma documents its own error model; ours says two things more.
	if m, ok := a.OpenAPI().Components.Schemas.Map()["ErrorModel"]; ok {
		m.Properties["kind"] = &huma.Schema{Type: huma.TypeString, Description: "category of the error"}
		m.Properties["next"] = &huma.Schema{Type: huma.TypeString, Description: "what to do next"}
	}
	doc, err := json.Marshal(a.OpenAPI())
	if err != nil {
		return fmt.Errorf("describe the API: %w", err)
	}
	s.public("GET /openapi.json", func(w http.ResponseWriter, _ *http.Request) error {
		w.Header().Set("Content-Type", "application/json")
		_, err := w.Write(doc)
		return err //nolint:wrapcheck // nobody left to tell
	})
	s.mux.HandleFunc("/api/", s.handle(func(http.ResponseWriter, *http.Request) error {
		return &delivery.Error{Kind: delivery.KindNotFound, What: "no such address in the API", Next: "All addresses are in /openapi.json"}
	}))
	return nil
}

func operation(method, path, id, summary string) huma.Operation {
	return huma.Operation{OperationID: id, Method: method, Path: path, Summary: summary, Errors: []int{401, 403, 404, 409, 503}}
}

// refusal is err as huma answers it.
func refusal(ctx context.Context, s *server, op huma.Operation, err error) error {
	if p, ok := errors.AsType[*problem](err); ok {
		return p
	}
	return s.explain(ctx, op.Method, op.Path, err)
}

func get[I, T any](s *server, a huma.API, path, id, summary string, f func(context.Context, *I) (T, error)) {
	answer(s, a, operation(http.MethodGet, path, id, summary), f)
}

func post[I, T any](s *server, a huma.API, path, id, summary string, f func(context.Context, *I) (T, error)) {
	answer(s, a, operation(http.MethodPost, path, id, summary), f)
}

func answer[I, T any](s *server, a huma.API, op huma.Operation, f func(context.Context, *I) (T, error)) {
	huma.Register(a, op, func(ctx context.Context, in *I) (*out[T], error) {
		v, err := f(ctx, in)
		if err != nil {
			return nil, refusal(ctx, s, op, err)
		}
		return &out[T]{Body: v}, nil
	})
}

func none[I any](s *server, a huma.API, method, path, id, summary string, f func(context.Context, *I) error) {
	op := operation(method, path, id, summary)
	huma.Register(a, op, func(ctx context.Context, in *I) (*struct{}, error) {
		if err := f(ctx, in); err != nil {
			return nil, refusal(ctx, s, op, err)
		}
		return nil, nil //nolint:nilnil // huma: an answer without a body
	})
}

// stream registers a route that writes its own answer once f has found what to
// send.
func stream[I any](s *server, a huma.API, path, id, summary string, f func(context.Context, *I) (handler, error)) {
	op := operation(http.MethodGet, path, id, summary)
	huma.Register(a, op, func(ctx context.Context, in *I) (*huma.StreamResponse, error) {
		send, err := f(ctx, in)
		if err != nil {
			return nil, refusal(ctx, s, op, err)
		}
		return &huma.StreamResponse{Body: func(hc huma.Context) {
			r, w := humago.Unwrap(hc)
			if err := send(w, r); err != nil && !gone(err) && ctx.Err() == nil {
				s.Log.WarnContext(ctx, "answer broke off", "path", r.URL.Path, "error", err)
			}
		}}, nil
	})
}

func marshalProblem(p *problem) []byte {
	b, err := json.Marshal(p)
	if err != nil { // strings and a number: cannot happen
		return []byte(`{"status":500,"kind":"internal"}`)
	}
	return b
}
