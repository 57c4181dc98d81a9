package pipeline

import (
	"errors"
	"fmt"
	"slices"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

type nodeKind int

const (
	nodeNull nodeKind = iota
	nodeText
	nodeNumber
	nodeBool
	nodeMapping
	nodeSequence
	nodeBroken // its problem was reported; readers are silent about it
)

// words names a kind for a message.
func (k nodeKind) words() string {
	switch k {
	case nodeNull:
		return "nothing"
	case nodeText:
		return "text"
	case nodeNumber:
		return "a number"
	case nodeBool:
		return "true or false"
	case nodeMapping:
		return "a mapping"
	case nodeSequence:
		return "a list"
	case nodeBroken:
	}
	return "something else"
}

// node is YAML without its spelling: aliases and merge keys are resolved.
// Nodes are shared between the aliases of one anchor and never changed.
type node struct {
	kind    nodeKind
	text    string // of a scalar, as written
	at      position
	entries []entry // of a mapping, in order, keys unique
	items   []*node // of a sequence
	size    int     // nodes in it, itself and keys included, aliases expanded
	height  int     // levels in it, 1 for a scalar
}

type entry struct {
	key   string
	at    position
	value *node
}

// load turns the text into one mapping; nil when a problem prevents that.
func load(c *collector) *node {
	tokens, ok := scan(c)
	if !ok {
		return nil
	}
	file, err := parseTokens(tokens)
	if err != nil {
		at, message := position{}, err.Error()
		if syntax, ok := errors.AsType[yaml.Error](err); ok {
			message = syntax.GetMessage()
			if tk := syntax.GetToken(); tk != nil {
				at = placeOf(tk)
			}
		}
		c.add(at, "", "this is not YAML: %s", plain(message))
		return nil
	}
	docs := slices.DeleteFunc(file.Docs, func(d *ast.DocumentNode) bool { return d.Body == nil })
	if len(docs) > 1 {
		at := position{}
		if docs[1].Start != nil {
			at = placeOf(docs[1].Start)
		}
		c.add(at, "remove everything from the second --- on", "the file holds more than one YAML document")
		return nil
	}
	if len(docs) == 0 {
		c.add(position{}, "let Shunt write a first one:  shunt init", "the file is empty")
		return nil
	}
	e := &expander{c: c, anchors: map[string]*node{}}
	root := e.node(docs[0].Body, 1)
	if e.stopped {
		return nil
	}
	if root.kind != nodeMapping {
		c.add(root.at, "it starts with keys such as version: and jobs:", "the pipeline file must be a mapping, this is %s", root.kind.words())
		return nil
	}
	return root
}

// parseTokens guards against a panic of the library: the file is hostile, and
// one that trips the parser must not take the server down.
func parseTokens(tokens token.Tokens) (file *ast.File, err error) {
	defer func() {
		if r := recover(); r != nil {
			file, err = nil, fmt.Errorf("the parser gave up on it: %v", r)
		}
	}()
	// Duplicate keys are allowed here because the expander reports them all.
	return parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
}

func placeOf(tk *token.Token) position {
	if tk == nil || tk.Position == nil {
		return position{}
	}
	return position{tk.Position.Line, tk.Position.Column}
}

// expander turns the library's tree into nodes. It counts what the aliases
// stand for without making it, so that a bomb costs nothing.
type expander struct {
	c       *collector
	anchors map[string]*node
	size    int // nodes so far, aliases expanded
	stopped bool
}

// stop ends the expansion: the file is beyond a limit.
func (e *expander) stop(at position, format string, args ...any) *node {
	if !e.stopped {
		e.stopped = true
		e.c.add(at, "a pipeline file is written by hand and small; anchors count once per use", format, args...)
	}
	return &node{at: at, size: 1, height: 1}
}

func (e *expander) grow(n int, at position) {
	if e.size += n; e.size > MaxNodes {
		e.stop(at, "the file has more than %d YAML nodes", MaxNodes)
	}
}

// node expands n, which is on level depth of the file.
func (e *expander) node(n ast.Node, depth int) *node {
	if n == nil {
		return &node{size: 1, height: 1}
	}
	at := placeOf(n.GetToken())
	if depth > MaxDepth {
		return e.stop(at, "the file is nested deeper than %d levels", MaxDepth)
	}
	if e.stopped {
		return &node{at: at, size: 1, height: 1}
	}
	switch n := n.(type) {
	case *ast.AnchorNode:
		value := e.node(n.Value, depth)
		if n.Name != nil {
			e.anchors[n.Name.GetToken().Value] = value // only now: an anchor cannot contain itself
		}
		return value
	case *ast.AliasNode:
		return e.alias(n, depth)
	case *ast.MappingNode:
		return e.mapping(n.Values, at, depth)
	case *ast.MappingValueNode:
		return e.mapping([]*ast.MappingValueNode{n}, at, depth)
	case *ast.SequenceNode:
		list := &node{kind: nodeSequence, at: at, size: 1, height: 1}
		e.grow(1, at)
		for _, v := range n.Values {
			item := e.node(v, depth+1)
			list.items = append(list.items, item)
			list.size += item.size
			list.height = max(list.height, item.height+1)
		}
		return list
	}
	e.grow(1, at)
	scalar := &node{at: at, size: 1, height: 1}
	switch n := n.(type) {
	case *ast.NullNode:
	case *ast.StringNode:
		scalar.kind, scalar.text = nodeText, n.Value
	case *ast.LiteralNode:
		scalar.kind, scalar.text = nodeText, n.Value.Value
	case *ast.BoolNode:
		scalar.kind, scalar.text = nodeBool, n.Token.Value
	case *ast.IntegerNode, *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		scalar.kind, scalar.text = nodeNumber, n.GetToken().Value
	default:
		scalar.kind = nodeBroken
		e.c.add(at, "", "this kind of YAML is not used in a pipeline file")
	}
	return scalar
}

func (e *expander) alias(n *ast.AliasNode, depth int) *node {
	at := placeOf(n.Start)
	name := ""
	if n.Value != nil {
		name = n.Value.GetToken().Value
	}
	target, ok := e.anchors[name]
	if !ok {
		e.c.add(at, "an anchor must be written before its alias, outside of itself", "there is no anchor &%s", short(name))
		return &node{kind: nodeBroken, at: at, size: 1, height: 1}
	}
	if depth+target.height-1 > MaxDepth {
		return e.stop(at, "the file is nested deeper than %d levels", MaxDepth)
	}
	e.grow(target.size, at)
	return target
}

func (e *expander) mapping(values []*ast.MappingValueNode, at position, depth int) *node {
	m := &node{kind: nodeMapping, at: at, size: 1, height: 1}
	e.grow(1, at)
	seen := make(map[string]position, len(values))
	put := func(key string, keyAt position, value *node) {
		seen[key] = keyAt
		m.entries = append(m.entries, entry{key, keyAt, value})
		m.size += 1 + value.size
		m.height = max(m.height, value.height+1)
	}
	var merged []*node
	for _, v := range values {
		if e.stopped {
			return m
		}
		keyAt := placeOf(v.Key.GetToken())
		key, ok := keyText(v.Key)
		if _, merge := v.Key.(*ast.MergeKeyNode); merge {
			merged = append(merged, e.node(v.Value, depth+1))
			continue
		}
		if !ok {
			e.c.add(keyAt, "", "a key must be plain text")
			continue
		}
		e.grow(1, keyAt)
		value := e.node(v.Value, depth+1)
		if first, double := seen[key]; double {
			e.c.add(keyAt, fmt.Sprintf("the first one is on line %d; remove one of them", first.line), "the key %s is there twice", quoted(key))
			continue
		}
		put(key, keyAt, value)
	}
	// What the mapping says itself wins over what it merges, and an earlier
	// merge wins over a later one.
	for _, source := range merged {
		sources := []*node{source}
		if source.kind == nodeSequence {
			sources = source.items
		}
		for _, s := range sources {
			if s.kind == nodeBroken {
				continue
			}
			if s.kind != nodeMapping {
				e.c.add(s.at, "", "<< merges mappings, this is %s", s.kind.words())
				continue
			}
			for _, en := range s.entries {
				if _, own := seen[en.key]; !own && !e.stopped {
					e.grow(1+en.value.size, at)
					put(en.key, en.at, en.value)
				}
			}
		}
	}
	if len(m.entries) > 0 && len(merged) == 0 {
		m.at = m.entries[0].at // the library points at the colon
	}
	return m
}

func keyText(key ast.MapKeyNode) (string, bool) {
	switch k := key.(type) {
	case *ast.StringNode:
		return k.Value, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.NullNode, *ast.InfinityNode, *ast.NanNode:
		return k.GetToken().Value, true
	}
	return "", false
}
