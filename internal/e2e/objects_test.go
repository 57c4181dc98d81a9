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
	data := w.T.TempDir()
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
