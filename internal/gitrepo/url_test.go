package gitrepo

import (
	"encoding/base64"
	"net"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/shuntcd/shunt/internal/delivery"
)

func goodURLs() []string {
	return []string{
		"https://example.org/a/b.git", "https://user:tok%40en@example.org:8443/a.git", "https://ghp_abc@github.com/o/r",
		"ssh://git@example.org/a.git", "ssh://git@example.org:2222/~me/a.git", "git@example.org:team/a.git", "git@[::1]:a.git",
		"http://localhost:3000/a.git", "http://127.0.0.1/a", "http://[::1]:80/a", "ssh://example.org/a",
	}
}

// badURLs are refused whether local or not.
func badURLs(marker string) []string {
	return []string{
		// T03
		"", "ext::sh -c touch% " + marker, "ext::sh -c 'touch " + marker + "'", "fd::7", "ssh::git@h/x", "a+b::x",
		"ssh://-oProxyCommand=touch${IFS}" + marker + "/y", "ssh://git@-oProxyCommand=touch${IFS}" + marker + "/y", "ssh://-u@h/y",
		"--upload-pack=x", "-x", "-oProxyCommand=x@h:y", "git@-oProxyCommand=x:y", "git@h:-x", "git@h:/-x", "https://h/-x", "https://h/%2dx", "ssh://h/-x",
		"git://example.org/x", "ftp://example.org/x", "git+ssh://h/x", "HTTPS://example.org/x", "javascript:alert(1)", "data:x", "//evil/x", "rsync://h/x",
		"http://example.org/a", "http://localhost.evil.org/a", "http://127.0.0.1.evil.org/a", "http://169.254.169.254/a", "http://[::ffff:8.8.8.8]/",
		// T04
		"https://h%0d%0ahost=good/", "https://h/a%0d%0ahost=good", "https://h/a%0Ahost=good", "https://h/a\nhost=good", "https://h/a\rb", "https://h/\x00", "https://h/a%00",
		"https://u%0a:p@h/a", "https://u:p%0a@h/a", "https://good@evil@h/a", "https://good:x@y@h/a", "https://a%40good@h/a", "https://@h/a", "https://h\\@evil/a",
		"https://h/a?x=1", "https://h/a#x", "https://h/a?", "https:///a", "https://h", "https://h/", "https://h:x/a", "https://h:/a", "https:h/a", "https://h/../a", "https://h/a%7fb",
		"ssh://git:secret@h/a", "host:path", "a b@h:x", "git@h:a b", "https://h/a b", "git@h", "relative/path", "./x", "../x", "~/x",
		"\xff\xfe", "https://h/" + strings.Repeat("a", maxURL), "https://h/\u0085a", "https://h/\u2028a",
		"file://host/etc", "file:relative", "file:///etc%2fpasswd", "/", "/a/../b", "/a//b", "//a",
	}
}

func TestT03T04CheckURL(t *testing.T) {
	t.Parallel()
	for _, u := range goodURLs() {
		if err := CheckURL(u, false); err != nil {
			t.Errorf("%q: %v", u, err)
		}
	}
	for _, u := range badURLs("/tmp/marker") {
		for _, local := range []bool{false, true} {
			if err := CheckURL(u, local); !delivery.IsKind(err, delivery.KindInvalid) {
				t.Errorf("%q (local %t): %v", u, local, err)
			}
		}
	}
	for _, u := range []string{"/srv/git/a.git", "/srv/git/a.git/", "file:///srv/git/a.git", "/srv/my repos/a"} {
		if err := CheckURL(u, true); err != nil {
			t.Errorf("%q: %v", u, err)
		}
		if err := CheckURL(u, false); !delivery.IsKind(err, delivery.KindInvalid) {
			t.Errorf("%q is not local: %v", u, err)
		}
	}
}

