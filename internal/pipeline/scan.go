package pipeline

import (
	"errors"
	"fmt"
	"io"

	"github.com/goccy/go-yaml/scanner"
	"github.com/goccy/go-yaml/token"
)

// The limits of a pipeline file.
const (
	MaxBytes = 1 << 20
	MaxNodes = 10000 // keys and values, aliases expanded
	MaxDepth = 64    // levels of mappings and lists
)

// Bounds on what the library's recursive parser is given. A node takes up to
// five tokens with its comment. The parser stores the path of every node as
// text, and copies a block mapping once per key, so the sum of the lengths of
// all paths and of those copies is bounded too, in bytes.
const (
	maxTokens   = 5 * MaxNodes
	maxKeyBytes = 256
	maxPathCost = 8 << 20
)

// The scanner may make the tokens of a whole file in one go, so what can become
// a token is bounded before it starts.
const (
	maxLines = 20000
	maxSigns = 100000
)

// scan cuts the text into tokens and stops at the first that goes beyond a
// limit: a bomb is refused before anything recursive or quadratic sees it.
func scan(c *collector) (token.Tokens, bool) {
	var s scanner.Scanner
	s.Init(c.src.text)
	var tokens token.Tokens
	var g guard
	for {
		some, err := s.Scan()
		for _, tk := range some {
			if fault := g.see(tk); fault != "" {
				c.add(placeOf(tk), "", "%s", fault)
				return nil, false
			}
			tokens.Add(tk)
		}
		if errors.Is(err, io.EOF) {
			return tokens, true
		}
		if err != nil {
			if bad := tokens.InvalidToken(); bad != nil {
				c.add(placeOf(bad), "", "this is not YAML: %s", plain(bad.Error))
			} else {
				c.add(position{}, "", "this is not YAML: %s", plain(err.Error()))
			}
			return nil, false
		}
	}
}

// guard follows the tokens and knows, roughly and cheaply, how deep they are.
type guard struct {
	count   int
	flow    int     // open [ and {
	blocks  []block // block mappings and lists that are open
	anchor  int     // number of the latest & token
	last    *token.Token
	longest int // bytes of the longest key so far
	cost    int // bytes that the parser will copy
}

// see returns what is wrong with tk in this place; "" when nothing is.
func (g *guard) see(tk *token.Token) string {
	g.count++
	if g.count > maxTokens {
		return fmt.Sprintf("the file has more than %d YAML tokens", maxTokens)
	}
	switch tk.Type { //nolint:exhaustive // the other tokens are harmless
	case token.TagType:
		return "YAML tags (!...) are not used in a pipeline file; put quotes around text that starts with !"
	case token.DirectiveType:
		return "YAML directives (%...) are not used in a pipeline file"
	case token.MappingKeyType:
		return "the long form of a key (? ...) is not used in a pipeline file"
	case token.AnchorType:
		if g.anchor > 0 && g.count-g.anchor <= 2 {
			return "two anchors for one value"
		}
		g.anchor = g.count
	case token.SequenceStartType, token.MappingStartType:
		g.flow++
	case token.SequenceEndType, token.MappingEndType:
		g.flow = max(0, g.flow-1)
	case token.SequenceEntryType:
		g.open(tk.Position.Column)
	case token.MappingValueType:
		if g.last != nil {
			if len(g.last.Value) > maxKeyBytes {
				return fmt.Sprintf("a key is longer than %d bytes", maxKeyBytes)
			}
			g.longest = max(g.longest, len(g.last.Value))
			if g.flow == 0 {
				g.open(g.last.Position.Column)
			}
		}
	}
	depth := g.flow + len(g.blocks)
	if depth > MaxDepth {
		return fmt.Sprintf("the file is nested deeper than %d levels", MaxDepth)
	}
	if g.cost += depth * g.longest; g.cost > maxPathCost {
		return "the file has too many keys in one mapping, or too many deep keys with long names"
	}
	g.last = tk
	return ""
}

type block struct{ column, items int }

// open notes an item of a block mapping or list at a column and closes the
// deeper ones.
func (g *guard) open(column int) {
	for len(g.blocks) > 0 && g.blocks[len(g.blocks)-1].column > column {
		g.blocks = g.blocks[:len(g.blocks)-1]
	}
	if len(g.blocks) == 0 || g.blocks[len(g.blocks)-1].column < column {
		g.blocks = append(g.blocks, block{column: column})
	}
	top := &g.blocks[len(g.blocks)-1]
	top.items++
	g.cost += 8 * top.items
}
