package demo

import (
	"bufio"
	"bytes"
	"context"
	"encoding/xml"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/shuntcd/shunt/internal/delivery"
)

// check is one line of a list such as shop/tests.txt: a path, the status it
// must answer, and words that must (or with ! must not) be on the page.
type check struct {
	path   string
	status int
	words  string
}

func readChecks(text []byte) ([]check, error) {
	var out []check
	s := bufio.NewScanner(bytes.NewReader(text))
	for s.Scan() {
		line := strings.TrimSpace(s.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		fields := strings.Fields(line)
		if len(fields) < 2 {
			return nil, fmt.Errorf("%q: want a path, a status and words", line)
		}
		status, err := strconv.Atoi(fields[1])
		if err != nil || !strings.HasPrefix(fields[0], "/") {
			return nil, fmt.Errorf("%q: want a path, a status and words", line)
		}
		out = append(out, check{fields[0], status, strings.Join(fields[2:], " ")})
	}
	return out, s.Err()
}

// judge says what is wrong with an answer; "" is nothing.
func (c check) judge(status int, body string) string {
	if status != c.status {
		return fmt.Sprintf("GET %s answered %d, want %d", c.path, status, c.status)
	}
	words, no := strings.CutPrefix(c.words, "!")
	if has := strings.Contains(body, words); words != "" && has == no {
		if no {
			return fmt.Sprintf("GET %s has %q on its page and must not", c.path, words)
		}
		return fmt.Sprintf("GET %s does not say %q", c.path, words)
	}
	return ""
}

// Check is a run of a list of checks against a shop's files, or against a
// running shop.
type Check struct {
	Source Source
	URL    string // of a running shop; then Source is not used
	List   string // file
	JUnit  string // report to write; may be empty
	Suite  string // its name in the report
	Out    io.Writer
	Clock  delivery.Clock
}

// Run returns how many checks failed.
func (c Check) Run(ctx context.Context) (failed int, err error) {
	text, err := os.ReadFile(c.List)
	if err != nil {
		return 0, err
	}
	checks, err := readChecks(text)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", c.List, err)
	}
	if c.URL == "" {
		stop, err := c.serve(ctx)
		if err != nil {
			return 0, err
		}
		defer stop()
	}
	report := junitSuite{Name: c.Suite}
	for _, one := range checks {
		start := c.Clock.Now()
		status, body, err := get(ctx, strings.TrimSuffix(c.URL, "/")+one.path)
		problem := one.judge(status, body)
		if err != nil {
			problem = err.Error()
		}
		seconds := c.Clock.Now().Sub(start).Seconds()
		report.add(strings.TrimSuffix(filepath.Base(c.List), ".txt"), "GET "+one.path, seconds, problem)
		if problem != "" {
			failed++
			_, _ = fmt.Fprintf(c.Out, "FAIL  %s\n", problem)
			continue
		}
		_, _ = fmt.Fprintf(c.Out, " ok   GET %s  %d\n", one.path, status)
	}
	_, _ = fmt.Fprintf(c.Out, "%d passed, %d failed\n", len(checks)-failed, failed)
	if c.JUnit == "" {
		return failed, nil
	}
	return failed, report.write(c.JUnit)
}

// serve serves the shop's files for as long as they are checked.
func (c *Check) serve(ctx context.Context) (stop func(), err error) {
	shop, err := c.Source.Open(map[string]string{"build": "test"})
	if err != nil {
		return nil, err
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "localhost:0")
	if err != nil {
		return nil, err
	}
	c.URL = "http://" + l.Addr().String()
	srv := &http.Server{Handler: shop.Handler(), ReadHeaderTimeout: askTime}
	go srv.Serve(l) //nolint:errcheck // ends with Close
	return func() { _ = srv.Close() }, nil
}

// askTime bounds one question to a shop.
const askTime = 10 * time.Second

func get(ctx context.Context, url string) (int, string, error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, "", err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close() //nolint:errcheck // nothing is written
	b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	return resp.StatusCode, string(b), err
}

type junitSuite struct {
	XMLName  xml.Name    `xml:"testsuite"`
	Name     string      `xml:"name,attr"`
	Tests    int         `xml:"tests,attr"`
	Failures int         `xml:"failures,attr"`
	Cases    []junitCase `xml:"testcase"`
}

type junitCase struct {
	Class   string        `xml:"classname,attr"`
	Name    string        `xml:"name,attr"`
	Seconds string        `xml:"time,attr"`
	Failure *junitFailure `xml:"failure"`
}

type junitFailure struct {
	Message string `xml:"message,attr"`
}

func (s *junitSuite) add(class, name string, seconds float64, problem string) {
	c := junitCase{Class: class, Name: name, Seconds: fmt.Sprintf("%.3f", seconds)}
	s.Tests++
	if problem != "" {
		s.Failures++
		c.Failure = &junitFailure{problem}
	}
	s.Cases = append(s.Cases, c)
}

func (s *junitSuite) write(file string) error {
	b, err := xml.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil { //nolint:gosec // G301: a build's work tree
		return err
	}
	return os.WriteFile(file, append([]byte(xml.Header), b...), 0o644) //nolint:gosec // G306: a report
}
