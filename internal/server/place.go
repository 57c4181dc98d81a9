package server

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/shuntcd/shunt/internal/artifact"
	"github.com/shuntcd/shunt/internal/delivery"
	"github.com/shuntcd/shunt/internal/engine"
	"github.com/shuntcd/shunt/internal/store"
)

// place says where artifacts, what was published and logs are: in the data
// directory, in an object store, or in a directory that all servers share. Every
// server of an installation must use the same one. So each such place carries a
// mark (of which installation it is, and a random id), and the database says
// which mark the installation uses.
type place struct {
	Objects string `json:"objects,omitempty"` // s3:// address
	Shared  string `json:"shared,omitempty"`  // directory
}

// kept are the parts that keep things in a place.
type kept struct {
	place
	objects *artifact.Objects
	blobs   *artifact.Store
	files   *artifact.Files
	logs    *engine.Logs
}

// placeMeta names the row that says which place the installation uses.
const placeMeta = "files"

// placeMark is what a place carries, and, with Where, that row.
type placeMark struct {
	Installation string `json:"installation"`
	ID           string `json:"id"`
	Where        string `json:"where,omitempty"` // for people
}

// markName is the file, or the object, that holds the mark of a place.
const markName = "shunt-installation.json"

func (p place) isLocal() bool { return p == place{} }

// note keeps the place in the data directory, for the commands that act on it.
func (p place) note(dataDir string) error {
	file := filepath.Join(dataDir, "files")
	if p.isLocal() {
		if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("note where files are: %w", err)
		}
		return nil
	}
	text, err := json.Marshal(p)
	if err == nil {
		err = os.WriteFile(file, text, 0o600)
	}
	if err != nil {
		return fmt.Errorf("note where files are: %w", err)
	}
	return nil
}

// notedPlace is the place that the server of a data directory used last.
func notedPlace(dataDir string) (p place, err error) {
	text, err := os.ReadFile(filepath.Join(dataDir, "files"))
	if errors.Is(err, fs.ErrNotExist) {
		return p, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &p)
	}
	if err != nil {
		return p, fmt.Errorf("read where files are: %w", err)
	}
	return p, nil
}

// open opens the parts of a place. An object store is not asked yet.
func (p place) open(dataDir string, log *slog.Logger) (k kept, err error) {
	if p.Objects != "" && p.Shared != "" {
		return k, delivery.Errf(delivery.KindInvalid, "cannot keep files in two places", "--objects and --shared exclude each other")
	}
	k.place = p
	dir := dataDir
	if p.Shared != "" {
		if dir, err = filepath.Abs(p.Shared); err != nil {
			return k, fmt.Errorf("shared directory: %w", err)
		}
		if info, err := os.Stat(dir); err != nil || !info.IsDir() { // made by nobody here: it may be a mount that is missing
			return k, &delivery.Error{Kind: delivery.KindInvalid, What: "cannot use the shared directory " + dir, Why: "it is not there", Next: "Mount or make it first.", Err: err}
		}
		k.Shared = dir
	}
	if p.Objects != "" {
		if k.objects, err = artifact.OpenObjects(p.Objects); err != nil {
			return k, err
		}
	}
	if k.blobs, err = artifact.NewStore(filepath.Join(dir, "blobs")); err != nil {
		return k, err
	}
	k.blobs.Remote = k.objects
	k.files = &artifact.Files{Dir: filepath.Join(dir, "published"), Store: k.blobs}
	k.logs = engine.NewLogs(filepath.Join(dir, "logs"), k.objects, log)
	return k, nil
}

// String names the place for people.
func (k kept) String() string {
	switch {
	case k.objects != nil:
		return "the object store " + k.objects.String()
	case k.Shared != "":
		return "the shared directory " + k.Shared
	}
	return "the data directory of one server"
}

// claim makes sure that the place works, and that it is the one of this
// installation; the first server decides which that is.
func (k kept) claim(ctx context.Context, st *store.Store, installation string) error {
	recorded, err := recordedPlace(ctx, st)
	if err != nil {
		return err
	}
	what := "cannot keep files in " + k.String()
	differs := func() error {
		return &delivery.Error{
			Kind: delivery.KindConflict, What: what, Why: "this installation keeps them in " + recorded.Where,
			Next: "Start every server with the same --objects or --shared.",
		}
	}
	if k.isLocal() {
		if recorded.ID != "" {
			return differs()
		}
		return nil
	}
	if err := k.check(ctx); err != nil {
		return err
	}
	mark, err := k.mark(ctx, installation)
	if err != nil {
		return err
	}
	if mark.Installation != installation {
		return &delivery.Error{
			Kind: delivery.KindConflict, What: what, Why: "they belong to another installation of Shunt (" + mark.Installation + ")",
			Next: "Give each installation a prefix or a directory of its own. If the other one is gone for ever, remove " + markName + " there.",
		}
	}
	if recorded.ID == "" {
		projects, err := st.Projects(ctx)
		if err != nil {
			return err
		}
		if len(projects) > 0 {
			return &delivery.Error{
				Kind: delivery.KindConflict, What: what, Why: "this installation has kept its files in the data directory so far",
				Next: "Start the server without --objects and --shared; only an installation without projects can choose.",
			}
		}
		return k.record(ctx, st, mark)
	}
	if recorded.ID != mark.ID {
		return differs()
	}
	return nil
}

