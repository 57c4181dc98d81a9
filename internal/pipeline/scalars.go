package pipeline

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// text is a string.
type text struct {
	V   string
	At  position
	Set bool
}

func (t *text) preset(def string)       { t.V = def }
func (t *text) inside() (string, shape) { return "", nil }

func (t *text) read(c *collector, n *node, r rule) {
	t.At = n.at
	if n.kind != nodeText {
		hint := ""
		if n.kind == nodeNumber || n.kind == nodeBool {
			hint = "put it in quotes"
		}
		wrong(c, n, r, "text", hint)
		return
	}
	t.V, t.Set = n.text, true
	if len(r.enum) > 0 && !slices.Contains(r.enum, t.V) {
		hint := "one of " + oneOf(r.enum)
		if near := didYouMean(t.V, r.enum); near != "" {
			hint = fmt.Sprintf("did you mean %q? (%s)", near, hint)
		}
		c.add(n.at, hint, "%s cannot be %s", r.label, quoted(t.V))
		return
	}
	if why := formatOf(r.format).check(t.V); why != "" {
		c.add(n.at, formatOf(r.format).hint, "%s %s: %s", r.label, quoted(t.V), why)
	}
}

func (t *text) schema(r rule) object {
	o := object{"type": "string"}
	if len(r.enum) > 0 {
		o["enum"] = r.enum
	}
	formatOf(r.format).describe(o)
	return o
}

func (t *text) words(r rule) string {
	if len(r.enum) > 0 {
		return oneOf(r.enum)
	}
	return formatOf(r.format).words
}

// number is an integer in a range.
type number struct {
	V   int
	At  position
	Set bool
}

func (i *number) preset(def string)       { i.V, _ = strconv.Atoi(def) } // "" is 0
func (i *number) inside() (string, shape) { return "", nil }

func (i *number) read(c *collector, n *node, r rule) {
	i.At = n.at
	v, err := strconv.Atoi(n.text)
	if n.kind != nodeNumber || err != nil {
		wrong(c, n, r, i.words(r), "")
		return
	}
	if v < r.min || v > r.max {
		c.add(n.at, "", "%s must be %s, not %d", r.label, i.words(r), v)
		return
	}
	i.V, i.Set = v, true
}

func (i *number) schema(r rule) object {
	return object{"type": "integer", "minimum": r.min, "maximum": r.max}
}

func (i *number) words(r rule) string {
	if r.min == r.max {
		return strconv.Itoa(r.min)
	}
	return fmt.Sprintf("a whole number from %d to %d", r.min, r.max)
}

// flag is true or false.
type flag struct {
	V   bool
	At  position
	Set bool
}

func (f *flag) preset(def string)       { f.V = def == "true" }
func (f *flag) inside() (string, shape) { return "", nil }
func (f *flag) schema(rule) object      { return object{"type": "boolean"} }
func (f *flag) words(rule) string       { return nodeBool.words() }

func (f *flag) read(c *collector, n *node, r rule) {
	f.At = n.at
	if n.kind != nodeBool {
		wrong(c, n, r, f.words(r), "without quotes")
		return
	}
	f.V, f.Set = strings.EqualFold(n.text, "true"), true
}

// duration is a span of time such as 90s, 10m, 8h or 3d.
type duration struct {
	V   time.Duration
	At  position
	Set bool
}

func (d *duration) preset(def string) {
	if def != "" {
		d.V, _ = parseDuration(def) // a test parses every default
	}
}

func (d *duration) inside() (string, shape) { return "", nil }
func (d *duration) words(rule) string       { return "a duration" }

func (d *duration) schema(rule) object {
	return object{"type": "string", "pattern": durationPattern.String(), "examples": []string{"90s", "10m", "8h", "3d"}}
}

func (d *duration) read(c *collector, n *node, r rule) {
	const hint = "write it as a number and a unit: 90s, 10m, 8h or 3d"
	d.At = n.at
	if n.kind != nodeText {
		wrong(c, n, r, d.words(r), hint)
		return
	}
	v, why := parseDuration(n.text)
	if why != "" {
		c.add(n.at, hint, "%s %s: %s", r.label, quoted(n.text), why)
		return
	}
	d.V, d.Set = v, true
}

// scalar is text, a number or a truth value, taken as it is written: the value
// of an environment variable.
type scalar struct{ text }

func (s *scalar) words(rule) string { return "text, a number, true or false" }

func (s *scalar) read(c *collector, n *node, r rule) {
	switch n.kind {
	case nodeText, nodeNumber, nodeBool:
		s.text = text{n.text, n.at, true}
	case nodeNull, nodeMapping, nodeSequence, nodeBroken:
		wrong(c, n, r, s.words(r), "")
	}
}

func (s *scalar) schema(rule) object {
	return object{"type": []string{"string", "number", "boolean"}}
}

// texts is a list of different texts; a single one needs no brackets.
type texts struct {
	V   []text
	At  position
	Set bool
}

func (t *texts) inside() (string, shape) { return "", nil }

func (t *texts) preset(def string) {
	for _, w := range strings.FieldsFunc(def, func(r rune) bool { return r == ',' || r == ' ' }) {
		t.V = append(t.V, text{V: w})
	}
}

func (t *texts) read(c *collector, n *node, r rule) {
	t.At, t.Set = n.at, true
	items := []*node{n}
	switch n.kind {
	case nodeSequence:
		items = n.items
	case nodeText:
	case nodeNull, nodeNumber, nodeBool, nodeMapping, nodeBroken:
		wrong(c, n, r, t.words(r), "")
		return
	}
	if r.filled && len(items) == 0 {
		c.add(n.at, "", "%s must not be empty", r.label)
	}
	seen := map[string]bool{}
	for _, item := range items {
		var one text
		one.read(c, item, r)
		if one.Set && seen[one.V] {
			c.add(item.at, "", "%s has %s twice", r.label, quoted(one.V))
		} else if one.Set {
			t.V = append(t.V, one)
			seen[one.V] = true
		}
	}
}

func (t *texts) schema(r rule) object {
	one := new(text).schema(r)
	list := object{"type": "array", "items": one, "uniqueItems": true}
	if r.filled {
		list["minItems"] = 1
	}
	return object{"oneOf": []object{one, list}}
}

func (t *texts) words(r rule) string { return "a list: " + new(text).words(r) }

// values are the texts without their places; never nil, so that JSON says [].
func (t *texts) values() []string {
	list := make([]string, len(t.V))
	for i := range t.V {
		list[i] = t.V[i].V
	}
	return list
}
