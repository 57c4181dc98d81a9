package web

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/shuntcd/shunt/internal/api"
	"github.com/shuntcd/shunt/internal/delivery"
)

// TestLineMapNeverOverlaps draws random projects: nothing that can be clicked
// covers another, and all is inside the picture.
func TestLineMapNeverOverlaps(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		in := api.Lines{Project: "p", Branches: delivery.Branches{Integration: "develop", Production: "master"}}
		at := now()
		first := rapid.Int64Range(1, 1_000_000).Draw(t, "first")
		var released []int64
		for i := range rapid.IntRange(1, 200).Draw(t, "builds") {
			at = at.Add(time.Duration(rapid.IntRange(0, 90).Draw(t, "minutes")) * time.Minute)
			s := api.Station{Build: api.Build{Number: first + int64(i), Lane: delivery.LaneMain, Branch: "develop", CreatedAt: at, Status: delivery.BuildFailed}}
			if rapid.IntRange(0, 2).Draw(t, "lane") == 0 {
				s.Lane, s.Branch = delivery.LaneHotfix, "hotfix/"+rapid.SampledFrom([]string{"a", "cart-500", "a-name-that-is-much-too-long-to-be-shown"}).Draw(t, "branch")
				if len(released) > 0 && rapid.Bool().Draw(t, "based") {
					s.Base = rapid.SampledFrom(released).Draw(t, "base")
				}
			}
			s.GateState = rapid.SampledFrom([]delivery.GateState{"", delivery.GateOpen, delivery.GatePromoted, delivery.GateRejected, delivery.GateExpired}).Draw(t, "gate")
			if rapid.IntRange(0, 3).Draw(t, "ships") == 0 {
				s.ReleasedAt = at.Add(time.Duration(rapid.IntRange(0, 600).Draw(t, "later")) * time.Minute)
				released = append(released, s.Number)
				d := api.BackMerge{Number: s.Number, OpenedAt: s.ReleasedAt}
				if rapid.Bool().Draw(t, "paid") {
					d.ClosedAt = s.ReleasedAt.Add(time.Duration(rapid.IntRange(0, 600).Draw(t, "paid later")) * time.Minute)
				}
				in.Debts = append(in.Debts, d)
			}
			in.Stations = append(in.Stations, s)
		}
		m := layoutMap(in)
		boxes := map[string][4]int{}
		for i, s := range m.Stops {
			boxes[fmt.Sprint(s.Kind, i, s.Label)] = s.box()
		}
		for i, l := range m.Names {
			boxes[fmt.Sprint("name", i, l.Text)] = [4]int{l.X, l.Y - 10, l.X + int(mapLetter*float64(len([]rune(l.Text)))), l.Y + 3}
		}
		names := make([]string, 0, len(boxes))
		for n, b := range boxes {
			names = append(names, n)
			if b[0] < 0 || b[1] < 0 || b[2] > m.Width || b[3] > m.Height {
				t.Fatalf("%s at %v is outside %dx%d", n, b, m.Width, m.Height)
			}
			if !strings.HasPrefix(n, "name") && (b[2]-b[0] < 24 || b[3]-b[1] < 24) {
				t.Fatalf("%s at %v is too small to hit", n, b)
			}
		}
		slices.Sort(names)
		for i, a := range names {
			for _, b := range names[:i] {
				p, q := boxes[a], boxes[b]
				if p[0] < q[2] && q[0] < p[2] && p[1] < q[3] && q[1] < p[3] {
					t.Fatalf("%s at %v covers %s at %v", a, p, b, q)
				}
			}
		}
		for _, tr := range m.Tracks {
			for _, p := range tr.Points {
				if p[0] < 0 || p[1] < 0 || p[0] > m.Width || p[1] > m.Height {
					t.Fatalf("track %s leaves the picture: %v", tr.Class, tr.Points)
				}
			}
		}
	})
}

// TestLineMapGolden compares the drawing; SHUNT_UPDATE=1 writes it again.
func TestLineMapGolden(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	m := layoutMap(newFake().lines())
	if err := lineMapSVG(m).Render(t.Context(), &b); err != nil {
		t.Fatal(err)
	}
	got := strings.ReplaceAll(b.String(), "><", ">\n<") + "\n"
	file := filepath.Join("testdata", "linemap.svg")
	if os.Getenv("SHUNT_UPDATE") != "" {
		if err := os.WriteFile(file, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("the drawing changed; look at it, then: SHUNT_UPDATE=1 go test ./internal/web\n%s", got)
	}
	kinds := map[string]int{}
	for _, s := range m.Stops {
		kinds[s.Kind]++
	}
	if fmt.Sprint(kinds) != "map[build:9 gate:5 merge:1 owed:1 plate:4]" {
		t.Errorf("stops: %v", kinds)
	}
}

func TestLineMapOnPage(t *testing.T) {
	t.Parallel()
	f := newFake()
	ts := serve(t, f)
	got := ask(t, ts, http.MethodGet, "/petstore", goodSession, "")
	for _, want := range []string{`aria-label="Build 43 on hotfix/cart-500: waiting. Cart answers 500 for a discontinued item"`, `href="/a/GATE43"`, "1 back-merge is owed to develop", "and runs there now", "The lines as a list"} {
		if !strings.Contains(got.body, want) {
			t.Errorf("lacks %q", want)
		}
	}
	if ask(t, ts, http.MethodGet, "/petstore?map=200", goodSession, ""); !slices.Contains(f.calls, "Lines petstore 200") || !slices.Contains(f.calls, "Lines petstore 40") {
		t.Errorf("calls: %v", f.calls)
	}
}