func FuzzCheckURL(f *testing.F) {
	for _, u := range append(goodURLs(), badURLs("/tmp/marker")...) {
		f.Add(u)
	}
	f.Fuzz(func(t *testing.T, u string) {
		if CheckURL(u, false) != nil {
			return
		}
		r := &Repo{}
		r.remote(u, false)
		if strings.HasPrefix(r.url, "-") || strings.ContainsAny(r.url, "\n\r\x00") || r.url == "" || r.invalid != nil || r.path != "" {
			t.Errorf("%q became %q", u, r.url)
		}
	})
}

func TestT03BadURLStartsNoProcess(t *testing.T) {
	t.Parallel()
	s := newShim(t)
	f := newFixture(t, func(c *Config) { c.Bin = s.bin })
	marker := filepath.Join(f.dir, "marker")
	for _, u := range append(badURLs(marker), f.remote) {
		r := f.git.Repo("petstore", u, false)
		id := f.ids["base"]
		_, err := r.Fetch(t.Context())
		_, err2 := r.RemoteRefs(t.Context())
		_, err3 := r.Commit(t.Context(), id)
		_, _, err4 := r.Diff(t.Context(), "", id, 10)
		_, _, _, err5 := r.ReadTag(t.Context(), id)
		_, err6 := r.MakeTag(t.Context(), "x", id, message())
		_, err7 := r.MergeCommit(t.Context(), id, nil, message())
		_, err8 := r.PatchIDs(t.Context(), []string{id}, nil)
		_, err9 := r.ReadFile(t.Context(), id, "x", 1)
		for i, err := range []error{
			err, err2, err3, err4, err5, err6, err7, err8, err9, r.Ensure(t.Context()), r.Push(t.Context(), []RefUpdate{{Ref: "refs/tags/x", New: id}}),
			r.Checkout(t.Context(), CheckoutSpec{Dir: filepath.Join(f.dir, "w"), Commit: id}), r.InstallHook(t.Context(), "#!/bin/sh\n"), r.Maintain(t.Context()),
		} {
			if !delivery.IsKind(err, delivery.KindInvalid) {
				t.Errorf("%q, call %d: %v", u, i+1, err)
			}
		}
	}
	if calls := s.calls(t); len(calls) > 0 || exists(marker) {
		t.Errorf("git ran: %q", calls)
	}
}

// gitServer serves the fixture's remote over http and wants a login.
func gitServer(t *testing.T, f *fixture, user, password string) (*httptest.Server, *atomic.Int64) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), realGit(t), "--exec-path").Output()
	if err != nil {
		t.Fatal(err)
	}
	f.run(f.remote, nil, "config", "http.receivepack", "true")
	backend := &cgi.Handler{
		Path: filepath.Join(strings.TrimSpace(string(out)), "git-http-backend"),
		Env:  []string{"GIT_PROJECT_ROOT=" + f.dir, "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_NOSYSTEM=1", "HOME=" + f.dir},
	}
	var refused atomic.Int64
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if u, p, _ := req.BasicAuth(); u != user || p != password {
			refused.Add(1)
			w.Header().Set("WWW-Authenticate", "Basic realm=x")
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		backend.ServeHTTP(w, req)
	}))
	t.Cleanup(srv.Close)
	return srv, &refused
}

