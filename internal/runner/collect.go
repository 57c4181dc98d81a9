package runner

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"unicode/utf8"

	"github.com/bmatcuk/doublestar/v4"
)

// collector copies files of a job out of its working directory, which is
// hostile: it is opened as an os.Root, so no symlink leads out of it, and only
// regular files are read.
type collector struct {
	root *os.Root
	out  string
	n    int // files copied
}

func newCollector(dir, out string) (*collector, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("opening the job's directory: %w", err)
	}
	return &collector{root: root, out: out}, nil
}

func (c *collector) close() { _ = c.root.Close() }

// match lists the regular files that match a pattern, sorted, at most limit.
func (c *collector) match(pattern string, limit int) (names []string, err error) {
	pattern = strings.TrimPrefix(pattern, "./")
	errEnough := errors.New("enough")
	err = doublestar.GlobWalk(c.root.FS(), pattern, func(name string, _ fs.DirEntry) error {
		if info, err := c.root.Lstat(name); err != nil || !info.Mode().IsRegular() {
			return nil //nolint:nilerr // what is no regular file does not match
		}
		names = append(names, name)
		if len(names) > limit {
			return errEnough
		}
		return nil
	}, doublestar.WithNoFollow())
	if err != nil && !errors.Is(err, errEnough) {
		return nil, fmt.Errorf("looking for %q: %w", pattern, err)
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// copy copies a file of at most limit bytes and names its digest. A durable
// copy is on disk when it returns.
func (c *collector) copy(name string, limit int64, durable bool) (file File, err error) {
	// NOFOLLOW and NONBLOCK: a daemon may put a symlink or a FIFO in its place now.
	in, err := c.root.OpenFile(name, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return File{}, fmt.Errorf("reading %q: %w", name, err)
	}
	defer in.Close() //nolint:errcheck // opened for reading
	if info, err := in.Stat(); err != nil || !info.Mode().IsRegular() {
		return File{}, fmt.Errorf("reading %q: it is no regular file", name)
	}
	file.Base = strings.ToValidUTF8(filepath.Base(name), "\uFFFD")
	file.Path = filepath.Join(c.out, fmt.Sprintf("%04d", c.n))
	c.n++
	out, err := os.OpenFile(file.Path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return File{}, fmt.Errorf("copying %q: %w", name, err)
	}
	digest := sha256.New()
	file.Size, err = io.Copy(io.MultiWriter(out, digest), io.LimitReader(in, limit+1))
	if err == nil && file.Size > limit {
		err = fmt.Errorf("more than %d bytes: %w", limit, errTooBig)
	}
	if err == nil && durable {
		err = out.Sync()
	}
	if err = errors.Join(err, out.Close()); err != nil {
		_ = os.Remove(file.Path)
		return File{}, fmt.Errorf("copying %q: %w", name, err)
	}
	file.SHA256 = hex.EncodeToString(digest.Sum(nil))
	return file, nil
}

var errTooBig = errors.New("too big")

// artifacts copies the one file of each glob. The error is in words for the
// author of the pipeline.
func (c *collector) artifacts(globs []Glob, limit int64) ([]File, error) {
	var files []File
	for _, g := range globs {
		names, err := c.match(g.Pattern, 1000)
		if err != nil {
			return nil, err
		}
		if len(names) != 1 {
			return nil, c.wrongCount(g, names)
		}
		file, err := c.copy(names[0], limit, true)
		if err != nil {
			return nil, fmt.Errorf("artifact %q: %w", g.Name, err)
		}
		limit -= file.Size
		file.Name = g.Name
		files = append(files, file)
	}
	return files, syncDir(c.out) // their names too: the result will tell of them
}

func (c *collector) wrongCount(g Glob, names []string) error {
	if len(names) > 1 {
		return fmt.Errorf("artifact %q: %d files match %q: %s; it must be exactly one", g.Name, len(names), g.Pattern, list(names))
	}
	if info, err := c.root.Lstat(strings.TrimPrefix(g.Pattern, "./")); err == nil && !info.Mode().IsRegular() {
		return fmt.Errorf("artifact %q: %q is no regular file (%s)", g.Name, g.Pattern, info.Mode())
	}
	// Name what lies nearest: the directory that the pattern starts in, or the first one above it that exists.
	base, _ := doublestar.SplitPattern(filepath.Clean(g.Pattern))
	for ; base != "." && base != "/"; base = filepath.Dir(base) {
		if info, err := c.root.Stat(base); err == nil && info.IsDir() {
			break
		}
	}
	var near []string
	if dir, err := c.root.Open(base); err == nil {
		entries, _ := dir.ReadDir(1000)
		_ = dir.Close()
		slices.SortFunc(entries, func(a, b fs.DirEntry) int { return cmp.Compare(a.Name(), b.Name()) })
		for _, e := range entries {
			near = append(near, e.Name())
		}
	}
	if len(near) == 0 {
		return fmt.Errorf("artifact %q: no file matches %q; directory %q is empty", g.Name, g.Pattern, base)
	}
	return fmt.Errorf("artifact %q: no file matches %q; directory %q holds %s", g.Name, g.Pattern, base, list(near))
}

// list quotes the first few names.
func list(names []string) string {
	const most = 8
	var quoted []string
	for _, n := range names[:min(most, len(names))] {
		quoted = append(quoted, fmt.Sprintf("%q", n))
	}
	text := strings.Join(quoted, ", ")
	if more := len(names) - most; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

// reports copies what matches the patterns, within the bounds; what is left
// out is said by note.
func (c *collector) reports(patterns []string, note func(string)) (paths []string) {
	var names []string
	for _, p := range patterns {
		found, err := c.match(p, MaxReports)
		if err != nil {
			note("reports: " + err.Error())
		}
		names = append(names, found...)
	}
	slices.Sort(names)
	names = slices.Compact(names)
	if len(names) > MaxReports {
		note(fmt.Sprintf("reports: only the first %d files are kept", MaxReports))
		names = names[:MaxReports]
	}
	left := int64(MaxReportBytes)
	for _, name := range names {
		file, err := c.copy(name, left, false) // a thousand syncs would take seconds
		if err != nil {
			note("reports: " + err.Error())
			continue
		}
		left -= file.Size
		paths = append(paths, file.Path)
	}
	return paths
}

var outputKey = regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_]*$`)

// readOutputs reads the key=value lines that the steps wrote to $SHUNT_OUTPUT;
// the last one of a key counts. What is wrong is said by note and left out. An
// output that holds a secret is left out too, since outputs are shown.
func readOutputs(path string, secrets []string, note func(string)) map[string]string {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		note("$SHUNT_OUTPUT: it cannot be read any more")
		return nil
	}
	defer f.Close() //nolint:errcheck // opened for reading
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		note("$SHUNT_OUTPUT: it is no regular file any more")
		return nil
	}
	data, err := io.ReadAll(io.LimitReader(f, MaxOutputs+1))
	if err != nil {
		note("$SHUNT_OUTPUT: it cannot be read any more")
		return nil
	}
	if len(data) > MaxOutputs {
		note(fmt.Sprintf("$SHUNT_OUTPUT: only the lines within the first %d bytes are read", MaxOutputs))
		data = data[:max(0, bytes.LastIndexByte(data[:MaxOutputs], '\n'))]
	}
	outputs := map[string]string{}
	number := 0
	for line := range strings.Lines(string(data)) {
		number++
		line = strings.TrimRight(line, "\r\n")
		if line == "" {
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		switch {
		case !ok || !outputKey.MatchString(key):
			note(fmt.Sprintf("$SHUNT_OUTPUT: line %d is not key=value and is left out", number))
		case !utf8.ValidString(value) || strings.IndexByte(value, 0) >= 0:
			note(fmt.Sprintf("$SHUNT_OUTPUT: the value of %s is not text and is left out", key))
		case slices.ContainsFunc(secrets, func(s string) bool { return len(s) >= 4 && strings.Contains(value, s) }):
			note(fmt.Sprintf("$SHUNT_OUTPUT: the value of %s holds a secret and is left out", key))
		default:
			outputs[key] = value
		}
	}
	return outputs
}
