package runlog_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/shuntcd/shunt/internal/runlog"
)

// longLog is a log of n lines and where each begins.
func longLog(n int) (log []byte, starts []int64) {
	var b bytes.Buffer
	for i := range n {
		starts = append(starts, int64(b.Len()))
		fmt.Fprintf(&b, "%d |line %d%s\n", 1700000000000000+i, i+1, strings.Repeat(".", i%7))
	}
	return b.Bytes(), starts
}

func TestIndexFindsEveryLine(t *testing.T) {
	t.Parallel()
	log, starts := longLog(3*runlog.IndexEvery + 17)
	r, size := bytes.NewReader(log), int64(len(log))
	var x runlog.Index
	half := starts[runlog.IndexEvery+5]
	if grown, err := x.Extend(t.Context(), r, half); !grown || err != nil {
		t.Fatal(grown, err)
	}
	kept := runlog.DecodeIndex(x.Encode(), size)
	if grown, err := kept.Extend(t.Context(), r, size); !grown || err != nil {
		t.Fatal(grown, err)
	}
	if grown, _ := kept.Extend(t.Context(), r, size); grown {
		t.Error("it grew from nothing")
	}
	if n := len(kept.Encode()); n != 4*8 {
		t.Errorf("%d bytes are kept", n)
	}
	for _, line := range []int{1, 2, 9_999, 10_000, 10_001, 10_002, 20_000, 20_001, 30_001, 30_017} {
		at, err := kept.Offset(t.Context(), r, size, int64(line))
		if err != nil || at != starts[line-1] {
			t.Errorf("line %d begins at %d, not %d (%v)", line, at, starts[line-1], err)
		}
		back, err := kept.Line(t.Context(), r, starts[line-1])
		if err != nil || back != int64(line) {
			t.Errorf("at %d is line %d, not %d (%v)", starts[line-1], back, line, err)
		}
	}
	for _, line := range []int64{-1, 0} {
		if at, _ := kept.Offset(t.Context(), r, size, line); at != 0 {
			t.Errorf("line %d begins at %d", line, at)
		}
	}
	if at, _ := kept.Offset(t.Context(), r, size, 1<<40); at != starts[len(starts)-1] {
		t.Errorf("a line behind the end begins at %d", at)
	}
	if n, _ := kept.Line(t.Context(), r, size); n != int64(len(starts))+1 {
		t.Errorf("%d lines", n-1)
	}
	// An index of another, shorter log, or garbage, is found again.
	for _, bad := range [][]byte{kept.Encode()[8:], []byte("garbage!garbage!"), append(kept.Encode(), 1, 2, 3), nil} {
		x := runlog.DecodeIndex(bad, size)
		if _, err := x.Extend(t.Context(), r, size); err != nil || !bytes.Equal(x.Encode(), kept.Encode()) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestSearchCountsTheWholeLog(t *testing.T) {
	t.Parallel()
	log := []byte("1 #step 1: make\n2 |Error: a\n3 |fine\n4 |\x1b[31mER\x1b[0mror: b\n5 |ÄRGER\n6 +part of an\n7 |error\n")
	r, size := bytes.NewReader(log), int64(len(log))
	for _, tt := range []struct {
		text string
		from int64
		want runlog.Found
	}{
		{"error", 0, runlog.Found{Count: 3, Nth: 1, Line: 2, Next: 4}},
		{"ERROR", 3, runlog.Found{Count: 3, Nth: 2, Line: 4, Previous: 2, Next: 7}},
		{"error", 7, runlog.Found{Count: 3, Nth: 3, Line: 7, Previous: 4}},
		{"error", 99, runlog.Found{Count: 3, Nth: 3, Line: 7, Previous: 4}},
		{"ärger", 0, runlog.Found{Count: 1, Nth: 1, Line: 5}},
		{"1 #step", 0, runlog.Found{}},
		{"nothing", 0, runlog.Found{}},
		{"", 0, runlog.Found{}},
	} {
		got, err := runlog.Search(t.Context(), r, size, tt.text, tt.from)
		if err != nil || got != tt.want {
			t.Errorf("%q from %d: %+v %v", tt.text, tt.from, got, err)
		}
	}
	long, _ := longLog(50_000)
	if got, err := runlog.Search(t.Context(), bytes.NewReader(long), int64(len(long)), "line 4999", 0); err != nil || got.Count != 11 || got.Line != 4999 || got.Next != 49990 {
		t.Errorf("%+v %v", got, err)
	}
}
