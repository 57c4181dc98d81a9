package gitrepo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path"
	"strconv"
	"strings"

	"github.com/shuntcd/shunt/internal/delivery"
)

// ReadFile reads a file of a commit, at most limit bytes long. Only a plain file
// is read: the answer for a symbolic link, a submodule, a directory or a file that
// is too long is a *delivery.Error that names the file and shows nothing of it.
// A missing file is of KindNotFound.
func (r *Repo) ReadFile(ctx context.Context, commit, file string, limit int64) ([]byte, error) {
	id, err := r.id(ctx, commit)
	if err != nil {
		return nil, err
	}
	if file == "" || path.Clean("/"+file) != "/"+file || strings.HasPrefix(file, "-") || hasControl(file) {
		return nil, delivery.Errf(delivery.KindInvalid, "bad file name", fmt.Sprintf("%.200q is not a plain path in the repository", file))
	}
	what := fmt.Sprintf("cannot read %s at %s", file, delivery.ShortHash(id))
	c := r.inside("ls-tree", "-z", "--long", "--full-tree")
	c.operands = []string{id, file}
	out, err := r.run(ctx, c)
	if err != nil {
		return nil, r.missing([]string{id}, err)
	}
	entry, name, _ := bytes.Cut(bytes.TrimSuffix(out, []byte{0}), []byte{'\t'})
	f := strings.Fields(string(entry)) // mode, type, object, size
	if len(f) != 4 || string(name) != file {
		return nil, delivery.Errf(delivery.KindNotFound, what, "there is no such file in the commit")
	}
	switch f[0] {
	case "100644", "100755":
	case "120000":
		return nil, delivery.Errf(delivery.KindInvalid, what, "it is a symbolic link; Shunt reads only plain files")
	case "160000":
		return nil, delivery.Errf(delivery.KindInvalid, what, "it is a submodule; Shunt reads only plain files")
	case "040000":
		return nil, delivery.Errf(delivery.KindInvalid, what, "it is a directory")
	default:
		return nil, delivery.Errf(delivery.KindInvalid, what, "it is not a plain file (mode "+f[0]+")")
	}
	size, err := strconv.ParseInt(f[3], 10, 64)
	if err != nil {
		return nil, fmt.Errorf("git ls-tree: size %q: %w", f[3], err)
	}
	if size > limit || size > maxStdout {
		return nil, delivery.Errf(delivery.KindInvalid, what, fmt.Sprintf("it has %d bytes; %d are allowed", size, min(limit, maxStdout)))
	}
	c = r.inside("cat-file", "blob")
	c.operands, c.max = []string{f[2]}, int(size)
	out, err = r.run(ctx, c)
	if err == nil && int64(len(out)) != size {
		err = errors.New("git cat-file: shorter than ls-tree said")
	}
	return out, err
}
