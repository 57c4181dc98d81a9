package notify_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shuntcd/shunt/internal/notify"
)

func TestDirIsAMailbox(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "mail")
	if got, err := notify.ReadDir(dir); err != nil || len(got) != 0 {
		t.Fatalf("an empty mailbox: %v, %v", got, err)
	}
	d := hotfix()
	d.Fixes = "Größe & <b>Maße</b>"
	first := render(t, notify.Waiting, d)
	d.Now = d.Now.Add(time.Minute)
	d.Name = "größe"
	second := render(t, notify.Reminder, d)
	second.Key = "../../etc/passwd"
	for _, m := range []notify.Message{second, first, first} { // sent twice is one mail
		if err := (notify.Dir{Path: dir}).Send(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "0-damaged.eml"), []byte("what?"), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := notify.ReadDir(dir)
	if err != nil || len(got) != 3 {
		t.Fatalf("got %d mails, %v", len(got), err)
	}
	if got[0].Subject != second.Subject || got[1].Subject != first.Subject || !strings.Contains(got[2].Subject, "cannot be read") {
		t.Errorf("subjects %q, %q, %q", got[0].Subject, got[1].Subject, got[2].Subject)
	}
	m := got[1]
	if m.Text != first.Text || m.HTML != first.HTML || m.From != `"Shunt" <shunt@example.org>` || m.To != "<petstore-team@example.org>" ||
		!m.Date.Equal(first.Date) || m.Thread != "petstore.build-43@shunt.example.org" {
		t.Errorf("read back: %+v", m)
	}
}

func TestDirCannotBeWritten(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	err := notify.Dir{Path: filepath.Join(file, "mail")}.Send(t.Context(), render(t, notify.Waiting, hotfix()))
	if err == nil || notify.IsPermanent(err) {
		t.Errorf("got %v, want a temporary error", err)
	}
}
