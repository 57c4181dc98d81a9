package pipeline

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// A shape is the declaration of a value in the pipeline file. It reads the
// value, describes itself to the schema and to the reference, and fills in the
// default when the file is silent.
type shape interface {
	read(c *collector, n *node, r rule)
	preset(def string)
	schema(r rule) object
	words(r rule) string // the type, in words
	inside() (suffix string, s shape)
}

// rule is what the tags of a field say about its value.
type rule struct {
	key      string
	label    string   // how messages call the value: "needs of job smoke"
	doc      string   // the meaning, one sentence
	def      string   // the default, as written in the file
	names    string   // format of the keys of a table
	format   string   // format of the text
	enum     []string // the only texts allowed
	aka      []string // what other systems call it; for did-you-mean
	min, max int      // of a number
	filled   bool     // a list or table may not be empty
	required bool
}

func ruleOf(f reflect.StructField) rule {
	words := func(tag string) []string {
		return strings.FieldsFunc(f.Tag.Get(tag), func(r rune) bool { return r == ',' })
	}
	number := func(tag string) int {
		n, _ := strconv.Atoi(f.Tag.Get(tag)) // absent is 0
		return n
	}
	return rule{
		key: f.Tag.Get("key"), doc: f.Tag.Get("doc"), def: f.Tag.Get("default"),
		names: f.Tag.Get("names"), format: f.Tag.Get("format"), enum: words("enum"), aka: words("aka"),
		min: number("min"), max: number("max"),
		filled: slices.Contains(words("is"), "filled"), required: slices.Contains(words("is"), "required"),
	}
}

// shapeOf finds the shape behind a pointer to a field or element.
func shapeOf(pointer any) shape {
	s, ok := pointer.(shape)
	if !ok {
		panic(fmt.Sprintf("pipeline: %T is not a shape", pointer)) // a mistake in file.go, met by every test
	}
	return s
}

// wrong reports a value of the wrong type.
func wrong(c *collector, n *node, r rule, want, hint string) {
	if n.kind == nodeBroken {
		return
	}
	if n.kind == nodeNull {
		c.add(n.at, "give it a value or remove the key", "%s has no value; it must be %s", r.label, want)
		return
	}
	c.add(n.at, hint, "%s must be %s, not %s", r.label, want, n.kind.words())
}

// list is a list of T.
type list[T any] struct {
	V   []T
	At  position
	Set bool
}

func (l *list[T]) preset(string)           {}
func (l *list[T]) inside() (string, shape) { return "[]", shapeOf(new(T)) }
func (l *list[T]) words(rule) string       { return "a list" }

func (l *list[T]) read(c *collector, n *node, r rule) {
	l.At, l.Set = n.at, true
	if n.kind != nodeSequence {
		wrong(c, n, r, "a list", "start each item with a dash")
		return
	}
	if r.filled && len(n.items) == 0 {
		c.add(n.at, "", "%s must not be empty", r.label)
	}
	for i, item := range n.items {
		var one T
		shapeOf(&one).read(c, item, rule{label: fmt.Sprintf("item %d of %s", i+1, r.label)})
		l.V = append(l.V, one)
	}
}

func (l *list[T]) schema(r rule) object {
	o := object{"type": "array", "items": shapeOf(new(T)).schema(rule{})}
	if r.filled {
		o["minItems"] = 1
	}
	return o
}

// oneOrMany is a T or a list of T.
type oneOrMany[T any] struct{ list[T] }

func (l *oneOrMany[T]) words(rule) string { return "a mapping, or a list of them" }

func (l *oneOrMany[T]) read(c *collector, n *node, r rule) {
	if n.kind == nodeSequence {
		r.filled = true
		l.list.read(c, n, r)
		return
	}
	var one T
	shapeOf(&one).read(c, n, r)
	l.V, l.At, l.Set = []T{one}, n.at, true
}

func (l *oneOrMany[T]) schema(rule) object {
	return object{"oneOf": []object{shapeOf(new(T)).schema(rule{}), l.list.schema(rule{filled: true})}}
}

// table is a mapping from names that the file chooses to T, in order.
type table[T any] struct {
	V   []named[T]
	At  position
	Set bool
}

type named[T any] struct {
	Name string
	At   position
	V    T
}

func (t *table[T]) preset(string)           {}
func (t *table[T]) inside() (string, shape) { return ".<name>", shapeOf(new(T)) }

func (t *table[T]) words(r rule) string {
	return "a mapping: name to " + shapeOf(new(T)).words(rule{format: r.format})
}

