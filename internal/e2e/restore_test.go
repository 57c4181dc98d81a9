package e2e

import (
	"archive/tar"
	"bytes"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/shuntcd/shunt/internal/api"
	"github.com/shuntcd/shunt/internal/delivery"
)

// petshop is the world's project.
const petshop = "shop"

// T76: a backup of build 2 is restored on another machine while the remote is at
// build 5. Nothing is tagged or deployed again, and the next number is above the
// remote's highest.
func TestAnOldBackupIsRestored(t *testing.T) {
	t.Parallel()
	w := newWorld(t, shop(nil))
	w.add(api.AddProject{InstallHook: true})
	w.promote(w.push("develop").Number)
	w.must(w.api.SetSecret(t.Context(), petshop, "NEXUS_PASSWORD", "canary-of-the-secret"))
	next := func(text string) int64 {
		w.write(map[string]string{"text": text})
		w.commit(text)
		return w.push("develop").Number
	}
	w.reach(next("two"), delivery.BuildWaiting)
	said := w.shunt("backup", "--data", w.data, "--to", w.at("backup.tar"))
	if !strings.Contains(said, "read back and verified") || !strings.Contains(said, "secret.key is not in it") {
		t.Error(said)
	}
	w.shunt("backup", "verify", w.at("backup.tar"))
	w.promote(2)
	w.promote(next("three"))
	w.reach(next("four"), delivery.BuildWaiting)
	w.shunt("reject", "4", "-m", "no")
	w.reach(next("five"), delivery.BuildWaiting)
	w.kill(syscall.SIGKILL)
	lost := w.runnerPID()
	w.must(syscall.Kill(lost, syscall.SIGKILL)) // the machine is gone
	tags, deploys := w.remote("for-each-ref", "refs/tags", "refs/heads/master"), w.journal("deploys")

	if out := w.shuntCode(1, "restore", w.at("backup.tar"), "--data", w.data); !strings.Contains(out, "is not empty") {
		t.Error(out)
	}
	old := w.data
	w.data = w.at("restored")
	if out := w.shunt("restore", w.at("backup.tar"), "--data", w.data); !strings.Contains(out, "Put secret.key back") {
		t.Error(out)
	}
	w.start()
	// T59: the key is not in the backup, and without it a secret stays one.
	if out := w.shunt("reconcile"); !strings.Contains(out, "NEXUS_PASSWORD cannot be read") {
		t.Error(out)
	}
	w.kill(syscall.SIGTERM)
	w.must(os.Rename(filepath.Join(old, "secret.key"), filepath.Join(w.data, "secret.key")))
	w.start()

	// It shows and does nothing.
	_, err := w.api.Decide(t.Context(), petshop, 2, api.Decide{Promote: true})
	if !delivery.IsKind(err, delivery.KindUnavailable) || !strings.Contains(err.Error(), "shunt reconcile") {
		t.Errorf("a decision was taken: %v", err)
	}
	w.write(map[string]string{"text": "six"})
	six := w.commit("six")
	if out := w.git("push", "origin", "develop"); strings.Contains(out, "build 3") {
		t.Error(out)
	}
	found := w.shunt("reconcile")
	for _, words := range []string{"Waiting since", "restored from the backup of", "build 3 (develop", "released by operator", "build 4 (develop", "build 2 is waiting in the database and becomes succeeded", "production is build 3", "the next build is 6, not 3", "develop is at " + six[:7]} {
		if !strings.Contains(found, words) {
			t.Errorf("reconcile does not say %q:\n%s", words, found)
		}
	}
	if strings.Contains(found, "NEXUS_PASSWORD") {
		t.Error(found)
	}
	w.shuntCode(2, "reconcile", "--confirm")
	list, err := w.api.Builds(t.Context(), petshop, api.BuildFilter{Limit: 10})
	w.must(err)
	if len(list) != 2 || list[0].Status != delivery.BuildWaiting {
		t.Errorf("while it waited it made %+v", list)
	}
	if now := w.remote("for-each-ref", "refs/tags", "refs/heads/master"); now != tags {
		t.Errorf("while it waited the remote became\n%s", now)
	}
	w.must(os.Rename(w.bare, w.bare+".away"))
	if out := w.shuntCode(1, "reconcile", "--confirm", "-m", "in a hurry"); !strings.Contains(out, "could not be compared") {
		t.Error(out)
	}
	w.must(os.Rename(w.bare+".away", w.bare))
	w.shunt("reconcile", "--confirm", "-m", "the machine burnt down")
	w.shuntCode(1, "reconcile", "--confirm", "-m", "twice")
	if out := w.shunt("reconcile"); !strings.Contains(out, "nothing to reconcile") {
		t.Error(out)
	}
	b := w.buildOf(six, "pushed while it waited")
	if b.Number != 6 {
		t.Errorf("the next build is %d", b.Number)
	}
	w.reach(6, delivery.BuildWaiting)
	for n, status := range map[int64]delivery.BuildStatus{1: delivery.BuildSucceeded, 2: delivery.BuildSucceeded, 3: delivery.BuildSucceeded, 4: delivery.BuildExpired, 5: delivery.BuildExpired} {
		w.reach(n, status)
	}
	p, err := w.api.Project(t.Context(), petshop)
	w.must(err)
	if p.Production == nil || p.Production.Build != 3 || p.Incident != "" {
		t.Errorf("production is %+v, incident %q", p.Production, p.Incident)
	}
	w.remote("tag", "--delete", "build/6")
	if now := w.remote("for-each-ref", "refs/tags", "refs/heads/master"); now != tags {
		t.Errorf("the remote was\n%s\nand is\n%s", tags, now)
	}
	if now := w.journal("deploys"); !slices.Equal(now, deploys) {
		t.Errorf("deployed were %q, now %q", deploys, now)
	}
}

