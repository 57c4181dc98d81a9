package cli

import (
	"bytes"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/google/go-cmp/cmp"

	"github.com/shuntcd/shunt/internal/pipeline"
)

func TestTamer(t *testing.T) {
	t.Parallel()
	const mark = "\ufffd"
	for _, tt := range []struct{ in, want string }{
		{"plain ä €\n\ttext", "plain ä €\n\ttext"},
		{"\x1b[1;31mred\x1b[0m", "\x1b[1;31mred\x1b[0m"},
		{"\x1b[2Jwiped", mark + "wiped"},
		{"\x1b]0;title\a", mark + "0;title" + mark},
		{"\x1b]52;c;cHduZWQ=\a", mark + "52;c;cHduZWQ=" + mark},
		{"good\rbad", "goodbad"},
		{"a\b\bb", "a" + mark + mark + "b"},
		{"\u009b2J", mark + "2J"},
		{"\x1b[" + strings.Repeat("1;", 60) + "m", mark},
		{"\x1b\n", mark + "\n"},
		{"\x7f", mark},
	} {
		// Wherever a read cuts the bytes, the outcome is the same.
		for cut := range len(tt.in) + 1 {
			var out bytes.Buffer
			w := &tamer{w: &out}
			for _, part := range []string{tt.in[:cut], tt.in[cut:]} {
				if _, err := w.Write([]byte(part)); err != nil {
					t.Fatal(err)
				}
			}
			got := out.String()
			if len(tt.in) > longestColor && strings.HasPrefix(got, mark) {
				continue // a sequence without end is given up, and what follows is text
			}
			if got != tt.want {
				t.Errorf("%q cut at %d gives %q, want %q", tt.in, cut, got, tt.want)
			}
		}
	}
}

func TestFreezeTime(t *testing.T) {
	t.Parallel()
	east := time.FixedZone("east", 2*60*60)
	for text, want := range map[string]string{
		"2026-12-24 18:00": "2026-12-24T16:00:00Z", "2026-12-24T18:00": "2026-12-24T16:00:00Z", "2026-12-24T18:00:00Z": "2026-12-24T18:00:00Z", "2026-12-24T18:00:00-05:00": "2026-12-24T23:00:00Z",
		"2026-12-24": "", "18:00": "", "2026-02-30 10:00": "", "": "", "\x1b[31m": "",
	} {
		got, err := freezeTime("from", text, east)
		if want == "" && (err == nil || strings.Contains(err.Error(), "\x1b")) || want != "" && got.Format(time.RFC3339) != want {
			t.Errorf("%q is %s, %v; want %q", text, got, err, want)
		}
	}
}

func FuzzClean(f *testing.F) {
	f.Add("x\x1b[31m\u202e\u2028\r\n\u009b")
	f.Fuzz(func(t *testing.T, s string) {
		for _, r := range clean(s) {
			if unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) {
				t.Errorf("%q lets %U through", s, r)
			}
		}
	})
}

func TestProjectName(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"https://example.org/shop/Pet_Store.git": "pet-store",
		"/srv/petstore.git/":                     "petstore",
		"git@example.org:shop/petstore.git":      "petstore",
		"ssh://example.org/x":                    "x",
	} {
		if got := projectName(in); got != want {
			t.Errorf("%s is called %q, want %q", in, got, want)
		}
	}
}

func TestHotfixBranch(t *testing.T) {
	t.Parallel()
	for _, tt := range [][3]string{
		{"hotfix/*", "cart-500", "hotfix/cart-500"},
		{"hotfix/*", "hotfix/cart-500", "hotfix/cart-500"},
		{"fix-*-now", "a", "fix-a-now"},
	} {
		if got := hotfixBranch(tt[0], tt[1]); got != tt[2] {
			t.Errorf("%s with %s is %s, want %s", tt[0], tt[1], got, tt[2])
		}
	}
}

func TestLocalJobs(t *testing.T) {
	t.Parallel()
	p, err := pipeline.Parse("x", []byte(`
version: 1
jobs:
  last: { needs: [b, a], steps: [{ run: x }] }
  b: { needs: a, steps: [{ run: x }] }
  a: { steps: [{ run: x }] }
  beyond: { needs: there, steps: [{ run: x }] }
  there: { needs: production, steps: [{ run: x }] }
environments:
  production: { approve: {}, deploy: x }
`))
	if err != nil {
		t.Fatal(err)
	}
	names := func(args ...string) []string {
		jobs, err := localJobs(p, args)
		if err != nil {
			return []string{err.Error()}
		}
		var out []string
		for _, j := range jobs {
			out = append(out, j.Name)
		}
		return out
	}
	if d := cmp.Diff([]string{"a", "b", "last"}, names()); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{"a", "b"}, names("b")); d != "" {
		t.Error(d)
	}
	if got := names("beyond"); !strings.Contains(got[0], "cannot run here") {
		t.Error(got)
	}
}

func TestTrailerDigests(t *testing.T) {
	t.Parallel()
	got := trailerDigests("Build 43\n\nShunt-Build: 43\nShunt-Artifact: app sha256:aa 22 pet store.tar.gz\nShunt-Artifact: \nX-Shunt-Artifact: x sha256:bb\n")
	if d := cmp.Diff(map[string]string{"app": "aa"}, got); d != "" {
		t.Error(d)
	}
}
