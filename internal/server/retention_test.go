package server

import (
	"testing"
	"time"
)

func TestParseKeep(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]time.Duration{
		"": 0, "90d": 90 * 24 * time.Hour, "1.5d": 36 * time.Hour, "12h": 12 * time.Hour,
		"0d": -1, "-3d": -1, "90": -1, "d": -1, "90dd": -1, "1000000d": -1, "1h30md": -1, "99999999999h": -1,
	} {
		got, err := ParseKeep(in)
		if (want < 0) != (err != nil) || want >= 0 && got != want {
			t.Errorf("%q is kept for %s, %v", in, got, err)
		}
	}
}
