package server

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shuntcd/shunt/internal/delivery"
	"github.com/shuntcd/shunt/internal/failpoint"
)

// An archive is a plain tar file that needs no Shunt to be read: ABOUT says what
// it is, then come the files as they lie in a data directory, and the last
// member, MANIFEST, lists the SHA-256 of every other one as `sha256sum` writes and
// checks it. An archive without its MANIFEST was cut off and is none.

const (
	aboutName    = "ABOUT"
	manifestName = "MANIFEST"
	databaseName = "shunt.db"
	// elsewhereName lists, one "<bytes>  <name>" a line, what was kept in an object
	// store or a shared directory, which is not in the archive.
	elsewhereName = "ELSEWHERE"
)

// About is what an archive says of itself.
type About struct {
	Format   int       `json:"format"` // 1
	Version  string    `json:"shunt"`  // of the program that made it
	MadeAt   time.Time `json:"made_at"`
	Database string    `json:"database"`        // "sqlite": its rows are in it; "postgres": they are not
	Files    string    `json:"files,omitempty"` // where artifacts and logs are, when they are not in it
}

// archiver adds files to an archive that is being made.
type archiver struct {
	ctx   context.Context //nolint:containedctx // lives for one archive
	tar   *tar.Writer
	sums  bytes.Buffer
	at    time.Time
	files int
	bytes int64
}

// add adds a member of a known size. The digest is of what was written.
func (a *archiver) add(name string, r io.Reader, size int64) (digest string, err error) {
	if strings.ContainsAny(name, "\n\\") {
		return "", fmt.Errorf("back up %q: no file of Shunt's is called so", name)
	}
	err = a.tar.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o600, ModTime: a.at, Format: tar.FormatPAX})
	if err != nil {
		return "", fmt.Errorf("back up %s: %w", name, err)
	}
	h := sha256.New()
	if _, err := io.CopyN(io.MultiWriter(a.tar, h), reader{a.ctx, r}, size); err != nil {
		return "", fmt.Errorf("back up %s: %w", name, err)
	}
	digest = hex.EncodeToString(h.Sum(nil))
	fmt.Fprintf(&a.sums, "%s  %s\n", digest, name)
	a.files, a.bytes = a.files+1, a.bytes+size
	return digest, nil
}

// addFile adds a regular file as long as it is now: a log may grow meanwhile. ok
// is false when it is gone, or no regular file: nothing of Shunt's.
func (a *archiver) addFile(name, file string) (digest string, ok bool, err error) {
	f, err := os.OpenFile(file, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ELOOP) {
		return "", false, nil
	}
	if err != nil {
		return "", false, fmt.Errorf("back up: %w", err)
	}
	defer f.Close() //nolint:errcheck // only read from
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return "", false, err
	}
	digest, err = a.add(name, f, info.Size())
	return digest, err == nil, err
}

// addTree adds the regular files below a directory; temporary files begin with a dot.
func (a *archiver) addTree(data, dir string) error {
	return filepath.WalkDir(filepath.Join(data, dir), func(file string, e fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil // never made, or removed meanwhile
		case err != nil:
			return fmt.Errorf("back up: %w", err)
		case !e.Type().IsRegular() || strings.HasPrefix(e.Name(), "."):
			return nil
		}
		name, err := filepath.Rel(data, file)
		if err != nil {
			return fmt.Errorf("back up: %w", err)
		}
		_, _, err = a.addFile(filepath.ToSlash(name), file)
		return err
	})
}

// writeArchive makes an archive of what fill adds: under another name first,
// synced, read again and verified, and only then renamed.
func writeArchive(ctx context.Context, file string, about About, fill func(*archiver) error) (a *archiver, err error) {
	temp, err := os.CreateTemp(filepath.Dir(file), "."+filepath.Base(file)+".*")
	if err != nil {
		return nil, fmt.Errorf("write backup: %w", err)
	}
	defer func() {
		_ = temp.Close()
		if err != nil {
			_ = os.Remove(temp.Name())
		}
	}()
	buffer := bufio.NewWriterSize(temp, 1<<20)
	a = &archiver{ctx: ctx, tar: tar.NewWriter(buffer), at: about.MadeAt.Truncate(time.Second)}
	text, err := json.Marshal(about)
	if err != nil {
		return nil, fmt.Errorf("write backup: %w", err)
	}
	if _, err := a.add(aboutName, bytes.NewReader(append(text, '\n')), int64(len(text))+1); err != nil {
		return nil, err
	}
	if err := fill(a); err != nil {
		return nil, err
	}
	sums := bytes.Clone(a.sums.Bytes())
	if _, err := a.add(manifestName, bytes.NewReader(sums), int64(len(sums))); err != nil {
		return nil, err
	}
	if err := errors.Join(a.tar.Close(), buffer.Flush(), temp.Sync()); err != nil {
		return nil, fmt.Errorf("write backup: %w", err)
	}
	if _, err := readArchive(ctx, temp.Name(), nil); err != nil {
		return nil, fmt.Errorf("the backup cannot be read back: %w", err)
	}
	if err := failpoint.Hit("backup", failpoint.BeforeRecord); err != nil {
		return nil, err
	}
	if err := os.Link(temp.Name(), file); err != nil { // unlike a rename it overwrites nothing
		return nil, fmt.Errorf("name the backup: %w", err)
	}
	return a, errors.Join(os.Remove(temp.Name()), syncDir(filepath.Dir(file)))
}