// A backup that is taken while builds run holds every artifact that its database
// names, and no key, and a damaged one is refused.
func TestABackupUnderLoad(t *testing.T) {
	t.Parallel()
	w := newWorld(t, shop(nil))
	w.add(api.AddProject{InstallHook: true})
	w.must(w.api.SetSecret(t.Context(), petshop, "TOKEN", "canary-of-the-secret"))
	for i := range 8 {
		w.write(map[string]string{"text": strings.Repeat("x", i)})
		w.commit("load")
		n := w.push("develop").Number
		if i%2 == 0 {
			w.reach(n, delivery.BuildWaiting)
		}
		if out, code := w.command(w.dir, "", w.exe, "backup", "--data", w.data, "--to", w.at("backup-"+itoa(int64(i))+".tar")); code != 0 {
			t.Errorf("backup %d: %s", i, out)
		}
	}
	if left, _ := filepath.Glob(w.at(".*backup*")); left != nil {
		t.Errorf("left behind: %v", left)
	}
	w.shuntCode(1, "backup", "--data", w.data, "--to", w.at("backup-1.tar")) // never overwritten
	whole, err := os.ReadFile(w.at("backup-7.tar"))
	w.must(err)
	key, err := os.ReadFile(filepath.Join(w.data, "secret.key"))
	w.must(err)
	for _, secret := range []string{strings.TrimSpace(string(key)), "canary-of-the-secret"} {
		if bytes.Contains(whole, []byte(secret)) {
			t.Error("the backup holds a secret")
		}
	}
	// Standard tools read it.
	w.run(w.dir, "sh", "-c", "mkdir plain && tar -xf backup-7.tar -C plain && cd plain && sha256sum --check --quiet MANIFEST && test -s shunt.db && ! test -e secret.key && ls blobs/sha256/*/* published/*/* logs/*.log hooks/*.secret >/dev/null")
	// Cut, hurt in bytes of the database or of what stands first (the padding behind that holds nothing), or malicious: it shows.
	rows := bytes.Index(whole, []byte("SQLite format 3"))
	for _, hurt := range [][]byte{whole[:len(whole)/2], whole[:len(whole)-2048], flipped(whole, rows+1000), flipped(whole, 512+8), evil(t, whole)} {
		w.must(os.WriteFile(w.at("hurt.tar"), hurt, 0o600))
		if out := w.shuntCode(2, "backup", "verify", w.at("hurt.tar")); !strings.Contains(out, "cannot use backup") {
			t.Error(out)
		}
		w.shuntCode(2, "restore", w.at("hurt.tar"), "--data", w.at("never"))
		if _, err := os.Stat(w.at("never")); err == nil {
			t.Error("a damaged backup was laid out")
		}
	}
	if left, _ := filepath.Glob(w.at(".never*")); left != nil {
		t.Errorf("left behind: %v", left)
	}
}

