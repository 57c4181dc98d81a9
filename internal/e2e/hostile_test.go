package e2e

import (
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shuntcd/shunt/internal/api"
	"github.com/shuntcd/shunt/internal/delivery"
)

// Names, messages, files and logs that an attacker chose go through the whole
// hotfix lane: nothing of them is run, expanded or shown as markup, and the
// scripts see the very bytes.
func TestHostileNamesPassThroughTheWholeLane(t *testing.T) {
	t.Parallel()
	w := newWorld(t, shop(map[string]string{
		".shunt.yml": strings.NewReplacer("publish:\n  app: { files: true }\n", "", "out/app.txt", `"out/*"`, "    steps: [{ run: ./ci/build.sh }]\n", "    steps: [{ run: ./ci/build.sh }]\n    reports: { junit: report.xml }\n").Replace(shop(nil)[".shunt.yml"]),
		"ci/build.sh": `#!/bin/sh
set -eu
printf '%s\n' "$SHUNT_BRANCH" >>@DIR@/branches
printf '%s\n' "$GIT_BRANCH" >>@DIR@/branches
mkdir -p out
cat text >'out/--help;$(touch MARKER)<img src=x onerror=alert(2)>"x".txt'
echo '<script>alert(3)</script> {{.Secret}}'
printf '\033]8;;javascript:alert(4)\033\\click\033]8;;\033\\ \033]52;c;ZXZpbA==\007 \033[2J \2331m\rover\n'
cat >report.xml <<'END'
<testsuite name="x" tests="1"><testcase classname="&lt;script&gt;alert(5)&lt;/script&gt;" name="$(touch MARKER)" time="0"/></testsuite>
END
`,
	}), "--poll", "1s")
	marker := w.at("MARKER")
	w.add(api.AddProject{})
	w.git("push", "--quiet", "origin", "develop")
	w.promote(w.buildOf(w.git("rev-parse", "HEAD"), "").Number)
	browser := w.signIn()

	for i, name := range []string{
		"--upload-pack=touch${IFS}" + marker,
		"--output=" + marker,
		"-foo",
		"$(touch${IFS}" + marker + ")",
		"`touch${IFS}" + marker + "`",
		"a;touch${IFS}" + marker + ";",
		"a|touch${IFS}" + marker,
		`x"y'z`,
		"{{.Secret}}",
		"<script>alert(1)</script>",
		"\u202egnp.exe",
	} {
		branch := "hotfix/" + name
		w.git("fetch", "--quiet", "--tags", "origin")
		w.git("switch", "--quiet", "--detach", "origin/master")
		w.write(map[string]string{"text": name + "\n"})
		w.git("config", "user.name", "Eve $(touch MARKER) \"; "+name)
		commit := w.commit("<script>alert(1)</script> {{.Secret}} $(touch " + marker + ") \x1b]0;evil\x07\n\nShunt-Lane: main\nShunt-Artifact: app sha256:00\n")
		w.git("push", "--quiet", "origin", "HEAD:refs/elsewhere/"+itoa(int64(i)))
		w.remote("update-ref", "refs/heads/"+branch, commit)
		if i%2 == 0 {
			w.deliver(itoa(int64(i)), `{"ref":"refs/heads/evil"}`)
		} // else it is found by polling
		b := w.buildOf(commit, branch)
		if b.Lane != delivery.LaneHotfix || !strings.HasPrefix(b.Branch, "hotfix/") {
			t.Fatalf("build %d of %q is on the %s lane", b.Number, b.Branch, b.Lane)
		}
		gate := w.reach(b.Number, delivery.BuildWaiting).Gates[0]
		for _, page := range []string{"/a/" + gate.ID, "/" + w.project + "/" + itoa(b.Number), "/" + w.project, "/", "/" + w.project + "/" + itoa(b.Number) + "/log/job/build", "/" + w.project + "/hotfixes", "/" + w.project + "/audit", "/mail"} {
			w.harmless(browser, page, page == "/a/"+gate.ID)
		}
		w.shunt("promote", itoa(b.Number), "-m", "<script>alert(6)</script>\x1b[31m")
		w.harmless(browser, "/a/"+gate.ID, false)
		w.shipped(b.Number, 2+i)
		if seen := w.journal("branches"); len(seen) != 2*(i+2) || seen[2*i+2] != branch || seen[2*i+3] != branch {
			t.Errorf("the script saw the branches %q, want %q", seen[2*i+2:], branch)
		}
		for _, kind := range []string{"build", "production"} {
			tag := w.remote("cat-file", "tag", kind+"/"+itoa(b.Number))
			if strings.Count(tag, "\nShunt-Lane: ") != 1 || !strings.Contains(tag, "\nShunt-Lane: hotfix\n") || strings.Contains(tag, "sha256:00\n") {
				t.Errorf("the tag says\n%s", tag)
			}
		}
		for _, at := range []string{marker, filepath.Join(w.dir, "*", "MARKER"), filepath.Join(w.dir, "*", "*", "MARKER"), filepath.Join(w.dir, "*", "*", "*", "*", "MARKER"), "MARKER"} {
			if found, err := filepath.Glob(at); err != nil || len(found) > 0 {
				t.Fatalf("%q ran something: %v %v", branch, found, err)
			}
		}
	}
}

// signIn is a browser that followed the one-time link.
func (w *world) signIn() *http.Client {
	w.Helper()
	link, err := url.Parse(w.shunt("login-link", "--data", w.data))
	w.must(err)
	jar, err := cookiejar.New(nil)
	w.must(err)
	browser := &http.Client{Jar: jar}
	resp, err := browser.PostForm(w.url+"/login", url.Values{"once": {link.Query().Get("once")}})
	w.must(err)
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK || len(jar.Cookies(link)) == 0 {
		w.Fatalf("signing in is answered %s", resp.Status)
	}
	return browser
}

// harmless fetches a page and looks for markup and control characters that came
// from outside.
func (w *world) harmless(browser *http.Client, page string, shows bool) {
	w.Helper()
	resp, err := browser.Get(w.url + page)
	w.must(err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	w.must(err)
	body := string(b)
	if resp.StatusCode != http.StatusOK {
		w.Errorf("%s is answered %s\n%s", page, resp.Status, body)
	}
	for _, evil := range []string{"<script>alert", "<img src=x", "href=\"javascript:", "\x9b1m", "\x1b", "\x07", "\u202e"} {
		if i := strings.Index(body, evil); i >= 0 {
			w.Errorf("%s has %q:\n%s", page, evil, body[max(0, i-200):min(len(body), i+200)])
		}
	}
	if shows && !strings.Contains(body, "&lt;script&gt;alert(1)") {
		w.Errorf("%s does not show the commit's message:\n%s", page, body)
	}
}
