package artifact

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Removing a blob races with putting the same bytes again, perhaps by another
// process. Who puts touches the blob before it looks whether that is whole; who
// removes takes it away under another name first and looks afterwards whether it
// was touched. So one of the two always sees the other.

// takenPrefix begins the names of blobs that are about to be removed.
const takenPrefix = "gone-"

// Remove removes a blob that nobody has put since a time. removed is false when
// somebody has, or when it was not there. With Remote, it is removed from both the
// directory and the object store.
func (s *Store) Remove(ctx context.Context, sha string, since time.Time) (size int64, removed bool, err error) {
	size, removed, err = s.removeLocal(sha, since)
	if err == nil && s.Remote != nil {
		return s.removeRemote(ctx, sha, since)
	}
	return size, removed, err
}

// All lists the blobs that the store holds, with size and the time of their last
// put, by digest.
func (s *Store) All(ctx context.Context) (map[string]Object, error) {
	all := map[string]Object{}
	files, err := filepath.Glob(filepath.Join(s.blobs, "??", "*"))
	if err != nil {
		return nil, fmt.Errorf("list artifacts: %w", err)
	}
	for _, file := range files {
		if info, err := os.Lstat(file); err == nil && validSHA(info.Name()) {
			all[info.Name()] = Object{Key: info.Name(), Size: info.Size(), Changed: info.ModTime()}
		}
	}
	if s.Remote == nil {
		return all, nil
	}
	objects, err := s.Remote.List(ctx, blobKey(""))
	for _, o := range objects {
		if o.Key = strings.TrimPrefix(o.Key, blobKey("")); validSHA(o.Key) {
			all[o.Key] = o
		}
	}
	return all, err
}

func (s *Store) removeLocal(sha string, since time.Time) (size int64, removed bool, err error) {
	blob, err := s.Path(sha)
	if err != nil {
		return 0, false, err
	}
	taken := filepath.Join(s.temp, takenPrefix+sha)
	if err := os.Rename(blob, taken); errors.Is(err, fs.ErrNotExist) {
		return 0, false, nil
	} else if err != nil {
		return 0, false, fmt.Errorf("remove artifact %s: %w", sha, err)
	}
	info, err := os.Stat(taken)
	if errors.Is(err, fs.ErrNotExist) { // a process that starts has given it back
		return 0, false, nil
	}
	if err != nil {
		return 0, false, fmt.Errorf("remove artifact %s: %w", sha, err)
	}
	if !info.ModTime().Before(since) {
		return 0, false, s.giveBack(taken)
	}
	if err := os.Remove(taken); errors.Is(err, fs.ErrNotExist) {
		return 0, false, nil
	} else if err != nil {
		return 0, false, fmt.Errorf("remove artifact %s: %w", sha, err)
	}
	return info.Size(), true, nil
}

// giveBack puts a taken blob back; one that was put again meanwhile is the same.
func (s *Store) giveBack(taken string) error {
	blob, err := s.Path(strings.TrimPrefix(filepath.Base(taken), takenPrefix))
	if err == nil {
		err = os.Rename(taken, blob)
	}
	if err != nil {
		return fmt.Errorf("keep artifact: %w", err)
	}
	return syncDir(filepath.Dir(blob))
}

// returnTaken gives back what a process that died had taken.
func (s *Store) returnTaken() error {
	taken, err := filepath.Glob(filepath.Join(s.temp, takenPrefix+"*"))
	if err != nil {
		return fmt.Errorf("open artifact store: %w", err)
	}
	for _, t := range taken {
		if err := s.giveBack(t); err != nil && !errors.Is(err, fs.ErrNotExist) { // another process may do the same
			return err
		}
	}
	return nil
}

// touch says that a blob is being put again; one that is not there is no matter.
func touch(blob string, now time.Time) error {
	if err := os.Chtimes(blob, time.Time{}, now); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err //nolint:wrapcheck // explained by the caller
	}
	return nil
}
