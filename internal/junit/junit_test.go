package junit_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/shuntcd/shunt/internal/delivery"
	"github.com/shuntcd/shunt/internal/junit"
)

const (
	passed  = delivery.TestPassed
	failed  = delivery.TestFailed
	skipped = delivery.TestSkipped
	flaky   = delivery.TestFlaky
)

func TestParseReportsOfKnownTools(t *testing.T) {
	t.Parallel()
	want := map[string][]delivery.TestCase{
		"surefire.xml": {
			{Suite: "org.example.CartTest", Class: "org.example.CartTest", Name: "total", State: passed, Millis: 12},
			{Suite: "org.example.CartTest", Class: "org.example.CartTest", Name: "discontinued", State: failed, Millis: 1234500, Message: "org.opentest4j.AssertionFailedError: expected: <200> but was: <500>\n\tat org.example.CartTest.discontinued(CartTest.java:31)"},
			{Suite: "org.example.CartTest", Class: "org.example.CartTest", Name: "payment", State: skipped, Message: "needs the bank"},
			{Suite: "org.example.CartTest", Class: "org.example.CartTest", Name: "eventually", State: flaky, Millis: 100, Message: "first run: timeout\nat Wait.java:7"},
			{Suite: "org.example.CartTest", Class: "org.example.CartTest", Name: "never", State: failed, Message: "run 1"},
		},
		"gotestsum.xml": {
			{Suite: "example.org/petstore/cart", Class: "example.org/petstore/cart", Name: "TestTotal", State: passed, Millis: 10},
			{Suite: "example.org/petstore/cart", Class: "example.org/petstore/cart", Name: "TestDiscontinued/item_7", State: failed, Message: "Failed\n=== RUN   TestDiscontinued/item_7\n    cart_test.go:12: got 500 \uFFFD[31mred\uFFFD[0m"},
			{Suite: "example.org/petstore/cart", Class: "example.org/petstore/cart", Name: "TestBank", State: skipped, Message: "cart_test.go:20: no bank"},
			{Suite: "example.org/petstore/stock", Class: "", Name: "TestMain", State: failed, Message: "Failed\npanic: no database"},
		},
		"pytest.xml": {
			{Suite: "pytest", Class: "tests.test_cart", Name: "test_total[1-2]", State: passed, Millis: 1},
			{Suite: "pytest", Class: "tests.test_cart", Name: "test_discontinued", State: failed, Millis: 0, Message: "def test_discontinued():\n>       assert 500 == 200\nE       assert 500 == 200"},
			{Suite: "pytest", Class: "tests.test_cart", Name: "test_setup", State: failed, Millis: 2, Message: "failed on setup\nfixture 'db' not found"},
			{Suite: "pytest", Class: "tests.test_cart", Name: "test_bank", State: skipped, Message: "/app/tests/test_cart.py:40: no bank"},
		},
		"jest.xml": {
			{Suite: "cart", Class: "cart total", Name: "cart total is a sum", State: passed, Millis: 5},
			{Suite: "cart", Class: "cart <script>alert(1)</script>", Name: "=cmd|' /C calc'!A0", State: failed, Millis: 3, Message: "Error: expect(received).toBe(expected)\n    at Object.<anonymous> (cart.test.js:4:5)"},
		},
	}
	for file, cases := range want {
		t.Run(file, func(t *testing.T) {
			t.Parallel()
			f, err := os.Open(filepath.Join("testdata", file))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			got, err := junit.Parse(f)
			if err != nil {
				t.Fatal(err)
			}
			// Messages with both parts repeated are compared as they are shown.
			if diff := cmp.Diff(cases, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestParseTime(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int64{
		"0.012": 12, "0,012": 12, "1,234.5": 1234500, "1.234,5": 1234500, "1,234,567": 1234567000,
		"1e-05": 0, "12": 12000, " 3.5 ": 3500, "": 0, "NaN": 0, "-1": 0, "Inf": 0, "1e300": 0, "soon": 0,
	} {
		got, err := junit.Parse(strings.NewReader(`<testsuite><testcase time="` + text + `"/></testsuite>`))
		if err != nil || len(got) != 1 || got[0].Millis != want {
			t.Errorf("time %q: got %v, %v; want %d ms", text, got, err, want)
		}
	}
}

// T43: no entity is ever resolved.
func TestT43EntitiesAreRefused(t *testing.T) {
	t.Parallel()
	for name, report := range map[string]string{
		"external": `<?xml version="1.0"?><!DOCTYPE x [<!ENTITY xxe SYSTEM "file:///etc/passwd">]><testsuite><testcase name="&xxe;"/></testsuite>`,
		"bomb":     `<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]><testsuite><testcase name="x"><failure>&b;</failure></testcase></testsuite>`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := junit.Parse(strings.NewReader(report))
			if !delivery.IsKind(err, delivery.KindInvalid) {
				t.Fatalf("got %v, %v; want KindInvalid", got, err)
			}
			if strings.Contains(fmt.Sprint(got, err), "root:") {
				t.Fatal("a file of the machine was read")
			}
		})
	}
}

func TestHostileTextStaysText(t *testing.T) {
	t.Parallel()
	report := "<testsuite name='\xff\xfe'><testcase name='a\x00b\x1b' classname='&lt;script&gt;'>" +
		"<failure message='&#0;&#x1B;&#xD800;&#99999999;'><![CDATA[ </script>\x07 ]]></failure></testcase></testsuite>"
	got, err := junit.Parse(strings.NewReader(report))
	if err != nil {
		t.Fatal(err)
	}
	want := []delivery.TestCase{{
		Suite: "\uFFFD\uFFFD", Class: "<script>", Name: "a\uFFFDb\uFFFD", State: failed,
		Message: "\uFFFD\uFFFD\uFFFD\uFFFD\n</script>\uFFFD",
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestLatin1DeclarationIsTolerated(t *testing.T) {
	t.Parallel()
	got, err := junit.Parse(strings.NewReader("<?xml version='1.0' encoding='ISO-8859-1'?><testsuite><testcase name='gr\xfc\xdfe'/></testsuite>"))
	if err != nil || len(got) != 1 || got[0].Name != "gr\uFFFD\uFFFDe" {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestLimits(t *testing.T) {
	t.Parallel()
	for name, report := range map[string]string{
		"empty":        "",
		"html":         "<html><body/></html>",
		"cut off":      "<testsuite><testcase name='a'/><testcase",
		"second root":  "<testsuite/></testsuite>",
		"depth":        "<testsuite>" + strings.Repeat("<a>", 100_000),
		"cases":        "<testsuite>" + strings.Repeat("<testcase/>", 100_001) + "</testsuite>",
		"attributes":   "<testsuite " + strings.Repeat("a='' ", 1_000_000) + "/>",
		"after a text": "<testsuite>text<testcase " + strings.Repeat("a='' ", 1_000_000) + "/></testsuite>",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := junit.Parse(strings.NewReader(report))
			if !delivery.IsKind(err, delivery.KindInvalid) {
				t.Fatalf("got %d cases, %v; want KindInvalid", len(got), err)
			}
			if name == "cut off" && len(got) != 1 {
				t.Errorf("got %v, want the case before the cut", got)
			}
		})
	}
}

func TestBytesAreLimited(t *testing.T) {
	t.Parallel()
	report := "<testsuite>" + strings.Repeat("ü", 1000) + "</testsuite>"
	if _, err := junit.ParseLimited(strings.NewReader(report), int64(len(report))); err != nil {
		t.Error(err)
	}
	if _, err := junit.ParseLimited(strings.NewReader(report), int64(len(report))-1); !delivery.IsKind(err, delivery.KindInvalid) {
		t.Errorf("got %v", err)
	}
}

func TestLongTextsAreCut(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("ü", 100_000)
	got, err := junit.Parse(strings.NewReader("<testsuite><system-out>" + long + "</system-out><testcase name='" + long + "'><failure message='" + long + "'>" + long + "</failure></testcase></testsuite>"))
	if err != nil {
		t.Fatal(err)
	}
	c := got[0]
	if len(c.Name) > 1<<10 || len(c.Message) > 4<<10 || len(c.Message) < 4000 || !utf8.ValidString(c.Name+c.Message) {
		t.Errorf("name has %d bytes, message %d", len(c.Name), len(c.Message))
	}
}

func FuzzParse(f *testing.F) {
	files, err := filepath.Glob("testdata/*.xml")
	if err != nil || len(files) == 0 {
		f.Fatal("no seeds", err)
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(b))
	}
	f.Fuzz(func(t *testing.T, report string) {
		cases, err := junit.Parse(strings.NewReader(report))
		if err != nil && !delivery.IsKind(err, delivery.KindInvalid) {
			t.Fatalf("error without a kind: %v", err)
		}
		for _, c := range cases {
			switch {
			case len(c.Message) > 4<<10 || len(c.Name) > 1<<10 || len(c.Class) > 1<<10 || len(c.Suite) > 1<<10:
				t.Fatal("a text is too long")
			case !utf8.ValidString(c.Message + c.Name + c.Class + c.Suite):
				t.Fatal("a text is not UTF-8")
			case c.Millis < 0 || c.State == "":
				t.Fatalf("odd case %+v", c)
			}
		}
	})
}
