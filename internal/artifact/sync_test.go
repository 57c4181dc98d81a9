package artifact

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// A blob is on the disk, and so is its name, before Put answers. Nobody sees that
// but the kernel: strace watches a second run of this test, which puts one blob.
func TestPutIsDurable(t *testing.T) {
	t.Parallel()
	if dir := os.Getenv("SHUNT_TEST_PUT"); dir != "" {
		s, err := NewStore(dir)
		if err != nil {
			t.Fatal(err)
		}
		sha, _, err := s.Put(t.Context(), bytes.NewReader([]byte("bytes")))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(filepath.Join(dir, "sha256", sha[:2], sha)); err != nil { // marks the answer in the trace
			t.Fatal(err)
		}
		return
	}
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Skip("strace is not installed: apt-get install strace")
	}
	dir, log := t.TempDir(), filepath.Join(t.TempDir(), "trace")
	cmd := exec.Command(strace, "-f", "-y", "-qq", "-e", "trace=fsync,fdatasync,rename,renameat,renameat2,unlink,unlinkat", "-o", log, os.Args[0], "-test.run", "^TestPutIsDurable$")
	cmd.Env = append(os.Environ(), "SHUNT_TEST_PUT="+dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		if bytes.Contains(out, []byte("ptrace")) {
			t.Skipf("strace may not watch here: %s", out)
		}
		t.Fatalf("%v\n%s", err, out)
	}
	trace, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	// In this order: the bytes, the new directory's name, the rename, the blob's
	// name, the answer.
	rest := string(trace)
	for _, step := range []string{"fsync(", "/tmp/put-", "fsync(", "/sha256>", "rename", "/sha256/", "fsync(", "/sha256/", "unlink", "/sha256/"} {
		_, after, found := strings.Cut(rest, step)
		if !found {
			t.Fatalf("there is no %q where it belongs:\n%s", step, trace)
		}
		rest = after
	}
}
