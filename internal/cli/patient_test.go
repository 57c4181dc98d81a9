package cli

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// A GET is repeated until it is answered whole; a POST that may have been taken is not.
func TestPatientClient(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := asked.Add(1)
		w.Header().Set("Content-Type", "application/json")
		switch {
		case r.Method == http.MethodPost, n == 1:
			panic(http.ErrAbortHandler) // the answer is lost
		case n == 2:
			w.WriteHeader(http.StatusServiceUnavailable)
		case n == 3: // breaks off
			w.Header().Set("Content-Length", "100")
			_, _ = io.WriteString(w, `{"half`)
		default:
			_, _ = io.WriteString(w, `{"whole": true}`)
		}
	}))
	t.Cleanup(s.Close)
	var noted []string
	c := patientClient(time.Minute, func(format string, args ...any) { noted = append(noted, fmt.Sprintf(format, args...)) })
	ask := func(method string) (string, error) {
		req, err := http.NewRequestWithContext(t.Context(), method, s.URL, strings.NewReader("x"))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := c.Do(req)
		if err != nil {
			return "", err
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		return string(b), err
	}
	if got, err := ask(http.MethodGet); err != nil || got != `{"whole": true}` || asked.Load() != 4 || len(noted) != 1 {
		t.Errorf("GET gives %q, %v after %d times; noted %q", got, err, asked.Load(), noted)
	}
	if got, err := ask(http.MethodPost); err == nil || asked.Load() != 5 {
		t.Errorf("POST gives %q after %d times; a lost answer must be an error at once", got, asked.Load())
	}
}

// A server that never answered is not waited for.
func TestPatientClientImpatient(t *testing.T) {
	t.Parallel()
	s := httptest.NewServer(http.NotFoundHandler())
	s.Close()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := patientClient(0, nil).Do(req)
	if err == nil {
		_ = resp.Body.Close()
		t.Error("a closed server answers")
	}
}
