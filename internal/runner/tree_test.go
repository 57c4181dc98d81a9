package runner

import (
	"archive/tar"
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

func TestATreeComesOverAsItIs(t *testing.T) {
	t.Parallel()
	from, to := t.TempDir(), filepath.Join(t.TempDir(), "to")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.MkdirAll(filepath.Join(from, "src", "ci"), 0o755))
	must(os.WriteFile(filepath.Join(from, "src", "ci", "build.sh"), []byte("#!/bin/sh\n"), 0o755))
	must(os.WriteFile(filepath.Join(from, "src", "caf\xe9 $(id)\n"), []byte("bytes"), 0o644))
	must(os.Symlink("/etc/passwd", filepath.Join(from, "src", "link")))
	must(os.Symlink("ci", filepath.Join(from, "src", "inner")))
	var b bytes.Buffer
	must(pack(from, &b))
	must(unpack(to, &b))
	info, err := os.Stat(filepath.Join(to, "src", "ci", "build.sh"))
	if err != nil || info.Mode().Perm() != 0o755 {
		t.Error(info, err)
	}
	if text, err := os.ReadFile(filepath.Join(to, "src", "caf\xe9 $(id)\n")); err != nil || string(text) != "bytes" {
		t.Error(text, err)
	}
	if target, err := os.Readlink(filepath.Join(to, "src", "link")); err != nil || target != "/etc/passwd" {
		t.Error(target, err)
	}
}

// T63: whoever could make up a tree still writes nothing outside of it.
func TestATreeLeadsNowhereElse(t *testing.T) {
	t.Parallel()
	for name, entries := range map[string][]tar.Header{
		"parent":       {{Name: "../out", Typeflag: tar.TypeReg}},
		"absolute":     {{Name: "/tmp/shunt-out", Typeflag: tar.TypeReg}},
		"symlink":      {{Name: "a", Linkname: "..", Typeflag: tar.TypeSymlink}, {Name: "a/out", Typeflag: tar.TypeReg}},
		"over symlink": {{Name: "a", Linkname: "../out", Typeflag: tar.TypeSymlink}, {Name: "a", Typeflag: tar.TypeReg}},
		"hard link":    {{Name: "a", Linkname: "/etc/passwd", Typeflag: tar.TypeLink}},
		"device":       {{Name: "a", Typeflag: tar.TypeChar}},
		"fifo":         {{Name: "a", Typeflag: tar.TypeFifo}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			var b bytes.Buffer
			w := tar.NewWriter(&b)
			for _, h := range entries {
				h.Mode = 0o644
				if err := w.WriteHeader(&h); err != nil {
					t.Fatal(err)
				}
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			if err := unpack(filepath.Join(dir, "in"), &b); err == nil {
				t.Error("it was taken")
			}
			if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
				t.Error(entries, err)
			}
		})
	}
}
