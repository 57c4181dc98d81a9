package e2e

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/shuntcd/shunt/internal/api"
	"github.com/shuntcd/shunt/internal/delivery"
	"github.com/shuntcd/shunt/internal/testkit/s3"
)

// artifact reads an artifact of a build.
func (w *world) artifact(number int64, name string) string {
	w.Helper()
	r, err := w.api.Artifact(w.Context(), w.project, number, name)
	w.must(err)
	defer r.Close()
	b, err := io.ReadAll(r)
	w.must(err)
	return string(b)
}

// talks is a build script that says something before and after it waits.
var talks = map[string]string{"ci/build.sh": "#!/bin/sh\nset -eu\necho the first word\n" + waits("build") + "mkdir -p out\necho the bytes >out/app.txt\necho the last word\n"}

// Two servers keep logs and artifacts in one object store. The second shows the
// log of a job that the first drives while it runs; the object store dies, and
// the build only waits; the first server is stopped, and the second shows all
// that it did, and ships it.
func TestTwoServersShareAnObjectStore(t *testing.T) {
	t.Parallel()
	objects := s3.Start(t)
	a := newCluster(t, shop(talks), "--objects", objects.URL("shop"))
	a.add(api.AddProject{InstallHook: true})
	build := a.push("develop")
	a.await("build-begun")
	b := a.join("serve", "b", "--objects", objects.URL("shop"))
	b.until("the other server shows the log of a job that runs", func() bool {
		return strings.Contains(b.log(build.Number, "job/build"), "the first word")
	})

	objects.Kill()
	a.allow("build-go")
	a.until("the result waits for the log", func() bool {
		log, err := os.ReadFile(a.at("server.log"))
		return err == nil && strings.Contains(string(log), "a result waits until the log can be stored")
	})
	if now, err := a.api.Build(t.Context(), a.project, build.Number); err != nil || now.Status != delivery.BuildRunning {
		t.Errorf("without an object store the build is %s: %v", now.Status, err)
	}
	objects.Run()
	a.reach(build.Number, delivery.BuildWaiting)
	log := a.log(build.Number, "job/build")

	a.kill(syscall.SIGTERM)
	if got := b.log(build.Number, "job/build"); got != log || !strings.Contains(got, "the last word") {
		t.Errorf("the other server shows another log:\n%s\n%s", got, log)
	}
	if got := b.artifact(build.Number, "app"); got != "the bytes\n" {
		t.Errorf("the other server has other bytes: %q", got)
	}
	if chunks, err := filepath.Glob(filepath.Join(objects.Dir, "shop", "logs", "*", "*")); err != nil || len(chunks) > 0 {
		t.Errorf("chunks of a log that has ended: %v %v", chunks, err)
	}
	b.promote(build.Number)
	b.shipped(build.Number, 1)

	for _, other := range [][]string{nil, {"--objects", objects.URL("elsewhere")}, {"--shared", t.TempDir()}} {
		b.refusedToStart("keeps them in the object store s3://bucket/shop", other...)
	}
}

// refusedToStart starts a further server, which must end with these words.
func (w *world) refusedToStart(words string, flags ...string) {
	w.Helper()
	data := w.TempDir()
	key, err := os.ReadFile(filepath.Join(w.data, "secret.key"))
	w.must(err)
	w.must(os.WriteFile(filepath.Join(data, "secret.key"), key, 0o600))
	args := append([]string{"serve", "--data", data, "--listen", freeAddress(w.T), "--cluster", freeAddress(w.T), w.flags[0], w.flags[1]}, flags...)
	if out := w.shuntCode(1, args...); !strings.Contains(out, words) {
		w.Errorf("serve %v says:\n%s", flags, out)
	}
}

// The same with a directory that both see.
func TestTwoServersShareADirectory(t *testing.T) {
	t.Parallel()
	shared := t.TempDir()
	a := newCluster(t, shop(talks), "--shared", shared)
	a.add(api.AddProject{InstallHook: true})
	build := a.push("develop")
	a.await("build-begun")
	b := a.join("serve", "b", "--shared", shared)
	b.until("the other server shows the log of a job that runs", func() bool {
		return strings.Contains(b.log(build.Number, "job/build"), "the first word")
	})
	a.allow("build-go")
	a.reach(build.Number, delivery.BuildWaiting)
	a.kill(syscall.SIGTERM)
	if got := b.log(build.Number, "job/build"); !strings.Contains(got, "the last word") {
		t.Errorf("the other server shows %s", got)
	}
	if got := b.artifact(build.Number, "app"); got != "the bytes\n" {
		t.Errorf("the other server has other bytes: %q", got)
	}
	b.promote(build.Number)
	b.shipped(build.Number, 1)
	b.refusedToStart("keeps them in the shared directory "+shared, "--shared", t.TempDir())
}

// One server on SQLite with an object store: a backup says where the artifacts
// are, notices a lost one, and what is restored starts only on the same store.
func TestBackupWithAnObjectStore(t *testing.T) {
	t.Parallel()
	objects := s3.Start(t)
	w := newWorld(t, shop(nil), "--objects", objects.URL("shop"))
	w.add(api.AddProject{InstallHook: true})
	build := w.push("develop")
	w.promote(build.Number)
	sha := w.reach(build.Number, delivery.BuildSucceeded).Artifacts[0].SHA256
	file := w.at("backup.tar")
	if out := w.shunt("backup", "--data", w.data, "--to", file); !strings.Contains(out, "they are in the object store s3://bucket/shop") {
		t.Errorf("backup says %s", out)
	}
	if out := w.shunt("backup", "verify", file); !strings.Contains(out, "kept in the object store") {
		t.Errorf("verify says %s", out)
	}
	if out := w.run(w.dir, "tar", "-xOf", file, "ELSEWHERE"); !strings.Contains(out, "blobs/"+sha) || !strings.Contains(out, "published/shop/") || !strings.Contains(out, "-job-build-1.log") {
		t.Errorf("the backup names %s", out)
	}
	if out := w.run(w.dir, "tar", "-tf", file); strings.Contains(out, "blobs/") || strings.Contains(out, "logs/") {
		t.Errorf("the cache is in the backup: %s", out)
	}

	w.kill(syscall.SIGKILL)
	key, err := os.ReadFile(filepath.Join(w.data, "secret.key"))
	w.must(err)
	w.must(os.RemoveAll(w.data))
	w.shunt("restore", file, "--data", w.data)
	w.must(os.WriteFile(filepath.Join(w.data, "secret.key"), key, 0o600))
	if out := w.shuntCode(1, "serve", "--data", w.data, "--listen", freeAddress(t)); !strings.Contains(out, "this installation keeps them in the object store") {
		t.Errorf("without its object store it says %s", out)
	}
	w.start()
	w.shunt("reconcile", "--confirm", "-m", "the disk burnt")
	if got := w.artifact(build.Number, "app"); !strings.Contains(got, "first") {
		t.Errorf("restored, the artifact is %q", got)
	}
	if got := w.log(build.Number, "job/build"); !strings.Contains(got, "step 1") {
		t.Errorf("restored, the log is %q", got)
	}

	w.must(os.Remove(filepath.Join(objects.Dir, "shop", "blobs", sha)))
	if out := w.shuntCode(1, "backup", "--data", w.data, "--to", w.at("late.tar")); !strings.Contains(out, "lost before this backup: the artifact with sha256 "+sha) {
		t.Errorf("a lost artifact: %s", out)
	}
}
