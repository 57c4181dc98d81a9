package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/shuntcd/shunt/internal/delivery"
)

// markFile is how a later demo knows the folder again; it is locked while one runs.
const markFile = ".shunt-demo"

// folder is the demo's directory.
type folder struct {
	path string
	mark *os.File
}

func (f *folder) in(elem ...string) string {
	return filepath.Join(append([]string{f.path}, elem...)...)
}

// entries are all that a demo makes in its folder, and all that a later one removes.
func entries() []string {
	return []string{"bin", "data", "mail", "production", "qa", projectName, projectName + ".git", "server.log"}
}

// openFolder makes the folder, or takes an earlier demo's and empties it.
func openFolder(ctx context.Context, path string, endRunner func(context.Context, string) error) (*folder, error) {
	what := "cannot make the demo in " + path
	if err := os.MkdirAll(path, 0o750); err != nil {
		return nil, &delivery.Error{Kind: delivery.KindInvalid, What: what, Why: err.Error(), Next: "Choose another folder:  shunt demo --dir DIR", Err: err}
	}
	list, err := os.ReadDir(path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	f := &folder{path: path}
	_, err = os.Lstat(f.in(markFile))
	if len(list) > 0 && errors.Is(err, fs.ErrNotExist) {
		return nil, &delivery.Error{Kind: delivery.KindInvalid, What: what, Why: "the folder exists, is not empty, and no demo made it", Next: "Choose another one:  shunt demo --dir DIR"}
	}
	if f.mark, err = os.OpenFile(f.in(markFile), os.O_CREATE|os.O_RDWR, 0o600); err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	if err := unix.Flock(int(f.mark.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.mark.Close()
		return nil, &delivery.Error{Kind: delivery.KindConflict, What: what, Why: "a demo runs in it", Next: "Stop that one with Ctrl-C, or choose another folder:  shunt demo --dir DIR", Err: err}
	}
	if err := f.clear(ctx, endRunner); err != nil {
		_ = f.mark.Close()
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	return f, nil
}

// clear ends what an earlier demo may have left running and removes its files.
func (f *folder) clear(ctx context.Context, endRunner func(context.Context, string) error) error {
	if _, err := os.Stat(f.in("data")); err == nil {
		if err := endRunner(ctx, f.in("data")); err != nil {
			return err
		}
	}
	if err := f.stopShops(ctx); err != nil {
		return err
	}
	for _, e := range entries() {
		if err := os.RemoveAll(f.in(e)); err != nil {
			return err
		}
	}
	return nil
}

// stopShops ends production's shop and whatever is left of QA.
func (f *folder) stopShops(ctx context.Context) error {
	states, err := filepath.Glob(f.in("qa", "*"))
	if err != nil {
		return err
	}
	for _, dir := range append(states, f.in("production", "shop")) {
		err = errors.Join(err, Stop(ctx, dir))
	}
	return err
}

// copyExe keeps this program in the folder: the one of `go run` vanishes.
func (f *folder) copyExe(exe string) (to string, err error) {
	if err := os.MkdirAll(f.in("bin"), 0o750); err != nil {
		return "", err
	}
	from, err := os.Open(exe)
	if err != nil {
		return "", err
	}
	defer from.Close() //nolint:errcheck // nothing is written
	to = f.in("bin", "shunt")
	out, err := os.OpenFile(to, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o755) //nolint:gosec // G302: a program
	if err != nil {
		return "", err
	}
	_, err = io.Copy(out, from)
	return to, errors.Join(err, out.Close())
}
