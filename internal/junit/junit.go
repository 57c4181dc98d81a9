// Package junit reads test reports in the JUnit XML format, which has no
// specification: what Surefire, Gradle, gotestsum, pytest and jest-junit write
// is what counts. A report comes from a job and is hostile: it is read as a
// stream with limits on everything, knows no entities but XML's own five, and
// its texts stay text, whatever they contain.
package junit

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"

	"github.com/shuntcd/shunt/internal/delivery"
)

// The limits of a report. Exceeding one of the first four is an error; names and
// messages are cut.
const (
	maxBytes   = 32 << 20
	maxCases   = 100_000
	maxDepth   = 64      // nested elements
	maxTag     = 4 << 20 // bytes of one tag with its attributes
	maxName    = 1 << 10 // bytes of a suite, class or test name
	maxMessage = 4 << 10 // bytes
)

// Parse reads one report: a <testsuites> or <testsuite> and all test cases in
// it, in order. The message of a case is at most 4 KiB, its names 1 KiB. An
// error is a *delivery.Error of KindInvalid; the cases read before it are
// returned with it, because half a report of a killed job is worth showing.
func Parse(r io.Reader) ([]delivery.TestCase, error) { return parse(r, maxBytes) }

func parse(r io.Reader, limit int64) ([]delivery.TestCase, error) {
	in := newInput(r, limit)
	d := xml.NewDecoder(in)
	// The input is made valid UTF-8 below, whatever the declaration says.
	d.CharsetReader = func(_ string, input io.Reader) (io.Reader, error) { return input, nil }
	p := parser{}
	for {
		in.startToken()
		token, err := d.Token()
		if errors.Is(err, io.EOF) && p.root && len(p.open) == 0 {
			return p.cases, nil
		}
		if err == nil {
			err = p.token(token)
		} else if errors.Is(err, io.EOF) {
			err = errors.New("it is empty")
		}
		if err != nil {
			line, _ := d.InputPos()
			return p.cases, &delivery.Error{
				Kind: delivery.KindInvalid, What: "cannot read the JUnit report",
				Why: fmt.Sprintf("line %d: %s", line, reason(err)), Err: err,
			}
		}
	}
}

// reason is the parser's complaint as text without control characters.
func reason(err error) string {
	if s, ok := errors.AsType[*xml.SyntaxError](err); ok {
		return strconv.QuoteToGraphic(cut(s.Msg, 200))
	}
	return err.Error()
}

// parser holds the open elements and the test case that is being read.
type parser struct {
	root    bool
	open    []string // local names of the open elements
	suites  []string // names of the open suites
	cases   []delivery.TestCase
	current *delivery.TestCase // nil outside of a <testcase>
	inCase  int                // depth of the open <testcase>
	detail  *detail            // the <failure> or the like that is being read
}

// detail is a <failure>, <error>, <skipped> or <flakyFailure>.
type detail struct {
	depth   int
	message string
	text    strings.Builder
}

func (p *parser) token(t xml.Token) error {
	switch t := t.(type) {
	case xml.StartElement:
		return p.start(t)
	case xml.EndElement:
		p.end()
	case xml.CharData:
		// Four bytes of slack keep the cut from splitting the last rune.
		if p.detail != nil && len(p.open) == p.detail.depth {
			if room := maxMessage + 4 - p.detail.text.Len(); room > 0 {
				p.detail.text.Write(t[:min(room, len(t))])
			}
		}
	}
	return nil
}

func (p *parser) start(e xml.StartElement) error {
	name := e.Name.Local
	if !p.root && name != "testsuites" && name != "testsuite" {
		return errors.New("it does not start with <testsuites> or <testsuite>")
	}
	p.root = true
	if len(p.open) >= maxDepth {
		return fmt.Errorf("more than %d elements are nested", maxDepth)
	}
	p.open = append(p.open, name)
	switch {
	case name == "testsuite" && p.current == nil:
		p.suites = append(p.suites, cut(attr(e, "name"), maxName))
	case name == "testcase" && p.current == nil:
		if len(p.cases) >= maxCases {
			return fmt.Errorf("it has more than %d test cases", maxCases)
		}
		p.cases = append(p.cases, newCase(e, p.suites))
		p.current, p.inCase = &p.cases[len(p.cases)-1], len(p.open)
	case p.current != nil && len(p.open) == p.inCase+1:
		p.outcome(e)
	}
	return nil
}

