package junit

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"
)

// input hands the XML decoder text that it accepts: invalid UTF-8, characters
// that XML forbids and references to such characters (&#27; in coloured output)
// become U+FFFD. It counts, so that neither the report nor one tag of it can
// fill the memory.
type input struct {
	r       *bufio.Reader
	left    int64  // bytes that may still be read
	pending []byte // decoded, not yet handed out
	store   [utf8.UTFMax]byte

	token int // bytes handed out for the decoder's current token
	tag   bool
	last  byte
}

func newInput(r io.Reader, limit int64) *input {
	return &input{r: bufio.NewReaderSize(r, 64<<10), left: limit}
}

// startToken tells that the decoder begins a new token. It may have read the <
// of it already, to see the end of the text before.
func (in *input) startToken() { in.token, in.tag = 0, in.last == '<' }

// Read is here because the decoder wants an io.Reader; it uses ReadByte.
func (in *input) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	b, err := in.ReadByte()
	if err != nil {
		return 0, err
	}
	p[0] = b
	return 1, nil
}

// ReadByte returns the next byte of the cleaned text.
func (in *input) ReadByte() (byte, error) {
	if len(in.pending) == 0 {
		if err := in.fill(); err != nil {
			return 0, err
		}
	}
	b := in.pending[0]
	in.pending = in.pending[1:]
	in.token++
	switch {
	case in.token == 1 && b == '<':
		in.tag = true
	case in.token <= 2 && b == '!' && in.last == '<': // comment, CDATA: bounded by the report
		in.tag = false
	case in.tag && in.token > maxTag:
		return 0, fmt.Errorf("one tag is larger than %d MiB", maxTag>>20)
	}
	in.last = b
	return b, nil
}

// fill decodes the next rune.
func (in *input) fill() error {
	r, size, err := in.r.ReadRune()
	if err != nil {
		return err
	}
	if r == '&' {
		if n := in.badReference(); n > 0 {
			_, _ = in.r.Discard(n) // n bytes were peeked, so they are there
			r, size = utf8.RuneError, size+n
		}
	}
	if in.left -= int64(size); in.left < 0 {
		return fmt.Errorf("it is larger than %d MiB", maxBytes>>20)
	}
	if !allowed(r) {
		r = utf8.RuneError
	}
	in.pending = in.store[:utf8.EncodeRune(in.store[:], r)]
	return nil
}

// badReference looks at what follows a & and returns the length of a character
// reference that XML forbids, or 0.
func (in *input) badReference() int {
	ahead, err := in.r.Peek(12)
	if err != nil && !errors.Is(err, io.EOF) {
		return 0
	}
	body, _, found := strings.Cut(string(ahead), ";")
	digits, isReference := strings.CutPrefix(body, "#")
	if !found || !isReference {
		return 0
	}
	base := 10
	if hex, ok := strings.CutPrefix(digits, "x"); ok {
		digits, base = hex, 16
	}
	n, err := strconv.ParseUint(digits, base, 32)
	if err != nil || n <= utf8.MaxRune && allowed(rune(n)) {
		return 0
	}
	return len(body) + 1
}

// allowed tells whether XML 1.0 allows a character.
func allowed(r rune) bool {
	return r == '\t' || r == '\n' || r == '\r' ||
		r >= 0x20 && r <= 0xD7FF || r >= 0xE000 && r <= 0xFFFD || r >= 0x10000 && r <= 0x10FFFF
}
