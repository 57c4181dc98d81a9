package notify

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net/mail"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/shuntcd/shunt/internal/delivery"
)

// maxStored bounds one mail that ReadDir reads, in bytes.
const maxStored = 1 << 20

// Dir is a mailbox in a directory: the demo's, and one for machines without mail.
type Dir struct{ Path string }

// Send writes Path/<time>-<key>.eml. The same message twice is one file.
func (d Dir) Send(_ context.Context, m Message) error {
	if m.Date.IsZero() {
		m.Date = delivery.SystemClock{}.Now()
	}
	msg, err := m.Build()
	if err != nil {
		return err
	}
	var b bytes.Buffer
	if _, err := msg.WriteTo(&b); err != nil {
		return permanent("it cannot be written", err)
	}
	if err := d.write(m.Date.UTC().Format("20060102T150405.000000Z")+"-"+idPart(m.Key)+".eml", b.Bytes()); err != nil {
		return temporary("the mailbox directory cannot be written", err)
	}
	return nil
}

// write makes a file that is whole as soon as it has its name, durably.
func (d Dir) write(name string, content []byte) error {
	if err := os.MkdirAll(d.Path, 0o750); err != nil {
		return err
	}
	temp, err := os.CreateTemp(d.Path, ".mail-*")
	if err != nil {
		return err
	}
	defer os.Remove(temp.Name()) //nolint:errcheck // after the rename it is gone
	_, err = temp.Write(content)
	if err := errors.Join(err, temp.Sync(), temp.Close()); err != nil {
		return err
	}
	if err := os.Rename(temp.Name(), filepath.Join(d.Path, name)); err != nil {
		return err
	}
	dir, err := os.Open(d.Path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// Stored is a mail in a Dir. All its texts are hostile.
type Stored struct {
	ID      string // file name without .eml
	Subject string
	From    string
	To      string
	Date    time.Time
	Thread  string // Message-ID of the thread's root; empty: none
	Text    string
	HTML    string
}

// ReadDir reads the mails of a Dir, newest first. A mail that cannot be read
// keeps its place, with a subject that says so.
func ReadDir(path string) ([]Stored, error) {
	entries, err := os.ReadDir(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read mailbox: %w", err)
	}
	var all []Stored
	for _, e := range slices.Backward(entries) { // names begin with the time
		id, ok := strings.CutSuffix(e.Name(), ".eml")
		if !ok || !e.Type().IsRegular() {
			continue
		}
		s, err := readMail(filepath.Join(path, e.Name()))
		if err != nil {
			s = Stored{Subject: "(this mail cannot be read)", Text: line(err.Error(), 300)}
		}
		s.ID = id
		all = append(all, s)
	}
	return all, nil
}

func readMail(path string) (Stored, error) {
	f, err := os.Open(path)
	if err != nil {
		return Stored{}, err
	}
	defer f.Close() //nolint:errcheck // only read from
	m, err := mail.ReadMessage(io.LimitReader(f, maxStored))
	if err != nil {
		return Stored{}, err
	}
	var words mime.WordDecoder
	decoded := func(name string) string {
		if s, err := words.DecodeHeader(m.Header.Get(name)); err == nil {
			return s
		}
		return m.Header.Get(name)
	}
	s := Stored{Subject: decoded("Subject"), From: decoded("From"), To: decoded("To"), Thread: strings.Trim(m.Header.Get("In-Reply-To"), "<>")}
	if s.Date, err = m.Header.Date(); err != nil {
		return Stored{}, err
	}
	return s, s.readBody(m.Header.Get("Content-Type"), m.Header.Get("Content-Transfer-Encoding"), m.Body)
}

func (s *Stored) readBody(contentType, encoding string, r io.Reader) error {
	kind, params, err := mime.ParseMediaType(contentType)
	if err != nil {
		return err
	}
	if strings.HasPrefix(kind, "multipart/") {
		parts := multipart.NewReader(r, params["boundary"])
		for {
			p, err := parts.NextRawPart()
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return err
			}
			if strings.HasPrefix(p.Header.Get("Content-Type"), "multipart/") {
				continue // we never nest
			}
			if err := s.readBody(p.Header.Get("Content-Type"), p.Header.Get("Content-Transfer-Encoding"), p); err != nil {
				return err
			}
		}
	}
	if strings.EqualFold(encoding, "quoted-printable") {
		r = quotedprintable.NewReader(r)
	}
	b, err := io.ReadAll(r)
	text := strings.ReplaceAll(string(b), "\r\n", "\n")
	switch kind {
	case "text/plain":
		s.Text = text
	case "text/html":
		s.HTML = text
	}
	return err
}