func recordedPlace(ctx context.Context, st *store.Store) (m placeMark, err error) {
	text, err := st.Meta(ctx, placeMeta)
	if err == nil && text != "" {
		err = json.Unmarshal([]byte(text), &m)
	}
	if err != nil {
		return m, fmt.Errorf("read where files are: %w", err)
	}
	return m, nil
}

// record writes the place into the database, once.
func (k kept) record(ctx context.Context, st *store.Store, mark placeMark) error {
	mark.Where = k.String()
	text, err := json.Marshal(mark)
	if err != nil {
		return fmt.Errorf("record where files are: %w", err)
	}
	return st.Write(ctx, func(ctx context.Context, tx *store.Tx) error {
		before, err := tx.Meta(ctx, placeMeta)
		if err != nil {
			return err
		}
		var other placeMark
		if before != "" && (json.Unmarshal([]byte(before), &other) != nil || other.ID != mark.ID) {
			return delivery.Errf(delivery.KindConflict, "cannot keep files in "+k.String(), "another server was faster: this installation keeps them in "+other.Where)
		}
		return errors.Join(tx.SetMeta(ctx, placeMeta, string(text)), tx.Audit(ctx, "", 0, "shunt", "files kept", "in "+mark.Where))
	})
}

// check finds out whether the place can be written, read and removed from.
func (k kept) check(ctx context.Context) error {
	if k.objects != nil {
		return k.objects.Check(ctx, rand.Text())
	}
	f, err := os.CreateTemp(k.Shared, ".check-*")
	if err == nil {
		_, err = f.WriteString("shunt")
		err = errors.Join(err, f.Sync(), f.Close(), os.Remove(f.Name()))
	}
	if err != nil {
		return &delivery.Error{Kind: delivery.KindInvalid, What: "cannot use " + k.String(), Why: err.Error(), Next: "Let the user who runs Shunt write there.", Err: err}
	}
	return nil
}

// mark reads the mark of the place, and makes it when there is none.
func (k kept) mark(ctx context.Context, installation string) (m placeMark, err error) {
	text, err := k.readMark(ctx)
	if errors.Is(err, fs.ErrNotExist) {
		if text, err = json.Marshal(placeMark{Installation: installation, ID: rand.Text()}); err == nil {
			err = k.writeMark(ctx, append(text, '\n'))
		}
		if err == nil || errors.Is(err, fs.ErrExist) { // whoever wrote it
			text, err = k.readMark(ctx)
		}
	}
	if err != nil {
		return m, err
	}
	if json.Unmarshal(text, &m) != nil || m.ID == "" {
		return m, &delivery.Error{Kind: delivery.KindConflict, What: "cannot use " + k.String(), Why: "its " + markName + " cannot be read", Next: "Look at it; no other program should write there."}
	}
	return m, nil
}

func (k kept) readMark(ctx context.Context) ([]byte, error) {
	if k.objects == nil {
		return os.ReadFile(filepath.Join(k.Shared, markName)) //nolint:wrapcheck // fs.ErrNotExist is asked for
	}
	body, err := k.objects.Get(ctx, markName, 0)
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(io.LimitReader(body, 1<<16))
	return text, errors.Join(err, body.Close())
}

func (k kept) writeMark(ctx context.Context, text []byte) error {
	if k.objects != nil {
		return k.objects.Put(ctx, markName, bytes.NewReader(text), int64(len(text)), true)
	}
	temp, err := os.CreateTemp(k.Shared, ".mark-*")
	if err != nil {
		return fmt.Errorf("mark the shared directory: %w", err)
	}
	defer os.Remove(temp.Name()) //nolint:errcheck // the link stays
	_, err = temp.Write(text)
	if err := errors.Join(err, temp.Sync(), temp.Close()); err != nil {
		return fmt.Errorf("mark the shared directory: %w", err)
	}
	if err := os.Link(temp.Name(), filepath.Join(k.Shared, markName)); err != nil {
		return fmt.Errorf("mark the shared directory: %w", err)
	}
	return syncDir(k.Shared)
}