func TestCredentialsOfAURL(t *testing.T) {
	t.Parallel()
	s := newShim(t)
	f := newFixture(t, func(c *Config) { c.Bin = s.bin })
	const secret = "s3cr@t/canary"
	srv, refused := gitServer(t, f, "bot", secret)
	withLogin := func(login string) string { return strings.Replace(srv.URL, "://", "://"+login+"@", 1) + "/remote.git" }
	r := f.git.Repo("web", withLogin("bot:s3cr%40t%2Fcanary"), false)
	refs, err := r.Fetch(t.Context())
	if err != nil || refs["refs/heads/develop"] != f.ids["dev2"] {
		t.Fatalf("refs %v, error %v", refs, err)
	}
	if refused.Load() != 0 {
		t.Error("the login is not sent at once")
	}
	if err := r.Push(t.Context(), []RefUpdate{{Ref: "refs/tags/x", New: f.ids["dev2"]}}); err != nil {
		t.Error(err)
	}
	dir := filepath.Join(f.dir, "w")
	if err := r.Checkout(t.Context(), CheckoutSpec{Dir: dir, Commit: f.ids["dev2"]}); err != nil {
		t.Fatal(err)
	}
	if config := read(t, filepath.Join(dir, ".git/config")); strings.Contains(config, "canary") || strings.Contains(config, "bot") || !strings.Contains(config, srv.URL+"/remote.git") {
		t.Error(config)
	}
	basic := base64.StdEncoding.EncodeToString([]byte("bot:" + secret))
	for _, call := range s.calls(t) {
		if all := strings.Join(call, " "); strings.Contains(all, "canary") || strings.Contains(all, basic) {
			t.Errorf("a credential is on the command line: %s", all)
		}
	}

	_, err = f.git.Repo("wrong", withLogin("bot:wrongcanary"), false).Fetch(t.Context())
	if !delivery.IsKind(err, delivery.KindUnavailable) || strings.Contains(allOf(err), "wrongcanary") {
		t.Errorf("error %s", allOf(err))
	}
	_, err = f.git.Repo("token", withLogin("tokencanary"), false).Fetch(t.Context())
	if !delivery.IsKind(err, delivery.KindUnavailable) || strings.Contains(allOf(err), "tokencanary") {
		t.Errorf("error %s", allOf(err))
	}
}

// allOf is everything that an error could ever print.
func allOf(err error) string {
	var b strings.Builder
	for ; err != nil; err = unwrap(err) {
		b.WriteString(err.Error() + "\n")
	}
	return b.String()
}

func unwrap(err error) error {
	if u, ok := err.(interface{ Unwrap() error }); ok {
		return u.Unwrap()
	}
	return nil
}

func TestT04CredentialsStayAtTheirHost(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	var foreign atomic.Int64
	evil := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		foreign.Add(1)
		w.WriteHeader(http.StatusUnauthorized)
	}))
	t.Cleanup(evil.Close)
	srv := httptest.NewServer(http.RedirectHandler(evil.URL+"/remote.git/info/refs?service=git-upload-pack", http.StatusFound))
	t.Cleanup(srv.Close)
	r := f.git.Repo("web", strings.Replace(srv.URL, "://", "://bot:canary@", 1)+"/remote.git", false)
	_, err := r.Fetch(t.Context())
	if !delivery.IsKind(err, delivery.KindInvalid) || !strings.Contains(err.Error(), "redirect") {
		t.Errorf("error %v", err)
	}
	if foreign.Load() != 0 {
		t.Error("a redirect was followed to another host")
	}
}

func TestPushWhoseAnswerIsLostIsUnknown(t *testing.T) {
	t.Parallel()
	f := fetched(t)
	srv, _ := gitServer(t, f, "bot", "x")
	// The push arrives in full and is done; then the line goes dead.
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		req.SetBasicAuth("bot", "x")
		if !strings.HasSuffix(req.URL.Path, "/git-receive-pack") {
			srv.Config.Handler.ServeHTTP(w, req)
			return
		}
		srv.Config.Handler.ServeHTTP(httptest.NewRecorder(), req)
		if conn, _, err := w.(http.Hijacker).Hijack(); err == nil {
			if tcp, ok := conn.(*net.TCPConn); ok {
				_ = tcp.SetLinger(0)
			}
			_ = conn.Close()
		}
	}))
	t.Cleanup(proxy.Close)
	r := f.git.Repo("petstore", proxy.URL+"/remote.git", false)
	tag := RefUpdate{Ref: "refs/tags/build/1", New: f.ids["dev2"]}
	_ = wantPush(t, r.Push(t.Context(), []RefUpdate{tag}), PushUnknown, delivery.KindUnavailable)
	if refs, err := r.RemoteRefs(t.Context(), tag.Ref); err != nil || refs[tag.Ref] != tag.New {
		t.Errorf("the probe says %v, %v", refs, err)
	}
	// The same push again finds it done and sends nothing.
	if err := r.Push(t.Context(), []RefUpdate{tag}); err != nil {
		t.Error(err)
	}
}
