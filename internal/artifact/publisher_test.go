package artifact_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shuntcd/shunt/internal/artifact"
	"github.com/shuntcd/shunt/internal/delivery"
	"github.com/shuntcd/shunt/internal/testkit/nexus"
)

const secret = "s3cr3t-pa55"

func item(content string) artifact.Item {
	return artifact.Item{
		Name: "app", File: "petstore.tar.gz", SHA256: digest(content), Size: int64(len(content)),
		Open: func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(content)), nil },
	}
}

func publisher(t *testing.T, target artifact.Target) artifact.Publisher {
	t.Helper()
	transport := &http.Transport{ExpectContinueTimeout: time.Second}
	t.Cleanup(transport.CloseIdleConnections)
	p, err := artifact.NewPublisher(target, &http.Client{Transport: transport}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// outcome is what an error says about a push: done when it is nil.
func outcome(t *testing.T, err error) artifact.Outcome {
	t.Helper()
	if err == nil {
		return artifact.OutcomeDone
	}
	e, ok := errors.AsType[*artifact.PublishError](err)
	if !ok {
		t.Fatalf("not a PublishError: %v", err)
	}
	if strings.Contains(fmt.Sprint(err, errors.Unwrap(err)), secret) {
		t.Errorf("the error tells the password: %v", err)
	}
	return e.Outcome
}

// double starts a double of Nexus and returns a target in it.
func double(t *testing.T, o nexus.Options) (*nexus.Server, artifact.Target) {
	t.Helper()
	d := nexus.New(o)
	server := httptest.NewServer(d)
	t.Cleanup(server.Close)
	t.Cleanup(d.Close)
	return d, artifact.Target{
		Kind: artifact.KindNexus, URL: server.URL, Repository: "releases", Format: "maven2",
		Coordinates: "org.example:petstore:1.0.43:tar.gz", User: "ci", Password: secret,
	}
}

func ci() nexus.Options {
	return nexus.Options{Users: []nexus.User{
		{Name: "ci", Password: secret, Write: true},
		{Name: "uploader", Password: secret, Write: true, NoBrowse: true, NoRead: true},
		{Name: "reader", Password: secret},
	}}
}

const assetPath = "org/example/petstore/1.0.43/petstore-1.0.43.tar.gz"

// The contract of a write-once repository; it runs against the double, and
// against a real Nexus 3 when SHUNT_TEST_NEXUS_URL names one.
func TestNexusContract(t *testing.T) {
	t.Parallel()
	targets := map[string]func(t *testing.T) artifact.Target{
		"double": func(t *testing.T) artifact.Target {
			t.Helper()
			_, target := double(t, ci())
			return target
		},
		"double, index lags": func(t *testing.T) artifact.Target {
			t.Helper()
			o := ci()
			o.SearchLags = true
			_, target := double(t, o)
			return target
		},
		"double, raw": func(t *testing.T) artifact.Target {
			t.Helper()
			_, target := double(t, ci())
			target.Repository, target.Format, target.Coordinates, target.Directory = "raw", "raw", "", "petstore/43"
			return target
		},
	}
	if real := os.Getenv("SHUNT_TEST_NEXUS_URL"); real != "" {
		targets["real"] = func(*testing.T) artifact.Target {
			return artifact.Target{
				Kind: artifact.KindNexus, URL: real, Repository: os.Getenv("SHUNT_TEST_NEXUS_REPOSITORY"), Format: "maven2",
				Coordinates: "org.example:shunt-test:1.0." + rand.Text() + ":tar.gz:it",
				User:        os.Getenv("SHUNT_TEST_NEXUS_USER"), Password: os.Getenv("SHUNT_TEST_NEXUS_PASSWORD"),
			}
		}
	}
	for name, target := range targets {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := publisher(t, target(t))
			if err := p.Preflight(t.Context()); err != nil {
				t.Fatal(err)
			}
			ours, theirs := item("our bytes"), item("their bytes, which are others")
			if _, found, err := p.Probe(t.Context(), ours); found || err != nil {
				t.Fatalf("Probe before: %v, %v", found, err)
			}
			first, err := p.Publish(t.Context(), ours)
			if err != nil || first.SHA256 != ours.SHA256 || !strings.HasPrefix(first.URL, "http") {
				t.Fatalf("Publish: %+v, %v", first, err)
			}
			if again, err := p.Publish(t.Context(), ours); err != nil || again != first {
				t.Errorf("Publish again: %+v, %v", again, err)
			}
			if probed, found, err := p.Probe(t.Context(), ours); err != nil || !found || probed != first {
				t.Errorf("Probe after: %+v, %v, %v", probed, found, err)
			}
			if _, err := p.Publish(t.Context(), theirs); outcome(t, err) != artifact.OutcomeRefused || !strings.Contains(err.Error(), "write-once: holds other bytes") {
				t.Errorf("Publish others: %v", err)
			}
			if _, found, err := p.Probe(t.Context(), theirs); found || outcome(t, err) != artifact.OutcomeRefused {
				t.Errorf("Probe others: %v, %v", found, err)
			}
			same := item(strings.Repeat("x", len("our bytes"))) // only the digest differs
			if _, found, err := p.Probe(t.Context(), same); found || outcome(t, err) != artifact.OutcomeRefused {
				t.Errorf("Probe others of equal size: %v, %v", found, err)
			}
		})
	}
}

