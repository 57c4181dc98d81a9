package nexus_test

import (
	"bytes"
	"encoding/json"
	"io"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/shuntcd/shunt/internal/testkit/nexus"
)

func ask(t *testing.T, req *http.Request) (int, string) {
	t.Helper()
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	return ask(t, req)
}

func upload(t *testing.T, url string, fields ...string) (int, string) {
	t.Helper()
	var body bytes.Buffer
	form := multipart.NewWriter(&body)
	for _, f := range fields {
		name, value, _ := strings.Cut(f, "=")
		if err := form.WriteField(name, value); err != nil {
			t.Fatal(err)
		}
	}
	file, err := form.CreateFormFile("maven2.asset1", "a.jar")
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(file, "bytes")
	_ = form.Close()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+"/service/rest/v1/components?repository=releases", &body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", form.FormDataContentType())
	return ask(t, req)
}

func TestDoubleAnswersLikeNexus(t *testing.T) {
	t.Parallel()
	double := nexus.New(nexus.Options{})
	server := httptest.NewServer(double)
	t.Cleanup(server.Close)
	t.Cleanup(double.Close)
	fields := []string{"maven2.groupId=org.example", "maven2.artifactId=a", "maven2.version=1", "maven2.asset1.extension=jar", "maven2.generate-pom=true"}
	if status, body := upload(t, server.URL, fields...); status != http.StatusNoContent {
		t.Fatalf("upload: %d %s", status, body)
	}
	status, body := upload(t, server.URL, fields...)
	var problems []struct{ ID, Message string }
	if err := json.Unmarshal([]byte(body), &problems); status != http.StatusBadRequest || err != nil || len(problems) != 1 || !strings.Contains(problems[0].Message, "does not allow updating") {
		t.Errorf("repeat: %d %s", status, body)
	}
	if status, body := upload(t, server.URL, fields[1:]...); status != http.StatusBadRequest || !strings.Contains(body, "maven2.groupId") {
		t.Errorf("missing field: %d %s", status, body)
	}
	const sha256 = "277089d91c0bdf4f2e6862ba7e4a07605119431f5d13f726dd352b06f1b206a9" // of "bytes"
	asset := server.URL + "/repository/releases/org/example/a/1/a-1.jar"
	for url, want := range map[string]string{asset: "bytes", asset + ".sha256": sha256, asset + ".sha1": "da39", strings.TrimSuffix(asset, ".jar") + ".pom": "<project"} {
		if status, got := get(t, url); status != http.StatusOK || strings.HasSuffix(url, "sha256") && got != want || strings.HasSuffix(url, "sha1") && len(got) != 40 || strings.HasSuffix(url, ".jar") && got != want {
			t.Errorf("%s: %d %s", url, status, got)
		}
	}
	if _, found := get(t, server.URL+"/service/rest/v1/search/assets?repository=releases&sha256="+sha256); !strings.Contains(found, `"path":"org/example/a/1/a-1.jar"`) {
		t.Errorf("search: %s", found)
	}
}
