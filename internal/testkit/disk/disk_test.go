package disk

import (
	"errors"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func mount(t *testing.T, model Model, judge func(Op) Verdict) (*Disk, string) {
	t.Helper()
	dir := t.TempDir()
	d, err := Mount(dir, model, judge)
	if errors.Is(err, ErrCannot) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d, filepath.Join(dir, "data")
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func syncDir(t *testing.T, dir string) {
	t.Helper()
	f, err := os.Open(dir)
	must(t, err)
	must(t, f.Sync())
	must(t, f.Close())
}

func save(t *testing.T, file, text string, sync bool) {
	t.Helper()
	f, err := os.Create(file)
	must(t, err)
	_, err = f.WriteString(text)
	must(t, err)
	if sync {
		must(t, f.Sync())
	}
	must(t, f.Close())
}

func read(file string) string {
	b, err := os.ReadFile(file)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// What is synced is there after each cut; what is not may be, and is not always.
func TestAPowerCutTakesWhatWasNotSynced(t *testing.T) {
	t.Parallel()
	for _, model := range []Model{Ordered, Harsh} {
		lost := map[string]int{}
		for seed := range uint64(40) {
			d, dir := mount(t, model, nil)
			must(t, os.Mkdir(dir, 0o755))
			syncDir(t, filepath.Dir(dir))
			save(t, filepath.Join(dir, "kept"), "kept", true)
			syncDir(t, dir)
			save(t, filepath.Join(dir, "bytes"), "bytes", false)
			save(t, filepath.Join(dir, "new"), "new", true)
			must(t, os.Rename(filepath.Join(dir, "new"), filepath.Join(dir, "kept")))
			open, err := os.Open(filepath.Join(dir, "kept"))
			must(t, err)
			d.PowerCut(rand.New(rand.NewPCG(seed, 0)), func() {}, func() {
				if _, err := open.Read(make([]byte, 1)); err != nil && !errors.Is(err, syscall.EIO) {
					t.Error(err) // a page of the cache may still be read
				}
			})
			must(t, open.Close())
			switch got := read(filepath.Join(dir, "kept")); got {
			case "kept":
				lost["rename"]++
			case "new":
			default:
				t.Errorf("%s, seed %d: the file holds %q", model, seed, got)
			}
			switch got := read(filepath.Join(dir, "bytes")); {
			case got == "bytes":
			case got == "" && model == Ordered:
				lost["bytes"]++
			case strings.Trim(got, "\x00bytes") == "":
				lost["bytes"]++
			case strings.Contains(got, "no such file"):
				lost["name"]++
			default:
				t.Errorf("%s, seed %d: the file holds %q", model, seed, got)
			}
			must(t, os.WriteFile(filepath.Join(dir, "again"), []byte("x"), 0o600))
		}
		for _, what := range []string{"rename", "bytes", "name"} {
			never := model == Ordered && what == "name" // the sync of a later file kept it
			if n := lost[what]; n == 40 || (n == 0) != never {
				t.Errorf("%s: the %s was lost in %d of 40 cuts", model, what, n)
			}
		}
	}
}

// The judge refuses, and the disk does as if the op had not been asked for.
func TestTheJudgeRefuses(t *testing.T) {
	t.Parallel()
	var full Kind
	d, dir := mount(t, Ordered, func(op Op) Verdict {
		if op.Kind == full && strings.HasSuffix(op.Path, "/data/a") {
			return Verdict{Errno: syscall.ENOSPC}
		}
		return Verdict{}
	})
	must(t, os.Mkdir(dir, 0o755))
	file := filepath.Join(dir, "a")
	for _, full = range []Kind{Create, Write, Sync, Rename, Unlink, Truncate} {
		if full == Write {
			save(t, file, "", true)
		}
		f, err := os.OpenFile(file, os.O_CREATE|os.O_RDWR, 0o600)
		if err == nil {
			_, err = f.WriteString("x")
		}
		if err == nil {
			err = f.Sync()
		}
		if f != nil {
			must(t, f.Close())
		}
		if err == nil {
			err = os.Truncate(file, 1)
		}
		if err == nil {
			err = os.Rename(file, file+"b")
		}
		if err == nil {
			must(t, os.Rename(file+"b", file))
			err = os.Remove(file)
		}
		if !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("%s: %v", full, err)
		}
	}
	full = ""
	must(t, os.WriteFile(file, []byte("whole"), 0o600))
	to := filepath.Join(t.TempDir(), "dump")
	must(t, d.Dump(t.Context(), to))
	if got := read(filepath.Join(to, "data", "a")); got != "whole" {
		t.Errorf("the dump holds %q", got)
	}
}

// A socket can be listened on, and links work: the runner and git need them.
func TestSocketsAndLinks(t *testing.T) {
	t.Parallel()
	_, dir := mount(t, Harsh, nil)
	must(t, os.MkdirAll(filepath.Join(dir, "a", "b"), 0o755))
	l, err := net.Listen("unix", filepath.Join(dir, "sock"))
	must(t, err)
	go func() {
		if c, err := l.Accept(); err == nil {
			_ = c.Close()
		}
	}()
	c, err := net.Dial("unix", filepath.Join(dir, "sock"))
	must(t, err)
	must(t, c.Close())
	must(t, l.Close())
	save(t, filepath.Join(dir, "a", "f"), "text", false)
	must(t, os.Link(filepath.Join(dir, "a", "f"), filepath.Join(dir, "a", "g")))
	must(t, os.Symlink("a/g", filepath.Join(dir, "link")))
	if got := read(filepath.Join(dir, "link")); got != "text" {
		t.Errorf("through the link: %q", got)
	}
	must(t, os.RemoveAll(filepath.Join(dir, "a")))
	if err := os.Remove(dir); !errors.Is(err, syscall.ENOTEMPTY) {
		t.Errorf("removed a directory that is not empty: %v", err)
	}
}
