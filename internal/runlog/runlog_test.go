package runlog

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/shuntcd/shunt/internal/delivery"
)

type fixedClock struct{}

func (fixedClock) Now() time.Time { return time.UnixMicro(1700000000000000).UTC() }

const stamp = "1700000000000000 "

var _ delivery.Clock = fixedClock{}

func write(t *testing.T, w io.Writer, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if n, err := io.WriteString(w, p); err != nil || n != len(p) {
			t.Fatalf("%d bytes of %d, %v", n, len(p), err)
		}
	}
}

func TestWriterCutsLines(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	w := NewWriter(&b, fixedClock{}, 0)
	write(t, w, "one\ntw", "o\n\n", "\x00\x1b[1m\r\n", "dots..")
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	write(t, w, ".")
	if err := w.Marker("step 2 a\nb"); err != nil {
		t.Fatal(err)
	}
	write(t, w, "end")
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	want := []string{"|one", "|two", "|", "|\x00\x1b[1m\r", "+dots..", "|.", "#step 2 a b", "|end", ""}
	got := strings.Split(strings.ReplaceAll(b.String(), stamp, ""), "\n")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if w.Size() != int64(b.Len()) {
		t.Error(w.Size(), b.Len())
	}
}

func TestWriterLimit(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	w := NewWriter(&b, fixedClock{}, 100)
	for range 50 {
		write(t, w, "0123456789\n")
	}
	if err := w.Marker("step 2"); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	lines, _, err := Read(bytes.NewReader(b.Bytes()), int64(b.Len()), 0, 100)
	if err != nil || len(lines) != 5 || lines[4].Flag != FlagMarker || lines[4].Text != "output limit reached: 517 bytes dropped" {
		t.Errorf("%v %+v", err, lines)
	}
}

// TestWriterNeedsConstantMemory writes blocks of one endless line. It is not
// parallel, because it counts the allocations of the process. (T71)
func TestWriterNeedsConstantMemory(t *testing.T) { //nolint:paralleltest // see above
	w := NewWriter(io.Discard, delivery.SystemClock{}, 1<<40)
	r := NewRedactor(w, []string{"a secret that does not occur"})
	block := bytes.Repeat([]byte("é"), 16<<10)
	allocs := testing.AllocsPerRun(1000, func() {
		if _, err := r.Write(block); err != nil {
			t.Fatal(err)
		}
	})
	if allocs > 0 {
		t.Errorf("%f allocations for each 32 KiB block", allocs)
	}
}

func TestWriterStopsAtAnError(t *testing.T) {
	t.Parallel()
	r, pipe := io.Pipe()
	full := errors.New("no space left")
	_ = r.CloseWithError(full)
	w := NewWriter(pipe, fixedClock{}, 0)
	for range 2 {
		if _, err := w.Write([]byte("x\n")); !errors.Is(err, full) {
			t.Error(err)
		}
	}
	if err := w.Close(); !errors.Is(err, full) || w.Size() != 0 {
		t.Error(err, w.Size())
	}
}

