package demo

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shuntcd/shunt/internal/delivery"
)

func makeRepo(t *testing.T) Repo {
	t.Helper()
	dir := t.TempDir()
	r, err := MakeRepo(t.Context(), dir, Values{Exe: "/bin/it's shunt", Dir: dir, Production: "localhost:9001"}, os.Environ())
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func page7(t *testing.T, r Repo) (int, string) {
	t.Helper()
	s, err := Source{Dir: filepath.Join(r.Clone, "shop")}.Open(map[string]string{"build": "1"})
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/cart/7", nil))
	return w.Code, w.Body.String()
}

// The shop really fails, and the one line really mends it.
func TestOneLineFix(t *testing.T) {
	t.Parallel()
	r := makeRepo(t)
	if code, body := page7(t, r); code != http.StatusInternalServerError || strings.Contains(body, "<table>") {
		t.Fatalf("before the fix: %d\n%s", code, body)
	}
	if err := r.Fix(); err != nil {
		t.Fatal(err)
	}
	if code, body := page7(t, r); code != http.StatusOK || !strings.Contains(body, "no longer sold") || !strings.Contains(body, "49.90 €") {
		t.Fatalf("after the fix: %d\n%s", code, body)
	}
	stat, err := r.Git(t.Context(), "diff", "--numstat")
	if err != nil || stat != "1\t1\tshop/templates/cart.html" {
		t.Fatalf("the fix is %q, %v; want one line", stat, err)
	}
}

func checks(t *testing.T, r Repo, list string) (int, string) {
	t.Helper()
	var out bytes.Buffer
	shop := filepath.Join(r.Clone, "shop")
	failed, err := Check{Source: Source{Dir: shop}, List: filepath.Join(shop, list), JUnit: filepath.Join(t.TempDir(), "r", "x.xml"), Suite: "shop", Out: &out, Clock: delivery.SystemClock{}}.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return failed, out.String()
}

func TestChecks(t *testing.T) {
	t.Parallel()
	r := makeRepo(t)
	for _, list := range []string{"tests.txt", "smoke.txt", "acceptance.txt", "security.txt"} {
		if failed, out := checks(t, r, list); failed != 0 {
			t.Errorf("%s: %d failed\n%s", list, failed, out)
		}
	}
	if err := r.Unfinished(t.Context()); err != nil {
		t.Fatal(err)
	}
	if failed, out := checks(t, r, "acceptance.txt"); failed != 1 || !strings.Contains(out, "FAIL  GET /wishlist answered 404, want 200") {
		t.Errorf("unfinished work passes: %d failed\n%s", failed, out)
	}
	n, err := r.Git(t.Context(), "rev-list", "--count", production+".."+integration)
	if err != nil || n != "4" {
		t.Errorf("develop is %s commits ahead of the empty master, %v", n, err)
	}
}

// Merging the fix into the unfinished work must be clean, as the story promises.
func TestFixMergesClean(t *testing.T) {
	t.Parallel()
	r := makeRepo(t)
	ctx := t.Context()
	if err := r.Unfinished(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Git(ctx, "switch", "--quiet", "--create", "hotfix/x", integration+"~3"); err != nil {
		t.Fatal(err)
	}
	if err := r.Fix(); err != nil {
		t.Fatal(err)
	}
	if err := r.commit(ctx, "fix"); err != nil {
		t.Fatal(err)
	}
	if out, err := r.Git(ctx, "merge-tree", "--write-tree", integration, "hotfix/x"); err != nil {
		t.Fatal(out, err)
	}
}

// The scripts are for a POSIX shell, and the folder's name may be anything.
func TestScripts(t *testing.T) {
	t.Parallel()
	r := makeRepo(t)
	scripts, err := filepath.Glob(filepath.Join(r.Clone, "ci", "*"))
	if err != nil || len(scripts) < 9 {
		t.Fatal(scripts, err)
	}
	for _, s := range scripts {
		if out, err := exec.CommandContext(t.Context(), "sh", "-n", s).CombinedOutput(); err != nil {
			t.Errorf("%s: %v %s", s, err, out)
		}
	}
	out, err := exec.CommandContext(t.Context(), "sh", "-c", `. "$1"; printf %s "$SHUNT"`, "sh", filepath.Join(r.Clone, "ci", "demo.env")).Output()
	if err != nil || string(out) != "/bin/it's shunt" {
		t.Errorf("demo.env gives %q, %v", out, err)
	}
}

func FuzzReadChecks(f *testing.F) {
	f.Add([]byte("/ 200 x\n# y\n/a 404 !z"))
	f.Fuzz(func(t *testing.T, b []byte) {
		list, err := readChecks(b)
		for _, c := range list {
			if err == nil && !strings.HasPrefix(c.path, "/") {
				t.Errorf("%q has the path %q", b, c.path)
			}
		}
	})
}
