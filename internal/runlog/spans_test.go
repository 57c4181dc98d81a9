package runlog

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"unicode"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden file")

// TestSpansGolden shows the 60 sequences of testdata/sequences.txt, one Go
// string literal a line, and what becomes of each. (T40)
func TestSpansGolden(t *testing.T) {
	t.Parallel()
	input, err := os.ReadFile("testdata/sequences.txt")
	if err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	count := 0
	for line := range strings.Lines(string(input)) {
		text, err := strconv.Unquote(strings.TrimSpace(line))
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		count++
		got.WriteString(strings.TrimSpace(line) + "\n")
		for _, s := range Spans(text) {
			var b strings.Builder
			enc := json.NewEncoder(&b)
			enc.SetEscapeHTML(false)
			if err := enc.Encode(s); err != nil {
				t.Fatal(err)
			}
			got.WriteString("    " + b.String())
		}
		got.WriteString("    plain: " + Strip(text) + "\n")
	}
	if count < 60 {
		t.Errorf("only %d sequences", count)
	}
	golden := filepath.Join("testdata", "spans.golden")
	if *update {
		if err := os.WriteFile(golden, []byte(got.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got.String()); diff != "" {
		t.Error(diff)
	}
}

// checkSafe holds for every text whatsoever.
func checkSafe(t *testing.T, text string) {
	t.Helper()
	for _, s := range append(Spans(text), Span{Text: Strip(text)}) {
		for _, r := range s.Text {
			if unicode.IsControl(r) && r != '\t' || unicode.Is(unicode.Bidi_Control, r) {
				t.Fatalf("%q shows %U", text, r)
			}
		}
		if s.Href != "" && !strings.HasPrefix(strings.ToLower(s.Href), "http://") && !strings.HasPrefix(strings.ToLower(s.Href), "https://") {
			t.Fatalf("%q links to %q", text, s.Href)
		}
		if strings.Trim(s.Class, "abcdefghijklmnopqrstuvwxyz0123456789- ") != "" {
			t.Fatalf("%q has class %q", text, s.Class)
		}
	}
}

func TestSpansAreBounded(t *testing.T) {
	t.Parallel()
	for _, unit := range []string{"\x1b]8;;http://x", "\x1b[", "\x1b]", "\x1b[1;", "\x1bP", "\x9b", "\u009b", "\x1b[31m", "\x00"} {
		checkSafe(t, strings.Repeat(unit, 200_000))
	}
	checkSafe(t, "\x1b]8;;"+strings.Repeat("a", 10<<20))
	checkSafe(t, "\x1b["+strings.Repeat("1", 10<<20))
}

func TestNearestColour(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"38;2;0;0;0": "fg-x16", "38;2;255;255;255": "fg-x231", "38;2;255;0;0": "fg-x196", "38;2;128;128;128": "fg-x244",
		"38;2;95;135;175": "fg-x67", "48;2;8;8;8": "bg-x232", "38;2;300;0;0": "", "38;5;3": "fg-3", "38;5;256": "", "38:2::1:2:3": "fg-x16",
	} {
		var s style
		s.apply(in)
		if s.class() != want {
			t.Errorf("%s: %s, want %s", in, s.class(), want)
		}
	}
}

func FuzzSpans(f *testing.F) {
	input, err := os.ReadFile("testdata/sequences.txt")
	if err != nil {
		f.Fatal(err)
	}
	for line := range strings.Lines(string(input)) {
		if text, err := strconv.Unquote(strings.TrimSpace(line)); err == nil {
			f.Add(text)
		}
	}
	f.Fuzz(checkSafe)
}

func FuzzParseLine(f *testing.F) {
	f.Add([]byte("1700000000000000 |text\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if l, err := ParseLine(b); err == nil && strings.Contains(l.Text, "\n") {
			t.Fatalf("%q", l.Text)
		}
	})
}
