package artifact

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/shuntcd/shunt/internal/delivery"
)

// The kinds of target. Room is left for npm, OCI and S3: a case in NewPublisher
// and a type with three methods.
const (
	KindFiles = "files"
	KindRaw   = "raw"
	KindNexus = "nexus"
)

// Target is the place where an artifact goes. All texts are expanded already.
type Target struct {
	Kind        string // files, raw or nexus
	URL         string // raw: the file, or a directory ending in /; nexus: where Nexus lives; files: where the web serves it, may be empty
	Repository  string // nexus
	Format      string // nexus: maven2 or raw
	Coordinates string // nexus maven2: group:artifact:version[:extension[:classifier]]
	Directory   string // nexus raw and raw: below the repository or URL; files: "<project>/<build>"
	User        string // empty: no authentication
	Password    string
}

// Item is one artifact of a build, ready to be pushed. Open may be called more
// than once.
type Item struct {
	Name   string // the artifact's name in the pipeline file: "app"
	File   string // base name of the file: "petstore.tar.gz"; hostile
	SHA256 string // 64 lower-case hex digits
	Size   int64  // bytes
	Open   func() (io.ReadCloser, error)
}

// Receipt says where an artifact is and with which digest.
type Receipt struct {
	URL    string `json:"url"`
	SHA256 string `json:"sha256"`
}

// Outcome is what is known after an attempt to push.
type Outcome string

// The outcomes.
const (
	OutcomeDone    Outcome = "done"
	OutcomeRefused Outcome = "refused" // known not to have happened; the words say why
	OutcomeUnknown Outcome = "unknown" // nobody knows: Probe tells
)

// PublishError says why an artifact was not pushed, or that nobody knows. It
// never carries the password.
type PublishError struct {
	Outcome   Outcome
	Temporary bool   // refused, but the reason may pass: the server was away or busy
	What      string // "cannot publish petstore.tar.gz to nexus.example.org/releases"
	Why       string
	Next      string
	Err       error // the cause, for logs; may be nil
}

// Error joins what, why and next, like delivery.Error.
func (e *PublishError) Error() string {
	return (&delivery.Error{What: e.What, Why: e.Why, Next: e.Next}).Error()
}

// Unwrap returns the cause.
func (e *PublishError) Unwrap() error { return e.Err }

// Publisher pushes artifacts to one target.
type Publisher interface {
	// Preflight asks whether the target would take a push now. Its error is a
	// *PublishError with OutcomeRefused.
	Preflight(ctx context.Context) error
	// Publish pushes the item. Its error is a *PublishError; after
	// OutcomeUnknown call Probe before anything else.
	Publish(ctx context.Context, item Item) (Receipt, error)
	// Probe looks up what the target holds in the item's place: nothing
	// (found is false), equal bytes (found), or other bytes (a *PublishError with
	// OutcomeRefused). Any other error means that it could not be looked up.
	Probe(ctx context.Context, item Item) (receipt Receipt, found bool, err error)
}

// NewPublisher makes the publisher of a target. The client brings the dialer's
// egress rules; nil is a client of its own. Redirects are never followed. Files
// is the built-in store and only needed for KindFiles. A target that can never
// work is KindInvalid.
func NewPublisher(t Target, client *http.Client, files *Files) (Publisher, error) {
	switch t.Kind {
	case KindFiles:
		return newFilesPublisher(t, files)
	case KindRaw:
		return newRawPublisher(t, client)
	case KindNexus:
		return newNexusPublisher(t, client)
	default:
		return nil, badTarget("its kind is \"" + clean(t.Kind, 40) + "\"; known are files, raw and nexus")
	}
}

func badTarget(why string) error {
	return delivery.Errf(delivery.KindInvalid, "cannot publish to this target", why)
}

// baseURL parses an absolute http or https URL that carries nothing but a place.
func baseURL(raw string) (*url.URL, error) {
	u, err := url.Parse(raw)
	switch {
	case err != nil: // the parser's error repeats the URL, and with it a password
		return nil, badTarget("its URL cannot be read")
	case u.User != nil:
		return nil, badTarget("its URL contains a user name; use the fields for user and password")
	case u.Scheme != "http" && u.Scheme != "https", u.Host == "":
		return nil, badTarget("its URL is not an absolute http or https URL")
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return nil, badTarget("its URL has a query or fragment")
	}
	for part := range strings.SplitSeq(u.Path, "/") {
		if part == ".." || part == "." {
			return nil, badTarget("its URL contains the path element \"" + part + "\"")
		}
	}
	return u, nil
}

// below is base followed by path elements that are names, not escaped text: a
// file called "a%2fb" stays one element.
func below(base *url.URL, names ...string) *url.URL {
	var escaped []string
	for _, name := range names {
		for part := range strings.SplitSeq(name, "/") {
			escaped = append(escaped, url.PathEscape(part))
		}
	}
	return base.JoinPath(escaped...)
}

// checkItem refuses an item that no target may get.
func checkItem(what string, item Item) error {
	err := checkName("file name", item.File)
	if err == nil {
		err = checkName("artifact name", item.Name)
	}
	switch {
	case err != nil:
		return &PublishError{Outcome: OutcomeRefused, What: what, Why: err.Error(), Err: err}
	case !validSHA(item.SHA256):
		return &PublishError{Outcome: OutcomeRefused, What: what, Why: "its SHA-256 is not known"}
	case item.Size < 0:
		return &PublishError{Outcome: OutcomeRefused, What: what, Why: "its size is not known"}
	}
	return nil
}

// otherBytes is the refusal that keeps releases written once.
func otherBytes(what, place string) error {
	return &PublishError{
		Outcome: OutcomeRefused, What: what,
		Why:  "write-once: holds other bytes at " + place,
		Next: "A release is never overwritten: give the next build another version.",
	}
}
