package artifact

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/shuntcd/shunt/internal/delivery"
)

// Files is the built-in artifact repository. The bytes are blobs in Store; one
// small file Dir/<project>/<build>/<name>.json says what was published. It is
// written once.
type Files struct {
	Dir   string
	Store *Store
}

// Published is one published artifact of the built-in repository.
type Published struct {
	Name   string `json:"name"`   // "app"
	File   string `json:"file"`   // "petstore.tar.gz"
	SHA256 string `json:"sha256"` // name of the blob in the store
	Size   int64  `json:"size"`   // bytes
}

// Get returns what was published as name in a directory ("petstore/43"). What
// was not is KindNotFound.
func (f *Files) Get(_ context.Context, directory, name string) (Published, error) {
	file, err := f.path(directory, name)
	if err != nil {
		return Published{}, err
	}
	return readPublished(file, name)
}

func readPublished(file, name string) (Published, error) {
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return Published{}, &delivery.Error{Kind: delivery.KindNotFound, What: "cannot find artifact " + name, Why: "it was not published", Err: err}
	}
	if err != nil {
		return Published{}, fmt.Errorf("read published artifact: %w", err)
	}
	var p Published
	if err := json.Unmarshal(text, &p); err != nil || !validSHA(p.SHA256) {
		return Published{}, fmt.Errorf("read published artifact: %s is damaged: %w", file, errors.Join(err, ErrMismatch))
	}
	return p, nil
}

// List returns what was published in a directory ("petstore/43"), by name.
func (f *Files) List(_ context.Context, directory string) ([]Published, error) {
	dir, err := checkDirectory(directory)
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(filepath.Join(f.Dir, filepath.FromSlash(dir)))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list published artifacts: %w", err)
	}
	var all []Published
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), ".json")
		if !ok || e.IsDir() || strings.HasPrefix(name, ".") {
			continue
		}
		p, err := readPublished(filepath.Join(f.Dir, filepath.FromSlash(dir), e.Name()), name)
		if err != nil {
			return nil, err
		}
		all = append(all, p)
	}
	return all, nil
}

func (f *Files) path(directory, name string) (string, error) {
	dir, err := checkDirectory(directory)
	if err != nil {
		return "", err
	}
	if err := checkName("artifact name", name); err != nil {
		return "", err
	}
	return filepath.Join(f.Dir, filepath.FromSlash(dir), name+".json"), nil
}

type filesPublisher struct {
	files     *Files
	directory string
	base      *url.URL // nil: the receipt has no URL
}

func newFilesPublisher(t Target, files *Files) (*filesPublisher, error) {
	if files == nil || files.Store == nil || files.Dir == "" {
		return nil, badTarget("this server has no built-in artifact store")
	}
	dir, err := checkDirectory(t.Directory)
	if err != nil {
		return nil, err
	}
	if dir == "" {
		return nil, badTarget("it has no directory")
	}
	p := &filesPublisher{files: files, directory: dir}
	if t.URL != "" {
		if p.base, err = baseURL(t.URL); err != nil {
			return nil, err
		}
	}
	return p, nil
}

func (p *filesPublisher) what(item Item) string {
	return "cannot publish " + clean(item.File, 100) + " to the built-in store"
}

// Preflight tries whether the directory can be written.
func (p *filesPublisher) Preflight(_ context.Context) error {
	err := os.MkdirAll(p.files.Dir, 0o750)
	if err == nil {
		var probe *os.File
		if probe, err = os.CreateTemp(p.files.Dir, ".preflight-*"); err == nil {
			err = errors.Join(probe.Close(), os.Remove(probe.Name()))
		}
	}
	if err != nil {
		return &PublishError{
			Outcome: OutcomeRefused, Temporary: true, What: "cannot publish to the built-in store",
			Why: "its directory cannot be written", Next: "Look at disk space and permissions:  shunt doctor", Err: err,
		}
	}
	return nil
}

