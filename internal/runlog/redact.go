package runlog

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/url"
	"slices"
	"strings"
)

// MinSecret is the length in bytes from which a secret is redacted. Shorter
// ones would blank out half of every log.
const MinSecret = 4

const mask = "[secret]"

// Redactor replaces secrets in a stream by [secret], also when they come in
// pieces: in plain, base64 (standard and URL alphabet, at each of the three
// alignments, wrapped or not), hex, URL-escaped, JSON-escaped, shell-quoted
// and reversed form; of a secret of several lines also each line. It holds
// back only bytes that may be the start of a secret, at most the longest form.
// It is not safe for concurrent use.
type Redactor struct {
	w     io.Writer
	forms map[uint32][][]byte // by their first four bytes; longest first
	seen  [1 << 13]byte       // a bit per hash of those four bytes, to answer "no" fast
	short map[string]bool     // every start of one to three bytes of a form
	held  []byte
	out   []byte
}

// NewRedactor makes a Redactor that writes to w.
func NewRedactor(w io.Writer, secrets []string) *Redactor {
	r := &Redactor{w: w, forms: map[uint32][][]byte{}, short: map[string]bool{}}
	known := map[string]bool{}
	for _, secret := range secrets {
		for _, form := range formsOf(secret) {
			if len(form) < MinSecret || known[form] {
				continue
			}
			known[form] = true
			key := binary.LittleEndian.Uint32([]byte(form))
			r.forms[key] = append(r.forms[key], []byte(form))
			h := hash(key)
			r.seen[h>>3] |= 1 << (h & 7)
			for n := 1; n < MinSecret; n++ {
				r.short[form[:n]] = true
			}
		}
	}
	for _, list := range r.forms {
		slices.SortFunc(list, func(a, b []byte) int { return cmp.Compare(len(b), len(a)) })
	}
	return r
}

func hash(key uint32) uint32 { return key * 2654435761 >> 16 }

// Write takes part of the stream and passes on what cannot belong to a secret.
func (r *Redactor) Write(p []byte) (int, error) {
	if len(r.forms) == 0 {
		return r.w.Write(p)
	}
	data := p
	if len(r.held) > 0 {
		r.held = append(r.held, p...)
		data = r.held
	}
	rest := r.scan(data, false)
	r.held = append(r.held[:0], rest...)
	if err := r.pass(); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Flush passes on everything that cannot be the start of a secret. Write does
// so already; Flush exists so that a caller can rely on it.
func (r *Redactor) Flush() error { return r.pass() }

// Close passes on everything that is held back. It does not close the
// underlying writer.
func (r *Redactor) Close() error {
	r.scan(r.held, true)
	r.held = nil
	return r.pass()
}

// scan appends the redacted form of data to r.out and returns the bytes at its
// end that may be the start of a secret; with final set there are none.
func (r *Redactor) scan(data []byte, final bool) (rest []byte) {
	from := 0 // start of plain bytes not yet copied
	for i := 0; i < len(data); {
		if len(data)-i < MinSecret {
			if !final && r.short[string(data[i:])] {
				r.out = append(r.out, data[from:i]...)
				return data[i:]
			}
			i++
			continue
		}
		key := binary.LittleEndian.Uint32(data[i:])
		if h := hash(key); r.seen[h>>3]&(1<<(h&7)) == 0 {
			i++
			continue
		}
		n, wait := r.match(data[i:], key, final)
		switch {
		case wait:
			r.out = append(r.out, data[from:i]...)
			return data[i:]
		case n == 0:
			i++
		default:
			r.out = append(append(r.out, data[from:i]...), mask...)
			i += n
			from = i
		}
	}
	r.out = append(r.out, data[from:]...)
	return nil
}

// match finds the longest form at the start of data. It says wait when a
// longer one may still come.
func (r *Redactor) match(data []byte, key uint32, final bool) (n int, wait bool) {
	for _, form := range r.forms[key] {
		if bytes.HasPrefix(data, form) {
			return len(form), false
		}
		if !final && len(data) < len(form) && bytes.HasPrefix(form, data) {
			return 0, true
		}
	}
	return 0, false
}

func (r *Redactor) pass() error {
	if len(r.out) == 0 {
		return nil
	}
	_, err := r.w.Write(r.out)
	if cap(r.out) > 1<<20 {
		r.out = nil
	}
	r.out = r.out[:0]
	return err
}

// formsOf lists the forms in which a secret may leak.
func formsOf(secret string) []string {
	trimmed := strings.Trim(secret, "\r\n")
	plain := []string{secret, trimmed}
	if strings.Contains(trimmed, "\n") {
		for line := range strings.Lines(trimmed) {
			plain = append(plain, strings.Trim(line, "\r\n"))
		}
		plain = append(plain, strings.ReplaceAll(trimmed, "\n", " ")) // echo $SECRET
	}
	var forms []string
	for _, s := range plain {
		if len(s) < MinSecret {
			continue
		}
		runes := []rune(s)
		slices.Reverse(runes)
		raw := []byte(s)
		slices.Reverse(raw)
		hexed := hex.EncodeToString([]byte(s))
		forms = append(forms, s, string(raw), string(runes), hexed, strings.ToUpper(hexed),
			strings.ReplaceAll(s, `'`, `'\''`), strings.ReplaceAll(s, `'`, `'"'"'`))
		for _, escaped := range []string{url.QueryEscape(s), url.PathEscape(s), strings.ReplaceAll(url.QueryEscape(s), "+", "%20")} {
			forms = append(forms, escaped, lowerEscapes(escaped))
		}
		forms = append(forms, jsonForms(s)...)
		forms = append(forms, base64Forms([]byte(s))...)
	}
	return forms
}

// lowerEscapes turns %2F into %2f.
func lowerEscapes(s string) string {
	b := []byte(s)
	for i := 0; i+2 < len(b); i++ {
		if b[i] == '%' {
			copy(b[i+1:i+3], bytes.ToLower(b[i+1:i+3]))
		}
	}
	return string(b)
}

func jsonForms(s string) []string {
	var forms []string
	for _, html := range []bool{true, false} {
		var b strings.Builder
		enc := json.NewEncoder(&b)
		enc.SetEscapeHTML(html)
		if enc.Encode(s) == nil {
			form := strings.TrimSuffix(b.String(), "\n")
			forms = append(forms, form[1:len(form)-1])
			forms = append(forms, strings.ReplaceAll(form[1:len(form)-1], "/", `\/`))
		}
	}
	return forms
}

// base64Forms gives the base64 of s by itself, plain and wrapped as base64(1)
// and PEM do, and the characters of the base64 of any longer text that depend
// on s alone, at each of the three positions at which s may stand in it.
func base64Forms(s []byte) []string {
	var forms []string
	for _, enc := range []*base64.Encoding{base64.StdEncoding, base64.URLEncoding} {
		whole := enc.EncodeToString(s)
		forms = append(forms, whole, strings.TrimRight(whole, "="))
		for _, width := range []int{76, 64} {
			if len(whole) > width {
				forms = append(forms, wrap(whole, width))
			}
		}
		for before := range 3 {
			text := enc.EncodeToString(append(make([]byte, before), s...))
			first := (before*8 + 5) / 6 // the first character free of what stands before
			last := (before + len(s)) * 8 / 6
			forms = append(forms, text[first:last])
		}
	}
	return forms
}

func wrap(s string, width int) string {
	var b strings.Builder
	for len(s) > width {
		b.WriteString(s[:width] + "\n")
		s = s[width:]
	}
	return b.String() + s
}