func TestNexusPathAndFields(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ coordinates, file, path string }{
		{"org.example:petstore:1.0.43:tar.gz", "petstore.tar.gz", assetPath},
		{"org.example:petstore:1.0.43", "petstore.tar.gz", assetPath},
		{"org.example:petstore:1.0.43:tar.gz:linux-amd64", "x", "org/example/petstore/1.0.43/petstore-1.0.43-linux-amd64.tar.gz"},
		{"g:a:1", "a.jar", "g/a/1/a-1.jar"},
		{"g:a:1", "README", "g/a/1/a-1.bin"},
	} {
		d, target := double(t, ci())
		target.Coordinates = c.coordinates
		i := item("bytes")
		i.File = c.file
		r, err := publisher(t, target).Publish(t.Context(), i)
		if err != nil {
			t.Fatal(err)
		}
		if got, ok := d.Get("releases", c.path); !ok || string(got) != "bytes" || r.URL != target.URL+"/repository/releases/"+c.path {
			t.Errorf("%s: %q, %v at %s", c.coordinates, got, ok, r.URL)
		}
	}
}

// F17: a lost answer is unknown until it is looked up, and nothing is uploaded twice.
func TestF17NexusFaults(t *testing.T) {
	t.Parallel()
	for fault, stored := range map[nexus.Fault]bool{
		nexus.Fault500Before: false, nexus.Fault500After: true, nexus.FaultHangBefore: false, nexus.FaultHangAfter: true,
		nexus.FaultResetBefore: false, nexus.FaultResetAfter: true,
	} {
		for _, lags := range []bool{false, true} {
			t.Run(fmt.Sprint(fault, ", index lags ", lags), func(t *testing.T) {
				t.Parallel()
				o := ci()
				o.SearchLags = lags
				d, target := double(t, o)
				d.Script(fault)
				p := publisher(t, target)
				ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
				defer cancel()
				if fault == nexus.FaultHangAfter || fault == nexus.FaultHangBefore {
					go func() { // give up when the upload has arrived
						for d.Posts() == 0 || stored && len(d.Journal()) == 0 {
							time.Sleep(time.Millisecond)
						}
						cancel()
					}()
				}
				_, err := p.Publish(ctx, item("bytes"))
				if outcome(t, err) != artifact.OutcomeUnknown {
					t.Fatalf("got %v, want unknown", err)
				}
				_, found, err := p.Probe(t.Context(), item("bytes"))
				if err != nil || found != stored {
					t.Errorf("Probe: %v, %v; stored: %v", found, err, stored)
				}
				if _, err := p.Publish(t.Context(), item("bytes")); err != nil {
					t.Errorf("the decision to try again: %v", err)
				}
				if n := len(d.Journal()); n != 1 {
					t.Errorf("stored %d times: %v", n, d.Journal())
				}
			})
		}
	}
}

func TestNexusSlowIsDone(t *testing.T) {
	t.Parallel()
	o := ci()
	o.SlowBy = 50 * time.Millisecond
	d, target := double(t, o)
	d.Script(nexus.FaultSlow)
	if _, err := publisher(t, target).Publish(t.Context(), item("bytes")); err != nil {
		t.Error(err)
	}
}