// readArchive reads an archive from end to end and compares every digest. each
// (may be nil) gets every file; what it has taken counts only when readArchive
// returns without an error.
func readArchive(ctx context.Context, file string, each func(name string, r io.Reader) error) (about About, err error) {
	bad := func(why string) error {
		return &delivery.Error{Kind: delivery.KindInvalid, What: "cannot use backup " + file, Why: why, Next: "Use another backup.", Err: err}
	}
	f, err := os.Open(file)
	if err != nil {
		return about, bad(err.Error())
	}
	defer f.Close() //nolint:errcheck // only read from
	r := tar.NewReader(bufio.NewReaderSize(reader{ctx, f}, 1<<20))
	sums := map[string]string{}
	for {
		var h *tar.Header
		h, err = r.Next()
		if err != nil && ctx.Err() != nil {
			return about, ctx.Err()
		}
		if errors.Is(err, io.EOF) {
			return about, bad("it ends before its MANIFEST: it was cut off")
		}
		if err != nil {
			return about, bad("it is no tar file, or was damaged")
		}
		if !belongs(h) || sums[h.Name] != "" {
			return about, bad(fmt.Sprintf("it holds %.200q, which no backup has", h.Name))
		}
		if h.Name == manifestName {
			break
		}
		digest := sha256.New()
		body := io.TeeReader(r, digest)
		if h.Name == aboutName {
			if err = json.NewDecoder(io.LimitReader(body, 1<<16)).Decode(&about); err != nil || about.Format != 1 {
				return about, bad("its ABOUT cannot be read: a newer shunt may have made it")
			}
		} else if each != nil {
			if err := each(h.Name, body); err != nil {
				return about, err
			}
		}
		if _, err = io.Copy(io.Discard, body); err != nil {
			return about, bad("it was cut off or damaged at " + h.Name)
		}
		sums[h.Name] = hex.EncodeToString(digest.Sum(nil))
	}
	text, err := io.ReadAll(r)
	if err != nil {
		return about, bad("its MANIFEST was cut off")
	}
	listed := 0
	for line := range strings.Lines(string(text)) {
		sum, name, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "  ")
		if !ok || sums[name] != sum {
			return about, bad(fmt.Sprintf("%.200q is not what its MANIFEST says", name))
		}
		listed++
	}
	if listed != len(sums) || about.Format != 1 {
		return about, bad("its MANIFEST does not list every file")
	}
	return about, nil
}

// belongs tells whether a member may be in an archive: a file of a known place,
// and nothing that leads elsewhere.
func belongs(h *tar.Header) bool {
	if h.Typeflag != tar.TypeReg || h.Name != path.Clean(h.Name) || !filepath.IsLocal(h.Name) || strings.ContainsAny(h.Name, "\\\n\x00") {
		return false
	}
	top, _, below := strings.Cut(h.Name, "/")
	if below {
		return slices.Contains(archivedTrees(), top)
	}
	return slices.Contains([]string{aboutName, manifestName, databaseName, elsewhereName}, top)
}

// archivedTrees are the directories that a backup holds. What is missing is made
// again: mirrors from their remotes, work trees and the runner's jobs by running
// builds. secret.key is kept apart on purpose.
func archivedTrees() []string { return []string{"blobs", "published", "logs", "hooks"} }

// reader ends a long copy when its context does.
type reader struct {
	ctx context.Context //nolint:containedctx // lives for one copy
	r   io.Reader
}

// Read implements io.Reader.
func (r reader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p) //nolint:wrapcheck // io.EOF must stay what it is
}

// syncDir makes the names in a directory durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	return nil
}
