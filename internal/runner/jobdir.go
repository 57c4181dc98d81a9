package runner

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// jobDir is the directory of one job.
type jobDir string

func (d jobDir) spec() string   { return filepath.Join(string(d), "spec.json") }
func (d jobDir) log() string    { return filepath.Join(string(d), "log") }
func (d jobDir) output() string { return filepath.Join(string(d), "output") }
func (d jobDir) result() string { return filepath.Join(string(d), "result.json") }
func (d jobDir) home() string   { return filepath.Join(string(d), "home") }
func (d jobDir) tmp() string    { return filepath.Join(string(d), "tmp") }
func (d jobDir) out() string    { return filepath.Join(string(d), "out") }

// record is what spec.json keeps: which job this is and who supervises it.
type record struct {
	ID      string
	Fence   int64
	Daemons bool
	ShimPID int
	Start   uint64 // of the shim, see process
	Began   int64  // microseconds
}

// create makes the directories and empty files of a job.
func (d jobDir) create() (log *os.File, err error) {
	if err := os.Mkdir(string(d), 0o700); err != nil {
		return nil, fmt.Errorf("making the job's directory: %w", err)
	}
	for _, dir := range []string{d.home(), d.tmp(), d.out()} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			return nil, fmt.Errorf("making the job's directory: %w", err)
		}
	}
	if err := os.WriteFile(d.output(), nil, 0o600); err != nil {
		return nil, fmt.Errorf("making the job's directory: %w", err)
	}
	log, err = os.OpenFile(d.log(), os.O_WRONLY|os.O_CREATE|os.O_EXCL|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("making the job's log: %w", err)
	}
	// The directory is the proof that the job was started; a power loss must not
	// take it away. spec.json, which is saved last, syncs the names in it.
	if err := syncDir(filepath.Dir(string(d))); err != nil {
		closeFile(log)
		return nil, err
	}
	return log, nil
}

// save writes v as JSON to path so that after a crash or a power loss the file
// is there whole or not at all, and is there once save has returned.
func save(path string, v any) (err error) {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("saving %s: %w", filepath.Base(path), err)
	}
	temp := path + ".new"
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("saving %s: %w", filepath.Base(path), err)
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(temp, path)
	}
	if err == nil {
		err = syncDir(filepath.Dir(path))
	}
	if err != nil {
		return fmt.Errorf("saving %s: %w", filepath.Base(path), err)
	}
	return nil
}

func load(path string, v any) error {
	data, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(data, v)
	}
	if err != nil {
		return fmt.Errorf("reading %s: %w", filepath.Base(path), err)
	}
	return nil
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("saving a directory: %w", err)
	}
	return errors.Join(f.Sync(), f.Close())
}

// RemoveAll removes a tree that a job has written, also where the job took away
// its own right to write, as the module cache of Go does.
func RemoveAll(path string) error {
	if os.RemoveAll(path) == nil {
		return nil
	}
	_ = filepath.WalkDir(path, func(name string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() {
			_ = os.Chmod(name, 0o700) //nolint:gosec // a directory of the job's own
		}
		return nil
	})
	if err := os.RemoveAll(path); err != nil {
		return fmt.Errorf("removing a job's files: %w", err)
	}
	return nil
}