// A user who may not read cannot look before; then the 400 of the server guards.
func TestNexusUploadOnlyUser(t *testing.T) {
	t.Parallel()
	d, target := double(t, ci())
	target.User = "uploader"
	p := publisher(t, target)
	if err := p.Preflight(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := p.Publish(t.Context(), item("bytes")); err != nil {
		t.Error(err)
	}
	_, err := p.Publish(t.Context(), item("bytes"))
	if outcome(t, err) != artifact.OutcomeUnknown || !strings.Contains(err.Error(), "does not allow updating assets") {
		t.Errorf("a repeat that nobody can look up: %v", err)
	}
	if n := len(d.Journal()); n != 1 {
		t.Errorf("stored %d times", n)
	}
}

// Two servers race: one 204, one 400, both done.
func TestNexusRace(t *testing.T) {
	t.Parallel()
	d, target := double(t, ci())
	var wg sync.WaitGroup
	for range 4 {
		p := publisher(t, target)
		wg.Go(func() {
			if _, err := p.Publish(t.Context(), item("bytes")); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := len(d.Journal()); n != 1 {
		t.Errorf("stored %d times", n)
	}
}

func TestNexusRefusalsInWords(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change    func(*artifact.Target, *nexus.Server)
		publish   string // words of Publish; empty: it is not asked
		preflight string // words of Preflight; empty: it says yes
	}{
		"password":      {func(x *artifact.Target, _ *nexus.Server) { x.Password = secret + "x" }, "does not accept the user name and password (401)", "(401)"},
		"no right":      {func(x *artifact.Target, _ *nexus.Server) { x.User = "reader" }, "the user may not write there (403)", ""},
		"no repository": {func(x *artifact.Target, _ *nexus.Server) { x.Repository = "nope" }, "no such repository or address (404)", "no repository nope"},
		"snapshots":     {func(x *artifact.Target, _ *nexus.Server) { x.Repository = "snapshots" }, "Upload to snapshot repositories not supported", ""},
		"format":        {func(x *artifact.Target, _ *nexus.Server) { x.Repository = "raw" }, "(400)", "has the format raw"},
		"422":           {func(_ *artifact.Target, d *nexus.Server) { d.Script(nexus.FaultUnprocessable) }, "(422)", ""},
		"read-only":     {func(_ *artifact.Target, d *nexus.Server) { d.SetReadOnly(true) }, "read-only", "not writable"},
		"not Nexus":     {func(x *artifact.Target, _ *nexus.Server) { x.URL += "/elsewhere" }, "(404)", "no Nexus 3"},
		"away":          {func(x *artifact.Target, _ *nexus.Server) { x.URL = "http://127.0.0.1:1" }, "cannot be reached; nothing was sent", "cannot be reached"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d, target := double(t, ci())
			c.change(&target, d)
			p := publisher(t, target)
			err := p.Preflight(t.Context())
			if c.preflight == "" && err != nil || c.preflight != "" && (outcome(t, err) != artifact.OutcomeRefused || !strings.Contains(err.Error(), c.preflight)) {
				t.Errorf("Preflight: %v", err)
			}
			_, err = p.Publish(t.Context(), item("bytes"))
			if outcome(t, err) != artifact.OutcomeRefused || !strings.Contains(err.Error(), c.publish) {
				t.Errorf("Publish: %v", err)
			}
			if len(d.Journal()) != 0 {
				t.Errorf("stored: %v", d.Journal())
			}
		})
	}
}

// T65: bytes that are not the approved ones never become a whole upload.
func TestT65ChangedBytesAreNotPushed(t *testing.T) {
	t.Parallel()
	good := strings.Repeat("0123456789abcdef", 100_000)
	for name, content := range map[string]string{"flipped": good[:len(good)-1] + "F", "short": good[:1000], "empty": ""} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d, target := double(t, ci())
			i := item(good)
			i.Open = item(content).Open
			_, err := publisher(t, target).Publish(t.Context(), i)
			if outcome(t, err) != artifact.OutcomeRefused || !errors.Is(err, artifact.ErrMismatch) || len(d.Journal()) != 0 {
				t.Errorf("got %v, stored %v", err, d.Journal())
			}
		})
	}
	d, target := double(t, ci())
	if _, err := publisher(t, target).Publish(t.Context(), item(good)); err != nil {
		t.Error(err)
	}
	i := item("")
	i.SHA256 = digest("not empty")
	target.Coordinates = "g:a:1"
	if _, err := publisher(t, target).Publish(t.Context(), i); outcome(t, err) != artifact.OutcomeRefused || len(d.Journal()) != 1 {
		t.Errorf("got %v", err)
	}
}

