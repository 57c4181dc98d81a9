package server

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"filippo.io/age"
	"golang.org/x/sys/unix"

	"github.com/shuntcd/shunt/internal/delivery"
)

// makeData makes the data directory and those in it. Their names survive a power
// loss: what is synced below a directory that vanishes is lost with it.
func makeData(dir string) error {
	for sub, mode := range map[string]os.FileMode{"blobs": 0o750, "logs": 0o750, "mirrors": 0o700, "published": 0o750, "runner": 0o700, "work": 0o750} {
		if err := os.MkdirAll(filepath.Join(dir, sub), mode); err != nil {
			return fmt.Errorf("make data directory: %w", err)
		}
	}
	if err := errors.Join(syncDir(dir), syncDir(filepath.Dir(filepath.Clean(dir)))); err != nil {
		return fmt.Errorf("make data directory: %w", err)
	}
	return nil
}

// keepFile writes a small file for this user only, so that after a crash or a
// power loss it is there whole, or as it was before.
func keepFile(file string, content []byte) error {
	if old, err := os.ReadFile(file); err == nil && bytes.Equal(old, content) {
		return nil
	}
	f, err := os.CreateTemp(filepath.Dir(file), ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) //nolint:errcheck // it is renamed by then
	_, err = f.Write(content)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), file); err != nil {
		return err
	}
	return syncDir(filepath.Dir(file))
}

// lockDir makes sure that one server uses a data directory.
func lockDir(dir string) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(dir, "server.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock data directory: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(&delivery.Error{Kind: delivery.KindConflict, What: "cannot start on " + dir, Why: "another Shunt server uses this data directory", Next: "Stop it first, or name another directory:  --data DIR", Err: err}, f.Close())
	}
	return func() { _ = f.Close() }, nil
}

// instanceName is the name of this data directory among the servers of one
// database; it is made once.
func instanceName(file string) (string, error) {
	name, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		name = []byte(randomName())
		err = keepFile(file, name)
	}
	if err != nil {
		return "", fmt.Errorf("name this data directory: %w", err)
	}
	return string(bytes.TrimSpace(name)), nil
}

func randomName() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// sealer encrypts secrets at rest with the installation's key, which is a file
// beside the database and no part of a backup of it.
type sealer struct{ key *age.X25519Identity }

func openSealer(file string) (*sealer, error) {
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		key, err := age.GenerateX25519Identity()
		if err != nil {
			return nil, fmt.Errorf("make secret key: %w", err)
		}
		if err := keepFile(file, []byte(key.String()+"\n")); err != nil {
			return nil, fmt.Errorf("keep secret key: %w", err)
		}
		return &sealer{key}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read secret key: %w", err)
	}
	key, err := age.ParseX25519Identity(string(bytes.TrimSpace(text)))
	if err != nil {
		return nil, &delivery.Error{Kind: delivery.KindInvalid, What: "cannot read the secret key " + file, Why: "it is no age identity", Next: "Restore the file from where the key is kept.", Err: err}
	}
	return &sealer{key}, nil
}

func (s *sealer) seal(value string) (string, error) {
	var b bytes.Buffer
	w, err := age.Encrypt(&b, s.key.Recipient())
	if err == nil {
		_, err = io.WriteString(w, value)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		return "", fmt.Errorf("seal secret: %w", err)
	}
	return base64.StdEncoding.EncodeToString(b.Bytes()), nil
}

func (s *sealer) open(sealed string) (string, error) {
	raw, err := base64.StdEncoding.DecodeString(sealed)
	if err != nil {
		return "", fmt.Errorf("open secret: %w", err)
	}
	r, err := age.Decrypt(bytes.NewReader(raw), s.key)
	if err != nil {
		return "", fmt.Errorf("open secret: %w", err)
	}
	value, err := io.ReadAll(r)
	if err != nil {
		return "", fmt.Errorf("open secret: %w", err)
	}
	return string(value), nil
}