func (t *table[T]) read(c *collector, n *node, r rule) {
	t.At, t.Set = n.at, true
	if n.kind != nodeMapping {
		wrong(c, n, r, "a mapping from names to values", "")
		return
	}
	format := formatOf(r.names)
	for _, e := range n.entries {
		if strings.HasPrefix(e.key, "x-") {
			continue
		}
		if why := format.check(e.key); why != "" {
			c.add(e.at, format.hint, "the name %s in %s: %s", quoted(e.key), r.label, why)
		}
		one := named[T]{Name: e.key, At: e.at}
		shapeOf(&one.V).read(c, e.value, rule{label: labelIn(r, e.key), format: r.format})
		t.V = append(t.V, one)
	}
	if r.filled && len(t.V) == 0 {
		c.add(n.at, "", "%s must not be empty", r.label)
	}
}

func (t *table[T]) schema(r rule) object {
	o := object{
		"type":                 "object",
		"patternProperties":    object{formatOf(r.names).pattern.String(): shapeOf(new(T)).schema(rule{format: r.format}), "^x-": true},
		"additionalProperties": false,
	}
	if r.filled {
		o["minProperties"] = 1
	}
	return o
}

// labelIn names an entry of a table for messages: "job smoke" in jobs.
func labelIn(r rule, name string) string {
	name = short(name)
	switch r.key {
	case "jobs":
		return "job " + name
	case "environments":
		return "environment " + name
	case "publish":
		return "publish " + name
	}
	return name + " in " + r.label
}

// group is a mapping with the fixed keys that the fields of T declare.
type group[T any] struct {
	V   T
	At  position
	Set bool
}

// shorthand is implemented by a T that a single text may stand for: the value
// of the key that it names.
type shorthand interface{ shorthandKey() string }

func (g *group[T]) inside() (string, shape) { return "", g }
func (g *group[T]) words(rule) string       { return nodeMapping.words() }

// fields calls f for every key that T declares, in order.
func (g *group[T]) fields(f func(r rule, s shape)) {
	v := reflect.ValueOf(&g.V).Elem()
	for i := range v.NumField() {
		f(ruleOf(v.Type().Field(i)), shapeOf(v.Field(i).Addr().Interface()))
	}
}

func (g *group[T]) preset(string) {
	g.fields(func(r rule, s shape) { s.preset(r.def) })
}

func (g *group[T]) read(c *collector, n *node, r rule) {
	g.At, g.Set = n.at, true
	if short, ok := any(g.V).(shorthand); ok && n.kind == nodeText {
		n = &node{kind: nodeMapping, at: n.at, entries: []entry{{short.shorthandKey(), n.at, n}}}
	}
	if n.kind != nodeMapping {
		wrong(c, n, r, "a mapping of keys to values", "")
		g.preset("")
		return
	}
	given := make(map[string]entry, len(n.entries))
	for _, e := range n.entries {
		given[e.key] = e
	}
	var keys []string
	alias := map[string]string{}
	g.fields(func(f rule, s shape) {
		keys = append(keys, f.key)
		for _, other := range f.aka {
			alias[other] = f.key
		}
		e, there := given[f.key]
		if !there {
			s.preset(f.def)
			if f.required {
				c.add(n.at, f.doc, "%s has no key %q", r.label, f.key)
			}
			return
		}
		delete(given, f.key)
		f.label = f.key + " of " + r.label
		if r.key == "" && strings.HasPrefix(r.label, "the pipeline file") {
			f.label = f.key
		}
		s.read(c, e.value, f)
	})
	for _, key := range slices.Sorted(maps.Keys(given)) {
		if strings.HasPrefix(key, "x-") {
			continue
		}
		hint := "known keys: " + strings.Join(keys, ", ")
		if known := alias[key]; known != "" {
			hint = fmt.Sprintf("here it is called %q", known)
		} else if near := didYouMean(key, keys); near != "" {
			hint = fmt.Sprintf("did you mean %q?", near)
		}
		c.add(given[key].at, hint, "unknown key %s in %s", quoted(key), r.label)
	}
}

// defaultOf is a default as JSON.
func defaultOf(s shape, def string) any {
	s.preset(def)
	switch s := s.(type) {
	case *number:
		return s.V
	case *flag:
		return s.V
	case *texts:
		return s.values()
	}
	return def
}

func (g *group[T]) schema(rule) object {
	properties, required := object{}, []string{}
	g.fields(func(f rule, s shape) {
		o := s.schema(f)
		o["description"] = f.doc
		if f.def != "" {
			o["default"] = defaultOf(s, f.def)
		}
		properties[f.key] = o
		if f.required {
			required = append(required, f.key)
		}
	})
	o := object{
		"type": "object", "properties": properties,
		"patternProperties": object{"^x-": true}, "additionalProperties": false,
	}
	if len(required) > 0 {
		o["required"] = required
	}
	if _, ok := any(g.V).(shorthand); ok {
		return object{"oneOf": []object{{"type": "string"}, o}}
	}
	return o
}
