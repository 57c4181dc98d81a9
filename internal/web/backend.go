package web

import (
	"context"
	"io"
	"net/http"
	"time"

	"github.com/shuntcd/shunt/internal/api"
	"github.com/shuntcd/shunt/internal/delivery"
	"github.com/shuntcd/shunt/internal/runlog"
)

// Actor is who acts, and from where: "203.0.113.7, page" or "127.0.0.1, api".
type Actor struct {
	User string
	From string
}

// Reader is what pages and the API show.
type Reader interface {
	Projects(ctx context.Context) ([]api.Project, error)
	Project(ctx context.Context, name string) (api.Project, error)
	Pushes(ctx context.Context, project string) ([]api.Push, error)
	Builds(ctx context.Context, project string, f api.BuildFilter) ([]api.Build, error)
	Build(ctx context.Context, project string, number int64) (api.BuildDetail, error)
	// Lines is the line map of the latest builds (0: 40, at most 200).
	Lines(ctx context.Context, project string, limit int) (api.Lines, error)
	// Compare compares two builds; from 0 is what production runs.
	Compare(ctx context.Context, project string, from, to int64) (api.Comparison, error)
	// Timeline is what happened to the environments before a time (zero: now).
	Timeline(ctx context.Context, project string, before time.Time) ([]api.Moment, error)
	// Freezes lists what is planned, active and past, those that begin last first; at most 100.
	Freezes(ctx context.Context, project string) ([]api.Freeze, error)
	// Artifacts lists those of builds below a number (0: from the newest).
	Artifacts(ctx context.Context, project string, before int64) ([]api.BuildArtifact, error)
	Gate(ctx context.Context, id string) (api.GateDetail, error)
	Hotfix(ctx context.Context, project string) (api.HotfixBase, error)
	BackMerges(ctx context.Context, project string) ([]api.BackMerge, error)
	Instances(ctx context.Context, project string) ([]api.Instance, error)
	// FeedKey is what opens a project's feeds to whoever is not signed in.
	FeedKey(ctx context.Context, project string) (string, error)
	Secrets(ctx context.Context, project string) ([]string, error)
	Audit(ctx context.Context, project string, before int64) ([]api.AuditRow, error)
	// Seen is the number of the newest audit row of all: what a page shows is not
	// older than that when it is asked first.
	Seen(ctx context.Context) (int64, error)
	// Since lists the newest audit rows behind a number after which a person would
	// choose anew, newest first.
	Since(ctx context.Context, project string, of Subject, seen int64) ([]api.AuditRow, error)
	Mails(ctx context.Context) ([]api.Mail, error)
	Doctor(ctx context.Context) ([]api.Check, error)
	// Log opens the log of a node's attempt (0: the latest).
	Log(ctx context.Context, project string, number int64, node string, attempt int) (Log, error)
	// Artifact opens an artifact's verified bytes; the caller closes it.
	Artifact(ctx context.Context, project string, number int64, name string) (api.Artifact, io.ReadSeekCloser, error)
	// Subscribe delivers events newer than after (0: only new ones) until cancel
	// is called. A slow reader loses the subscription: the channel is closed.
	Subscribe(ctx context.Context, after int64) (events <-chan api.Event, cancel func(), err error)
	// Ready tells whether the server can take work; nil: yes.
	Ready(ctx context.Context) error
}

// Concern is a kind of form: what its sender had to know.
type Concern string

// The concerns of forms.
const (
	OfProject     Concern = "project"     // whether and what may ship, and what is in production
	OfBuild       Concern = "build"       // how far a build has come
	OfEnvironment Concern = "environment" // how long an ephemeral environment lives
	OfSecret      Concern = "secret"
)

// Subject is what a form acts on.
type Subject struct {
	Concern Concern
	Number  int64  // of the build
	Name    string // of the secret, or the environment's id
}

// Log is the stored log of one attempt. It may still grow.
type Log interface {
	io.ReaderAt
	io.Closer
	// Size is how many bytes of whole stored lines can be read now.
	Size() int64
	// Done tells whether the attempt has ended and Size is final.
	Done() bool
	// Wait returns when Size has passed offset, the attempt is done or ctx is.
	Wait(ctx context.Context, offset int64) error
	// Index tells where lines begin, up to Size.
	Index(ctx context.Context) (*runlog.Index, error)
}

// Writer is what people do.
type Writer interface {
	AddProject(ctx context.Context, who Actor, in api.AddProject) (api.AddedProject, error)
	Sync(ctx context.Context, project string) ([]api.Push, error)
	// Hook takes a webhook: it verifies the signature over the raw body, remembers
	// the delivery id and reads the refs again. wait asks for the outcome.
	Hook(ctx context.Context, project string, header http.Header, body []byte, wait bool) ([]api.Push, error)
	Decide(ctx context.Context, who Actor, project string, number int64, in api.Decide) (api.Gate, error)
	Cancel(ctx context.Context, who Actor, project string, number int64, reason string) (api.Build, error)
	Rerun(ctx context.Context, who Actor, project string, number int64) (api.Build, error)
	Resolve(ctx context.Context, who Actor, project string, number int64, in api.Resolve) (api.Build, error)
	Rollback(ctx context.Context, who Actor, project string, in api.Rollback) (api.Build, error)
	Hold(ctx context.Context, who Actor, project, reason string) (api.Project, error)
	ReleaseHold(ctx context.Context, who Actor, project, reason string) (api.Project, error)
	PlanFreeze(ctx context.Context, who Actor, project string, in api.PlanFreeze) (api.Freeze, error)
	EndFreeze(ctx context.Context, who Actor, project string, id int64, reason string) (api.Freeze, error)
	ClearIncident(ctx context.Context, who Actor, project, reason string) (api.Project, error)
	Keep(ctx context.Context, who Actor, project, id string, in api.Keep) (api.Instance, error)
	Destroy(ctx context.Context, who Actor, project, id string) (api.Instance, error)
	// TestMail sends a mail to all that the project's pipeline file tells.
	TestMail(ctx context.Context, who Actor, project string) (api.TestMail, error)
	SetSecret(ctx context.Context, who Actor, project, name, value string) error
	DeleteSecret(ctx context.Context, who Actor, project, name string) error
}

// Backend is the server behind the pages.
type Backend interface {
	Reader
	Writer
	Reconciler
}

// Authenticator says who a request comes from; package auth satisfies it.
type Authenticator interface {
	// Session returns the user of a browser's cookie value.
	Session(ctx context.Context, secret string) (delivery.User, error)
	// Token returns the user of a bearer token.
	Token(ctx context.Context, secret string) (delivery.User, error)
	// RedeemOnce turns a one-time link into a session's secret, once.
	RedeemOnce(ctx context.Context, secret string) (session string, err error)
	// SignOut ends a session.
	SignOut(ctx context.Context, session string) error
	// NewToken makes a token for a user.
	NewToken(ctx context.Context, user, name string) (secret string, err error)
}
