package web

import (
	"encoding/xml"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
)

func TestFeeds(t *testing.T) {
	t.Parallel()
	f := newFake()
	ts := serve(t, f)
	for file, want := range map[string][]string{
		"production.svg":   {"image/svg+xml", ">build 41<", `aria-label="production: build 41"`},
		"cc.xml":           {"application/xml; charset=utf-8", `name="petstore :: main" activity="Sleeping" lastBuildStatus="Success" lastBuildLabel="43"`, "/petstore/43"},
		"deployments.atom": {"application/atom+xml; charset=utf-8", "<title>Build 40 was put back into production</title>", "<name>Ben Okafor</name>", "checkout is down"},
		"deployments.ics":  {"text/calendar; charset=utf-8", "BEGIN:VCALENDAR\r\n", "SUMMARY:petstore: build 41 went into production\r\n", "DTSTART:20261121T061200Z\r\n", "SUMMARY:petstore: the main lane is frozen\r\n", "UID:petstore-freeze-7@shunt\r\n", "Christmas", "the till moves", "stocktaking", "the tax office"},
	} {
		path := "/badge/petstore/" + file
		for _, how := range []struct{ session, query string }{{goodSession, ""}, {viewerSession, ""}, {"", "?key=key-of-petstore"}} {
			got := ask(t, ts, http.MethodGet, path+how.query, how.session, "")
			text := got.header.Get("Content-Type") + "\n" + got.body
			for _, w := range want {
				if got.status != http.StatusOK || !strings.Contains(text, w) {
					t.Errorf("%s%s: %d lacks %q\n%s", path, how.query, got.status, w, text)
				}
			}
			if how.query != "" && got.header.Get("Cross-Origin-Resource-Policy") != "cross-origin" {
				t.Errorf("%s cannot be embedded", path)
			}
			if strings.Contains(got.body, "held") {
				t.Errorf("%s tells of a hold", path)
			}
			if !strings.HasSuffix(file, ".ics") {
				for d := xml.NewDecoder(strings.NewReader(got.body)); ; {
					if _, err := d.Token(); errors.Is(err, io.EOF) {
						break
					} else if err != nil {
						t.Fatalf("%s: %v", path, err)
					}
				}
			}
		}
		wrong := ask(t, ts, http.MethodGet, path+"?key=wrong", goodSession, "")
		unknown := ask(t, ts, http.MethodGet, strings.Replace(path, "petstore", "other", 1)+"?key=key-of-petstore", "", "")
		if wrong.status != http.StatusNotFound || unknown.status != http.StatusNotFound {
			t.Errorf("%s: wrong key %d, unknown project %d", path, wrong.status, unknown.status)
		}
	}
	if got := ask(t, ts, http.MethodGet, "/petstore/settings", goodSession, ""); !strings.Contains(got.body, "/badge/petstore/production.svg?key=key-of-petstore") {
		t.Error("settings do not show the address of the badge")
	}
}

func TestFeedsAreHarmless(t *testing.T) {
	t.Parallel()
	f := newFake()
	f.poison = "\"'><script>alert(1)</script>\r\nEND:VCALENDAR\r\nX;,\\ä" + strings.Repeat("é", 80)
	ts := serve(t, f)
	for _, file := range feedFiles() {
		got := ask(t, ts, http.MethodGet, "/badge/petstore/"+file, goodSession, "")
		if got.status != http.StatusOK || !strings.HasSuffix(file, ".ics") && strings.Contains(got.body, "<script") || !strings.Contains(got.header.Get("Content-Security-Policy"), "sandbox") {
			t.Errorf("%s: %d %s", file, got.status, got.body)
		}
		if strings.HasSuffix(file, ".ics") {
			if strings.Count(got.body, "END:VCALENDAR\r\n") != 1 {
				t.Errorf("a text ends the calendar: %s", got.body)
			}
			for line := range strings.SplitSeq(strings.TrimSuffix(got.body, "\r\n"), "\r\n") {
				if len(line) > 75 || strings.ContainsAny(line, "\r\n") {
					t.Errorf("%d bytes: %q", len(line), line)
				}
			}
		}
	}
}

// TestChatSeesOnlyGenericWords covers links that are pasted into a chat.
func TestChatSeesOnlyGenericWords(t *testing.T) {
	t.Parallel()
	f := newFake()
	ts := serve(t, f)
	for next, want := range map[string]string{"/a/7KQ2MXPA": "Sign in to see this request", "/petstore/43": "Sign in to see this page", "/": "Sign in to see this page"} {
		got := ask(t, ts, http.MethodGet, "/login?next="+next, "", "")
		if !strings.Contains(got.body, `property="og:description" content="`+want+`"`) || !strings.Contains(got.body, `name="robots" content="noindex"`) || strings.Contains(got.body, "Cart answers") {
			t.Errorf("%s: %s", next, got.body)
		}
	}
	if len(f.calls) != 0 {
		t.Errorf("the backend was asked: %v", f.calls)
	}
}