// TestWriterKeepsEveryByte: whatever comes in, in whatever pieces, comes out.
func TestWriterKeepsEveryByte(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var b bytes.Buffer
		w := NewWriter(&b, fixedClock{}, 0)
		var all strings.Builder
		for range rapid.IntRange(0, 12).Draw(t, "writes") {
			p := strings.Repeat(rapid.StringOfN(rapid.RuneFrom([]rune("ab\né\r\x00日")), 0, 20, -1).Draw(t, "text"), rapid.IntRange(1, 3000).Draw(t, "times"))
			all.WriteString(p)
			if _, err := w.Write([]byte(p)); err != nil {
				t.Fatal(err)
			}
			if rapid.Bool().Draw(t, "flush") {
				_ = w.Flush()
			}
		}
		_ = w.Close()
		var got strings.Builder
		data := bytes.NewReader(b.Bytes())
		size := int64(b.Len())
		var offsets []int64
		for next := int64(0); next < size; {
			var lines []Line
			var err error
			if lines, next, err = Read(data, size, next, 7); err != nil {
				t.Fatal(err)
			}
			for _, l := range lines {
				offsets = append(offsets, l.Offset)
				got.WriteString(l.Text)
				if l.Flag == FlagLine {
					got.WriteByte('\n')
				} else if strings.Contains(strings.ToValidUTF8(l.Text, "!"), "!") {
					t.Fatalf("cut within a character: %q", l.Text[max(0, len(l.Text)-10):])
				}
			}
		}
		want := all.String()
		if want != "" && !strings.HasSuffix(want, "\n") {
			if !strings.HasSuffix(got.String(), "\n") { // flushed as a part: the end is open
				want = strings.TrimSuffix(want, "\n")
			} else {
				want += "\n"
			}
		}
		if got.String() != want {
			t.Fatalf("got %d bytes, want %d", got.Len(), len(want))
		}
		n := rapid.IntRange(0, len(offsets)+2).Draw(t, "tail")
		at, err := TailOffset(data, size, n)
		wantAt := size
		if n > 0 && len(offsets) > 0 {
			wantAt = offsets[max(0, len(offsets)-n)]
		}
		if err != nil || at != wantAt {
			t.Fatalf("tail of %d lines at %d (%v), want %d", n, at, err, wantAt)
		}
	})
}

func TestReadRefusesWhatIsNoLog(t *testing.T) {
	t.Parallel()
	good := stamp + "|hello\n" + stamp + "|unfinished"
	read := func(s string, offset int64) ([]Line, int64, error) {
		return Read(strings.NewReader(s), int64(len(s)), offset, 10)
	}
	lines, next, err := read(good, 0)
	if err != nil || len(lines) != 1 || next != 24 || lines[0].Text != "hello" || !lines[0].At.Equal(fixedClock{}.Now()) {
		t.Errorf("%v %d %v", lines, next, err)
	}
	for _, c := range []struct {
		text   string
		offset int64
	}{
		{good, 3},
		{good, -1},
		{good, 1000},
		{"x |a\n", 0},
		{"1 ?a\n", 0},
		{"1 \n", 0},
		{"\n", 0},
		{"-1 |a\n", 0},
		{strings.Repeat("1", 1<<20), 0},
		{"1 |" + strings.Repeat("x", 1<<20) + "\n", 0},
	} {
		if _, _, err := read(c.text, c.offset); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%.20q at %d: %v", c.text, c.offset, err)
		}
	}
}

func encodings(secret string) map[string]string {
	forms := map[string]string{
		"plain": secret, "hex": hex.EncodeToString([]byte(secret)), "HEX": strings.ToUpper(hex.EncodeToString([]byte(secret))),
		"query": url.QueryEscape(secret), "path": url.PathEscape(secret), "reversed": reverse(secret),
		"shell": "'" + strings.ReplaceAll(secret, "'", `'\''`) + "'",
	}
	quoted, _ := json.Marshal(secret)
	forms["json"] = string(quoted)
	for before := range 7 {
		text := []byte(strings.Repeat("k", before) + secret + "=tail")
		forms[fmt.Sprint("base64 ", before)] = base64.StdEncoding.EncodeToString(text)
		forms[fmt.Sprint("url64 ", before)] = base64.RawURLEncoding.EncodeToString(text)
		forms[fmt.Sprint("raw64 ", before)] = base64.RawStdEncoding.EncodeToString(text[:before+len(secret)])
	}
	return forms
}

func reverse(s string) string {
	b := []byte(s)
	for i, j := 0, len(b)-1; i < j; i, j = i+1, j-1 {
		b[i], b[j] = b[j], b[i]
	}
	return string(b)
}

