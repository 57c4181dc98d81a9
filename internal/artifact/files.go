package artifact

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/shuntcd/shunt/internal/delivery"
)

// Files is the built-in artifact repository. The bytes are blobs in Store; one
// small file Dir/<project>/<build>/<name>.json says what was published. It is
// written once. When Store is in an object store, so is that file, as
// published/<project>/<build>/<name>.json.
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
func (f *Files) Get(ctx context.Context, directory, name string) (Published, error) {
	file, err := f.path(directory, name)
	if err != nil {
		return Published{}, err
	}
	return f.read(ctx, file, name)
}

// maxRecord bounds what is read of a record, in bytes.
const maxRecord = 64 << 10

func (f *Files) read(ctx context.Context, file, name string) (Published, error) {
	text, err := f.load(ctx, file)
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
func (f *Files) List(ctx context.Context, directory string) ([]Published, error) {
	dir, err := checkDirectory(directory)
	if err != nil {
		return nil, err
	}
	files, err := f.names(ctx, dir)
	if err != nil {
		return nil, fmt.Errorf("list published artifacts: %w", err)
	}
	var all []Published
	for _, file := range files {
		name, ok := strings.CutSuffix(path.Base(file), ".json")
		if !ok || strings.HasPrefix(name, ".") {
			continue
		}
		p, err := f.read(ctx, file, name)
		if err != nil {
			return nil, err
		}
		all = append(all, p)
	}
	return all, nil
}

// names lists the records of a directory, by name.
func (f *Files) names(ctx context.Context, dir string) (files []string, err error) {
	if f.Store.Remote != nil {
		objects, err := f.Store.Remote.List(ctx, publishedKey(dir)+"/")
		for _, o := range objects {
			if file := strings.TrimPrefix(o.Key, publishedKey("")); path.Dir(file) == dir {
				files = append(files, file)
			}
		}
		return files, err
	}
	entries, err := os.ReadDir(filepath.Join(f.Dir, filepath.FromSlash(dir)))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	for _, e := range entries {
		if !e.IsDir() {
			files = append(files, path.Join(dir, e.Name()))
		}
	}
	return files, err
}

// publishedKey is the object that holds a record.
func publishedKey(file string) string { return "published/" + file }

// load reads a record. One that is not there is fs.ErrNotExist.
func (f *Files) load(ctx context.Context, file string) ([]byte, error) {
	if f.Store.Remote == nil {
		return os.ReadFile(f.local(file))
	}
	body, err := f.Store.Remote.Get(ctx, publishedKey(file), 0)
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(io.LimitReader(body, maxRecord))
	return text, f.Store.Remote.explain("read "+publishedKey(file), errors.Join(err, body.Close()))
}

// save writes a record; one that exists is fs.ErrExist.
func (f *Files) save(ctx context.Context, file string, record Published) error {
	text, err := json.MarshalIndent(record, "", "  ")
	if err != nil {
		return err
	}
	text = append(text, '\n')
	if f.Store.Remote == nil {
		return writeOnce(f.Dir, f.local(file), text)
	}
	return f.Store.Remote.Put(ctx, publishedKey(file), bytes.NewReader(text), int64(len(text)), true)
}

func (f *Files) local(file string) string { return filepath.Join(f.Dir, filepath.FromSlash(file)) }

// path names a record below Dir, with slashes.
func (f *Files) path(directory, name string) (string, error) {
	dir, err := checkDirectory(directory)
	if err != nil {
		return "", err
	}
	if err := checkName("artifact name", name); err != nil {
		return "", err
	}
	return path.Join(dir, name+".json"), nil
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

// Preflight tries whether the directory, or the object store, can be written.
func (p *filesPublisher) Preflight(ctx context.Context) error {
	const what = "cannot publish to the built-in store"
	if remote := p.files.Store.Remote; remote != nil {
		const key = "check/preflight"
		if err := errors.Join(remote.Put(ctx, key, http.NoBody, 0, false), remote.Delete(ctx, key)); err != nil {
			return &PublishError{Outcome: OutcomeRefused, Temporary: true, What: what, Why: unavailable(err), Next: "Look at the object store:  shunt doctor", Err: err}
		}
		return nil
	}
	err := os.MkdirAll(p.files.Dir, 0o750)
	if err == nil {
		var probe *os.File
		if probe, err = os.CreateTemp(p.files.Dir, ".preflight-*"); err == nil {
			err = errors.Join(probe.Close(), os.Remove(probe.Name()))
		}
	}
	if err != nil {
		return &PublishError{
			Outcome: OutcomeRefused, Temporary: true, What: what,
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
	// Here a failure is never unknown: the name appears in one atomic step, below.
	if err := p.store(ctx, item); err != nil {
		return Receipt{}, &PublishError{Outcome: OutcomeRefused, Temporary: delivery.IsKind(err, delivery.KindUnavailable), What: p.what(item), Why: "its bytes could not be stored", Err: err}
	}
	file, err := p.files.path(p.directory, item.Name)
	if err != nil {
		return Receipt{}, &PublishError{Outcome: OutcomeRefused, What: p.what(item), Why: err.Error(), Err: err}
	}
	err = p.files.save(ctx, file, Published{Name: item.Name, File: item.File, SHA256: item.SHA256, Size: item.Size})
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
		// The cache may hold what the object store has lost.
		if has, err := p.files.Store.Has(ctx, item.SHA256); has || err != nil {
			return err
		}
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

// unavailable is why an object store cannot be used, for people.
func unavailable(err error) string {
	if e, ok := errors.AsType[*delivery.Error](err); ok {
		return "the object store cannot be used: " + e.Why
	}
	return "the object store cannot be used"
}

// writeOnce writes a record durably under a name that must not exist yet; if it
// does, the error is fs.ErrExist. A hard link is the atomic step that, unlike a
// rename, never replaces.
func writeOnce(root, file string, text []byte) error {
	dir := filepath.Dir(file)
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	temp, err := os.CreateTemp(dir, ".record-*")
	if err != nil {
		return err
	}
	defer os.Remove(temp.Name()) //nolint:errcheck // the link stays
	_, err = temp.Write(text)
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
