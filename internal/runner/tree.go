package runner

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"

	"github.com/shuntcd/shunt/internal/delivery"
)

// A job for a runner that does not share the server's disk gets its directory
// over the link, and its collected files come back the same way.

// tree is the directory that a job's files are unpacked in.
func (s *server) tree(id string) string { return filepath.Join(s.dir, "work", id) }

// Send packs a directory and unpacks it on the runner as Info.Work/id. What an
// earlier call left there is replaced, unless the job has been started.
func (c *Client) Send(ctx context.Context, id, dir string) error {
	r, w := io.Pipe()
	go func() { _ = w.CloseWithError(pack(dir, w)) }()
	defer r.Close() //nolint:errcheck // ends the packer
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, fmt.Sprintf("http://runner/v%d/jobs/%s/tree", Protocol, url.PathEscape(id)), r)
	if err != nil {
		return fmt.Errorf("send files to the runner: %w", err)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return fmt.Errorf("send files to the runner: %w", err)
	}
	resp, err = c.judge(resp)
	if err != nil {
		return err
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	return resp.Body.Close() //nolint:wrapcheck // it has been read
}

// pack writes a tree as tar: directories, regular files and symbolic links.
func pack(dir string, w io.Writer) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("pack a work tree: %w", err)
	}
	defer root.Close() //nolint:errcheck // opened for its names
	out := tar.NewWriter(w)
	err = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err //nolint:wrapcheck // names the file
		}
		info, err := entry.Info()
		if err != nil {
			return err //nolint:wrapcheck // names the file
		}
		target := ""
		switch {
		case info.Mode()&fs.ModeSymlink != 0:
			if target, err = root.Readlink(name); err != nil {
				return err //nolint:wrapcheck // names the file
			}
		case !info.Mode().IsRegular() && !info.IsDir():
			return nil
		}
		head, err := tar.FileInfoHeader(info, target)
		if err != nil {
			return err //nolint:wrapcheck // names the file
		}
		// Names are bytes; PAX wants UTF-8, GNU does not care.
		*head = tar.Header{Typeflag: head.Typeflag, Name: name, Linkname: target, Size: head.Size, Mode: head.Mode & 0o777, Format: tar.FormatGNU}
		if err := out.WriteHeader(head); err != nil || !info.Mode().IsRegular() {
			return err //nolint:wrapcheck // names the file
		}
		f, err := root.Open(name)
		if err != nil {
			return err //nolint:wrapcheck // names the file
		}
		_, err = io.Copy(out, f)
		return errors.Join(err, f.Close())
	})
	if err == nil {
		err = out.Close()
	}
	if err != nil {
		return fmt.Errorf("pack a work tree: %w", err)
	}
	return nil
}

// unpack writes what pack wrote below dir. No name leads out of it: os.Root sees
// to that also where the tree holds symbolic links.
func unpack(dir string, r io.Reader) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("unpack a work tree: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("unpack a work tree: %w", err)
	}
	defer root.Close() //nolint:errcheck // opened for its names
	in := tar.NewReader(r)
	for {
		head, err := in.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = unpackOne(root, head, in)
		}
		if err != nil {
			return fmt.Errorf("unpack a work tree: %w", err)
		}
	}
}

func unpackOne(root *os.Root, head *tar.Header, in io.Reader) error {
	mode := fs.FileMode(head.Mode & 0o777)
	switch head.Typeflag {
	case tar.TypeDir:
		return root.Mkdir(head.Name, mode|0o700)
	case tar.TypeSymlink:
		return root.Symlink(head.Linkname, head.Name)
	case tar.TypeReg:
		f, err := root.OpenFile(head.Name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
		if err != nil {
			return err //nolint:wrapcheck // names the file
		}
		_, err = io.Copy(f, in)
		return errors.Join(err, f.Close())
	default:
		return fmt.Errorf("%q has type %q", head.Name, head.Typeflag)
	}
}

// receiveTree takes a job's directory.
func (s *server) receiveTree(_ http.ResponseWriter, r *http.Request) (any, error) {
	id := r.PathValue("id")
	if !idPattern.MatchString(id) {
		return nil, delivery.Errf(delivery.KindInvalid, "cannot take the files", fmt.Sprintf("%q is no job id", id))
	}
	s.mu.Lock()
	known := s.jobs[id] != nil
	s.mu.Unlock()
	if known {
		return nil, delivery.Errf(delivery.KindConflict, "cannot take the files", "job "+id+" has been started")
	}
	dir := s.tree(id)
	if err := RemoveAll(dir); err != nil {
		return nil, err
	}
	if err := unpack(dir, r.Body); err != nil {
		return nil, errors.Join(err, RemoveAll(dir))
	}
	return struct{}{}, nil
}

// Open opens a collected file of a job: an artifact or a report of its result.
func (c *Client) Open(ctx context.Context, id, path string) (io.ReadCloser, error) {
	if !c.remote {
		f, err := os.Open(path)
		if err != nil {
			return nil, fmt.Errorf("open a job's file: %w", err)
		}
		return f, nil
	}
	resp, err := c.send(ctx, http.MethodGet, fmt.Sprintf("/jobs/%s/out/%s", url.PathEscape(id), url.PathEscape(filepath.Base(path))), nil)
	if err != nil {
		return nil, err
	}
	return resp.Body, nil
}

// sendFile answers with a collected file.
func (s *server) sendFile(w http.ResponseWriter, r *http.Request) (any, error) {
	j, err := s.find(r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(j.dir.out())
	if err != nil {
		return nil, fmt.Errorf("open the job's files: %w", err)
	}
	defer root.Close() //nolint:errcheck // opened for its names
	f, err := root.Open(r.PathValue("file"))
	if err != nil {
		return nil, &delivery.Error{Kind: delivery.KindNotFound, What: "there is no such file", Why: "the job did not make it", Err: err}
	}
	defer f.Close() //nolint:errcheck // opened for reading
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("open a job's file: %w", err)
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.FormatInt(info.Size(), 10))
	if _, err := io.Copy(w, f); err != nil {
		s.log.Debug("a file was not read to its end", "job", j.record.ID, "err", err)
	}
	return nil, nil //nolint:nilnil // the answer has been sent
}