// Publish stores the bytes, then the record.
func (p *filesPublisher) Publish(ctx context.Context, item Item) (Receipt, error) {
	receipt, found, err := p.Probe(ctx, item)
	if err != nil || found {
		return receipt, err
	}
	// Here a failure is never unknown: the name appears in one atomic step, last.
	if err := p.store(ctx, item); err != nil {
		return Receipt{}, &PublishError{Outcome: OutcomeRefused, What: p.what(item), Why: "its bytes could not be stored", Err: err}
	}
	file, err := p.files.path(p.directory, item.Name)
	if err != nil {
		return Receipt{}, &PublishError{Outcome: OutcomeRefused, What: p.what(item), Why: err.Error(), Err: err}
	}
	err = writeOnce(p.files.Dir, file, Published{Name: item.Name, File: item.File, SHA256: item.SHA256, Size: item.Size})
	if errors.Is(err, fs.ErrExist) { // somebody was faster: with the same bytes?
		_, found, err = p.Probe(ctx, item)
		if err == nil && !found {
			err = fs.ErrNotExist
		}
	}
	if perr, ok := errors.AsType[*PublishError](err); ok {
		return Receipt{}, perr
	}
	if err != nil {
		return Receipt{}, &PublishError{Outcome: OutcomeUnknown, What: p.what(item), Why: "the record could not be made durable", Err: err}
	}
	return p.receipt(item), nil
}

// store makes sure that the blob is there and whole.
func (p *filesPublisher) store(ctx context.Context, item Item) error {
	if p.files.Store.Verify(ctx, item.SHA256) == nil {
		return nil
	}
	r, err := item.Open()
	if err != nil {
		return err
	}
	defer r.Close() //nolint:errcheck // only read from
	_, _, err = p.files.Store.put(ctx, r, item.SHA256)
	return err
}

// Probe reads the record.
func (p *filesPublisher) Probe(ctx context.Context, item Item) (Receipt, bool, error) {
	if err := checkItem(p.what(item), item); err != nil {
		return Receipt{}, false, err
	}
	held, err := p.files.Get(ctx, p.directory, item.Name)
	switch {
	case delivery.IsKind(err, delivery.KindNotFound):
		return Receipt{}, false, nil
	case err != nil:
		return Receipt{}, false, &PublishError{Outcome: OutcomeUnknown, What: p.what(item), Why: "what it holds cannot be read", Err: err}
	case held.SHA256 != item.SHA256:
		return Receipt{}, false, otherBytes(p.what(item), p.directory+"/"+item.Name)
	}
	return p.receipt(item), true, nil
}

func (p *filesPublisher) receipt(item Item) Receipt {
	r := Receipt{SHA256: item.SHA256}
	if p.base != nil {
		r.URL = below(p.base, path.Join(p.directory, item.Name)).String()
	}
	return r
}

// writeOnce writes a record durably under a name that must not exist yet; if it
// does, the error is fs.ErrExist. A hard link is the atomic step that, unlike a
// rename, never replaces.
func writeOnce(root, file string, record Published) error {
	text, err := json.MarshalIndent(record, "", "  ")
	if err != nil {
		return err
	}
	dir := filepath.Dir(file)
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	temp, err := os.CreateTemp(dir, ".record-*")
	if err != nil {
		return err
	}
	defer os.Remove(temp.Name()) //nolint:errcheck // the link stays
	_, err = temp.Write(append(text, '\n'))
	if err := errors.Join(err, temp.Chmod(0o440), temp.Sync(), temp.Close()); err != nil {
		return err
	}
	if err := os.Link(temp.Name(), file); err != nil {
		return err
	}
	// The directories above may be new as well, up to and including the root.
	for ; ; dir = filepath.Dir(dir) {
		if err := syncDir(dir); err != nil {
			return err
		}
		if dir == filepath.Clean(root) || dir == filepath.Dir(dir) {
			return nil
		}
	}
}