func flipped(b []byte, at int) []byte {
	b = bytes.Clone(b)
	b[at] ^= 0xff
	return b
}

// evil is a backup with a member that would be written elsewhere.
func evil(t *testing.T, whole []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	from, to := tar.NewReader(bytes.NewReader(whole)), tar.NewWriter(&out)
	for first := true; ; first = false {
		h, err := from.Next()
		if err != nil {
			break
		}
		if first {
			if err := to.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "logs/../../elsewhere", Mode: 0o600, ModTime: time.Unix(1, 0)}); err != nil {
				t.Fatal(err)
			}
		}
		if err := to.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(to, from); err != nil {
			t.Fatal(err)
		}
	}
	if err := to.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// The disk is gone and there is no backup: the tags bring the record back, and a
// hotfix ships on it.
func TestRebuildFromGit(t *testing.T) {
	t.Parallel()
	w := newWorld(t, shop(nil))
	w.add(api.AddProject{InstallHook: true})
	w.promote(w.push("develop").Number)
	w.write(map[string]string{"text": "two"})
	w.commit("two")
	w.promote(w.push("develop").Number)
	was, err := w.api.Build(t.Context(), petshop, 2)
	w.must(err)
	if out := w.shuntCode(1, "rebuild", "--from-git", "--data", w.data, "--url", w.bare); !strings.Contains(out, "another Shunt server") {
		t.Error(out)
	}
	w.kill(syscall.SIGTERM)
	w.data = w.at("new")
	if out := w.shunt("rebuild", "--from-git", "--data", w.data, "--url", w.bare); !strings.Contains(out, "2 builds, production is build 2, the next is 3") {
		t.Error(out)
	}
	w.start()
	w.token = w.shunt("token", "create", "test", "--data", w.data)
	w.api = api.NewClient(w.url, w.token, &http.Client{Timeout: time.Minute})
	is, err := w.api.Build(t.Context(), petshop, 2)
	w.must(err)
	if is.Commit != was.Commit || is.Status != was.Status || len(is.Artifacts) != 1 || is.Artifacts[0].SHA256 != was.Artifacts[0].SHA256 || is.Gates[0].DecidedBy != "operator" {
		t.Errorf("build 2 came back as %+v", is)
	}
	w.git("fetch", "--quiet", "--tags")
	w.shunt("hotfix", "start", "cart")
	w.write(map[string]string{"text": "fixed"})
	w.commit("Fix the cart")
	w.git("push", "--quiet", "origin", "hotfix/cart")
	w.shunt("project", "list")
	_, err = w.api.Sync(t.Context(), petshop)
	w.must(err)
	b := w.buildOf(w.git("rev-parse", "HEAD"), "")
	if b.Number != 3 || b.Lane != delivery.LaneHotfix {
		t.Errorf("the hotfix is %+v", b)
	}
	w.promote(3)
	w.git("fetch", "--quiet", "--tags")
	w.shunt("verify", "production/3")
	if n := len(w.journal("deploys")); n != 3 {
		t.Errorf("deployed %d times", n)
	}
}