func newCase(e xml.StartElement, suites []string) delivery.TestCase {
	c := delivery.TestCase{
		Class: cut(attr(e, "classname"), maxName), Name: cut(attr(e, "name"), maxName),
		State: delivery.TestPassed, Millis: millis(attr(e, "time")),
	}
	if len(suites) > 0 {
		c.Suite = suites[len(suites)-1]
	}
	// GoogleTest has no <skipped>.
	if s := attr(e, "status"); s == "notrun" || s == "disabled" || attr(e, "result") == "skipped" {
		c.State = delivery.TestSkipped
	}
	return c
}

// outcome notes a child of a test case. A failure stands whatever else is said;
// Surefire's flaky* are failures of earlier runs of a test that passed in the
// end, its rerun* accompany a <failure>.
func (p *parser) outcome(e xml.StartElement) {
	c := p.current
	switch e.Name.Local {
	case "failure", "error":
		if c.State != delivery.TestFailed {
			c.Message = "" // of a flaky or skipped one
		}
		c.State = delivery.TestFailed
	case "skipped":
		if c.State != delivery.TestPassed {
			return
		}
		c.State = delivery.TestSkipped
	case "flakyFailure", "flakyError":
		if c.State == delivery.TestFailed {
			return
		}
		c.State = delivery.TestFlaky
	default:
		return
	}
	if c.Message == "" {
		message := attr(e, "message")
		if message == "" {
			message = attr(e, "type")
		}
		p.detail = &detail{depth: len(p.open), message: message}
	}
}

func (p *parser) end() {
	depth := len(p.open)
	name := p.open[depth-1] // the decoder has matched start and end
	switch {
	case p.detail != nil && p.detail.depth == depth:
		p.current.Message = p.detail.join()
		p.detail = nil
	case p.current != nil && p.inCase == depth:
		p.current = nil
	case name == "testsuite" && p.current == nil && len(p.suites) > 0:
		p.suites = p.suites[:len(p.suites)-1]
	}
	p.open = p.open[:depth-1]
}

// join puts message and text together; most tools repeat the one in the other.
func (d *detail) join() string {
	message, text := cut(strings.TrimSpace(d.message), maxMessage), strings.TrimSpace(d.text.String())
	switch {
	case text == "":
		return message
	case message != "" && !strings.Contains(text, message):
		text = message + "\n" + text
	}
	return cut(text, maxMessage)
}

func attr(e xml.StartElement, name string) string {
	for _, a := range e.Attr {
		if a.Name.Local == name {
			return a.Value
		}
	}
	return ""
}

// cut shortens s to at most limit bytes of whole runes.
func cut(s string, limit int) string {
	if len(s) > limit {
		s = s[:limit]
	}
	return strings.ToValidUTF8(strings.Clone(s), "") // the clone lets a long original go
}

// millis reads seconds as the tools write them: "0.012", "1e-05", "0,012" of a
// German JVM, "1,234.5" of an English one. What cannot be read is 0.
func millis(s string) int64 {
	s = strings.TrimSpace(s)
	if len(s) > 40 {
		return 0
	}
	dot, comma := strings.LastIndexByte(s, '.'), strings.LastIndexByte(s, ',')
	switch {
	case comma < 0:
	case dot > comma || dot < 0 && strings.Count(s, ",") > 1: // commas group thousands
		s = strings.ReplaceAll(s, ",", "")
	default: // the comma is the decimal one, dots group thousands
		s = strings.ReplaceAll(strings.ReplaceAll(s, ".", ""), ",", ".")
	}
	seconds, err := strconv.ParseFloat(s, 64)
	if err != nil || !(seconds > 0) || seconds > 1e9 {
		return 0
	}
	return int64(math.Round(seconds * 1000))
}