// TestRedactorKnowsEncodings splits every form at every byte. (T55)
func TestRedactorKnowsEncodings(t *testing.T) {
	t.Parallel()
	for _, secret := range []string{"hunter2-S3cret", `p"a's<s>&w/o+r?d%é\`, "four", "x\ny-1234567890\nz-abcdef"} {
		r := NewRedactor(nil, []string{secret, "unrelated"})
		for name, form := range encodings(secret) {
			text := "before " + form + " after\n"
			for split := range len(text) {
				var b bytes.Buffer
				r.w = &b
				write(t, r, text[:split], text[split:])
				if err := r.Flush(); err != nil {
					t.Fatal(err)
				}
				if !strings.HasSuffix(b.String(), " after\n") {
					t.Fatalf("%s: held back after a newline: %q", name, b.String())
				}
				if err := r.Close(); err != nil {
					t.Fatal(err)
				}
				got := b.String()
				// Of base64 at most the characters shared with the neighbours may be left.
				rest := strings.TrimSuffix(strings.TrimPrefix(strings.Replace(got, mask, "", 1), "before "), " after\n")
				if !strings.HasPrefix(got, "before ") || !strings.Contains(got, mask) || len(rest) > len(form)-len(secret)+4 && len(rest) > 18 {
					t.Fatalf("%s of %q split at %d: %q", name, secret, split, got)
				}
			}
		}
	}
}

func TestRedactorKnowsEachLineOfAKey(t *testing.T) {
	t.Parallel()
	body := strings.Repeat("QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVoxMjM0NTY3ODkwQUJDREVGR0hJSktM\n", 3)
	key := "-----BEGIN KEY-----\n" + body + "-----END KEY-----\n"
	var b bytes.Buffer
	r := NewRedactor(&b, []string{key})
	wrapped := wrap(base64.StdEncoding.EncodeToString([]byte(key)), 76)
	write(t, r, "  "+strings.Split(body, "\n")[1]+"\n", key, wrapped, "\nshort abc\n")
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if want := "  [secret]\n[secret][secret]\nshort abc\n"; b.String() != want {
		t.Errorf("%q", b.String())
	}
}

// TestRedactorIsExact compares the streaming redactor with one call on all of the text.
func TestRedactorIsExact(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		secrets := rapid.SliceOfN(rapid.StringMatching(`[ab]{1,9}`), 0, 4).Draw(t, "secrets")
		parts := rapid.SliceOf(rapid.StringMatching(`[ab\n]{0,12}`)).Draw(t, "parts")
		var streamed, whole bytes.Buffer
		s, w := NewRedactor(&streamed, secrets), NewRedactor(&whole, secrets)
		for _, p := range parts {
			_, _ = s.Write([]byte(p))
		}
		_, _ = w.Write([]byte(strings.Join(parts, "")))
		_, _ = s.Close(), w.Close()
		if streamed.String() != whole.String() {
			t.Fatalf("%q, want %q", streamed.String(), whole.String())
		}
		for _, secret := range secrets {
			if len(secret) >= MinSecret && strings.Contains(streamed.String(), secret) {
				t.Fatalf("%q is in %q", secret, streamed.String())
			}
		}
	})
}

func BenchmarkRedactor(b *testing.B) {
	r := NewRedactor(io.Discard, []string{"hunter2-S3cret", "ghp_abcdefghijklmnop", strings.Repeat("line of a key 0123456789\n", 40)})
	block := bytes.Repeat([]byte("2024-01-01 INFO compiling package number seven of twelve\n"), 1000)
	b.SetBytes(int64(len(block)))
	for b.Loop() {
		_, _ = r.Write(block)
	}
}

func BenchmarkWriter(b *testing.B) {
	w := NewWriter(io.Discard, delivery.SystemClock{}, 1<<50)
	block := bytes.Repeat([]byte("2024-01-01 INFO compiling package number seven of twelve\n"), 1000)
	b.SetBytes(int64(len(block)))
	for b.Loop() {
		_, _ = w.Write(block)
	}
}