// T63: names that are more than a name.
func TestT63HostileFileNames(t *testing.T) {
	t.Parallel()
	d, target := double(t, ci())
	raw := target
	raw.Repository, raw.Format, raw.Coordinates = "raw", "raw", ""
	store, dir := newStore(t)
	files, err := artifact.NewPublisher(artifact.Target{Kind: artifact.KindFiles, Directory: "petstore/43"}, nil, &artifact.Files{Dir: dir, Store: store})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{
		"", ".", "..", "../x", "../../etc/passwd", "/etc/passwd", `..\x`, `a\b`, "a/b", "a\x00b", "a\nb", "a\r\nX: y", "C:x", "x:stream", "-rf", ".hidden",
		"a?b", "a*b", `a"b`, "a|b", "<a>", "x ", " x", "x.", "a\u202eb", "\xff", strings.Repeat("x", 256),
	} {
		for _, p := range []artifact.Publisher{publisher(t, target), publisher(t, raw), files} {
			i := item("bytes")
			i.File = name
			if _, err := p.Publish(t.Context(), i); outcome(t, err) != artifact.OutcomeRefused {
				t.Errorf("%q: %v", name, err)
			}
			i.File, i.Name = "x", name
			if _, _, err := p.Probe(t.Context(), i); outcome(t, err) != artifact.OutcomeRefused {
				t.Errorf("%q: %v", name, err)
			}
		}
	}
	if d.Posts() != 0 {
		t.Error("a hostile name was sent")
	}
	for _, name := range []string{"größe 1.tar.gz", "a%2f..%2fb", "x'y;z$(id)`id`#&+=,~@!(){}[]"} { // odd, but only names
		i := item("bytes")
		i.File = name
		if _, err := publisher(t, raw).Publish(t.Context(), i); err != nil {
			t.Errorf("%q: %v", name, err)
		}
		if _, ok := d.Get("raw", name); !ok {
			t.Errorf("%q is elsewhere: %v", name, d.Journal())
		}
		if _, found, err := publisher(t, raw).Probe(t.Context(), i); err != nil || !found {
			t.Errorf("%q: %v, %v", name, found, err)
		}
	}
}

func TestTargetsThatCannotWork(t *testing.T) {
	t.Parallel()
	good := artifact.Target{Kind: artifact.KindNexus, URL: "https://nexus.example.org", Repository: "releases", Format: "maven2", Coordinates: "g:a:1"}
	for name, change := range map[string]func(*artifact.Target){
		"kind": func(x *artifact.Target) { x.Kind = "oci" }, "no kind": func(x *artifact.Target) { x.Kind = "" }, "files": func(x *artifact.Target) { x.Kind = "files" },
		"format": func(x *artifact.Target) { x.Format = "npm" }, "scheme": func(x *artifact.Target) { x.URL = "ftp://x/" }, "relative": func(x *artifact.Target) { x.URL = "//x/" },
		"password in URL": func(x *artifact.Target) { x.URL = "https://u:" + secret + "@x/" }, "broken URL": func(x *artifact.Target) { x.URL = "https://u:" + secret + "@x/%zz" },
		"query": func(x *artifact.Target) { x.URL = "https://x/?a" }, "dots": func(x *artifact.Target) { x.URL = "https://x/a/../b" }, "control": func(x *artifact.Target) { x.URL = "https://x/\r\n" },
		"repository": func(x *artifact.Target) { x.Repository = "../admin" }, "no repository": func(x *artifact.Target) { x.Repository = "" },
		"coordinates": func(x *artifact.Target) { x.Coordinates = "g:a" }, "six": func(x *artifact.Target) { x.Coordinates = "g:a:1:e:c:x" }, "empty part": func(x *artifact.Target) { x.Coordinates = "g::1" },
		"slash": func(x *artifact.Target) { x.Coordinates = "g/x:a:1" }, "up": func(x *artifact.Target) { x.Coordinates = "g:..:1" }, "snapshot": func(x *artifact.Target) { x.Coordinates = "g:a:1-SNAPSHOT" },
		"raw directory": func(x *artifact.Target) { x.Format, x.Directory = "raw", "a/../../b" }, "raw file": func(x *artifact.Target) { x.Kind, x.URL, x.Directory = "raw", "https://x/file", "dir" },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			target := good
			change(&target)
			_, err := artifact.NewPublisher(target, nil, nil)
			if !delivery.IsKind(err, delivery.KindInvalid) || strings.Contains(err.Error(), secret) {
				t.Errorf("got %v", err)
			}
		})
	}
	if _, err := artifact.NewPublisher(good, nil, nil); err != nil {
		t.Error(err)
	}
}
