package demo

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
)

// files are the shop's files by slash-separated path.
type files map[string][]byte

// maxShop bounds the bytes of a shop, packed and unpacked.
const maxShop = 16 << 20

var errTooLarge = errors.New("the shop is larger than 16 MiB")

// readDir reads a work tree's shop.
func readDir(dir string) (files, error) {
	out := files{}
	root := os.DirFS(dir)
	total := 0
	err := fs.WalkDir(root, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := fs.ReadFile(root, name)
		if total += len(b); total > maxShop {
			return errTooLarge
		}
		out[name] = b
		return err
	})
	return out, err
}

// readArchive reads a packed shop and returns the SHA-256 of the very bytes
// that it was read from, so that what the shop says of itself is what it serves.
func readArchive(file string) (files, string, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, "", err
	}
	defer f.Close() //nolint:errcheck // nothing is written
	packed, err := io.ReadAll(io.LimitReader(f, maxShop+1))
	if err != nil {
		return nil, "", err
	}
	if len(packed) > maxShop {
		return nil, "", errTooLarge
	}
	sum := sha256.Sum256(packed)
	gz, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, "", fmt.Errorf("%s: %w", file, err)
	}
	out := files{}
	unpacked := io.LimitReader(gz, maxShop)
	for tr := tar.NewReader(unpacked); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return out, hex.EncodeToString(sum[:]), nil
		}
		if err != nil {
			return nil, "", fmt.Errorf("%s: %w", file, err)
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		if out[path.Clean(h.Name)], err = io.ReadAll(tr); err != nil {
			return nil, "", fmt.Errorf("%s: %w", file, err)
		}
	}
}

// Source says where a shop's files are: a directory or an archive.
type Source struct {
	Dir, Archive string
}

// Open reads the shop. From an archive it also says which one: the label
// "sha256".
func (s Source) Open(labels map[string]string) (*Shop, error) {
	labels = maps.Clone(labels)
	var f files
	var digest string
	var err error
	if s.Archive != "" {
		if f, digest, err = readArchive(s.Archive); err == nil {
			labels["sha256"] = digest
		}
	} else {
		f, err = readDir(s.Dir)
	}
	if err != nil {
		return nil, err
	}
	return NewShop(f, labels)
}
