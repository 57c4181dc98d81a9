package artifact

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/shuntcd/shunt/internal/delivery"
	"github.com/shuntcd/shunt/internal/testkit/s3"
)

func TestMain(m *testing.M) {
	s3.Setenv()
	os.Exit(m.Run())
}

func openObjects(t *testing.T, server *s3.Server, prefix string) *Objects {
	t.Helper()
	o, err := OpenObjects(server.URL(prefix))
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func getAll(t *testing.T, o *Objects, key string, offset int64) string {
	t.Helper()
	r, err := o.Get(t.Context(), key, offset)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// What is asked of every object store, asked of a real one.
func TestObjects(t *testing.T) {
	t.Parallel()
	server := s3.Start(t)
	o, ctx := openObjects(t, server, "shop/shunt"), t.Context()
	if err := o.Check(ctx, "me"); err != nil {
		t.Fatal(err)
	}
	put := func(key, text string, once bool) error {
		return o.Put(ctx, key, strings.NewReader(text), int64(len(text)), once)
	}
	if err := errors.Join(put("a/1", "one", false), put("a/1", "other", false), put("a/2", "", false), put("b/x", "x", true)); err != nil {
		t.Fatal(err)
	}
	if err := put("b/x", "y", true); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a second write-once put: %v", err)
	}
	if got := getAll(t, o, "a/1", 0) + getAll(t, o, "a/1", 3) + getAll(t, o, "a/1", 5) + getAll(t, o, "a/1", 9) + getAll(t, o, "a/2", 0) + getAll(t, o, "b/x", 0); got != "otherer"+"x" {
		t.Errorf("reads %q", got)
	}
	if i, err := o.Stat(ctx, "a/1"); err != nil || i.Size != 5 || i.Changed.IsZero() {
		t.Errorf("%+v %v", i, err)
	}
	all, err := o.List(ctx, "a/")
	if err != nil || len(all) != 2 || all[0].Key != "a/1" || all[1].Key != "a/2" || all[0].Size != 5 {
		t.Errorf("lists %+v %v", all, err)
	}
	if all, err := o.List(ctx, "nothing/"); err != nil || len(all) != 0 {
		t.Errorf("lists %+v %v", all, err)
	}
	if err := o.Delete(ctx, "a/1", "a/1", "never"); err != nil {
		t.Error(err)
	}
	if _, err := o.Stat(ctx, "a/1"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("stat of nothing: %v", err)
	}
	if _, err := o.Get(ctx, "a/1", 0); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("get of nothing: %v", err)
	}
	if _, err := openObjects(t, server, "").Stat(ctx, "shop/shunt/b/x"); err != nil {
		t.Errorf("without a prefix: %v", err)
	}
	big := bytes.Repeat([]byte("0123456789abcdef"), 40<<20/16) // in parts
	if err := o.Put(ctx, "big", bytes.NewReader(big), int64(len(big)), false); err != nil {
		t.Fatal(err)
	}
	if got := getAll(t, o, "big", 39<<20); got != string(big[39<<20:]) {
		t.Errorf("a big object reads %d bytes", len(got))
	}
	var won sync.Map
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			if err := put("race", fmt.Sprint(i), true); err == nil {
				won.Store(i, true)
			} else if !errors.Is(err, fs.ErrExist) {
				t.Errorf("a race: %v", err)
			}
		})
	}
	wg.Wait()
	winners := 0
	won.Range(func(i, _ any) bool {
		winners++
		if got := getAll(t, o, "race", 0); got != fmt.Sprint(i) {
			t.Errorf("%v won and %s is there", i, got)
		}
		return true
	})
	if winners != 1 {
		t.Errorf("%d of 16 won", winners)
	}
	server.Kill()
	for _, err := range []error{put("late", "x", false), o.Delete(ctx, "b/x"), o.Check(ctx, "me")} {
		if !delivery.IsKind(err, delivery.KindUnavailable) || !strings.Contains(err.Error(), "does not answer") {
			t.Errorf("a store that is down: %v", err)
		}
	}
}

func TestObjectAddresses(t *testing.T) {
	t.Parallel()
	for _, good := range []string{"s3://bucket", "s3://bucket/", "s3://my.bucket/a/b", "s3://b/p?endpoint=http://[::1]:9000&region=eu-west-1"} {
		if _, err := OpenObjects(good); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	for _, bad := range []string{
		"", "bucket", "http://bucket", "s3://", "s3://key:secret@bucket/p", "s3://b/../p", "s3://b/p?endpoint=minio:9000", "s3://b?endpoint=http://h/path",
		"s3://b?endpoint=http://u:p@h", "s3://b?secret=x", "s3://b?region=a&region=b", "s3://b/%00", "s3://b#x", "s3://b:80/p",
	} {
		if _, err := OpenObjects(bad); !delivery.IsKind(err, delivery.KindInvalid) || strings.Contains(err.Error(), "secret@") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}
