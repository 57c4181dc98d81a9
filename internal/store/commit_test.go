package store_test

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/shuntcd/shunt/internal/delivery"
	"github.com/shuntcd/shunt/internal/store"
)

// A transaction whose commit fails is an error for whoever asked, and nobody is
// woken or told of what is not there.
func TestNobodyIsToldOfWhatIsNotCommitted(t *testing.T) {
	t.Parallel()
	s := openAt(t, filepath.Join(t.TempDir(), "shunt.db"))
	ctx, cancel := context.WithCancel(t.Context())
	told := false
	err := s.Write(ctx, func(ctx context.Context, tx *store.Tx) error {
		tx.AfterCommit(func() { told = true })
		err := tx.SetMeta(context.WithoutCancel(ctx), "who", "ana")
		cancel() // database/sql refuses the commit
		return err
	})
	if err == nil || told {
		t.Errorf("the commit failed; the error is %v, and others were told: %v", err, told)
	}
	if who, err := s.Meta(t.Context(), "who"); who != "" || err != nil {
		t.Errorf("written was %q %v", who, err)
	}
}

// A database file that the disk has spoiled ends the process: nothing that it
// answers can be believed.
func TestASpoiledDiskEndsTheProcess(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "shunt.db")
	openAt(t, path)
	type ended struct{ error }
	s, err := store.Open(t.Context(), store.Config{Database: path, Clock: delivery.SystemClock{}, Log: slog.New(slog.DiscardHandler), Fatal: func(err error) { panic(ended{err}) }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	for _, end := range []string{"", "-wal"} { // all that follows the first page of either
		info, err := os.Stat(path + end)
		if err != nil || info.Size() <= 4096 {
			continue
		}
		f, err := os.OpenFile(path+end, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		_, err = f.WriteAt(make([]byte, info.Size()-4096), 4096)
		if err != nil || f.Close() != nil {
			t.Fatal(err)
		}
	}
	defer func() {
		if _, ok := recover().(ended); !ok {
			t.Error("the server works on with a database that its disk has spoiled")
		}
	}()
	err = s.Write(t.Context(), func(ctx context.Context, tx *store.Tx) error {
		_, err := tx.Builds(ctx, store.BuildQuery{Project: "petstore", Limit: 10})
		return err
	})
	t.Logf("the write answers %v", err)
}
