package pipeline

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
)

// object is a JSON object; encoding/json sorts its keys.
type object map[string]any

// Schema is the JSON Schema (draft 2020-12) of the pipeline file, for editors.
// It accepts every file that Parse accepts; what needs more than one key to
// judge (unknown names, cycles, one production) only Parse refuses.
func Schema() []byte {
	var file group[fileShape]
	o := file.schema(rule{})
	o["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	o["title"] = FileName
	o["description"] = "Pipeline file of Shunt"
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(o); err != nil {
		panic("pipeline: cannot encode the schema: " + err.Error()) // it holds only strings, numbers and lists
	}
	return b.Bytes()
}

// Reference is the reference of all keys, in Markdown.
func Reference() []byte {
	var b bytes.Buffer
	b.WriteString("# Keys of `" + FileName + "`\n\n" +
		"A file has at most 1 MiB, 10000 YAML nodes and 64 levels. Keys that start with `x-` are\n" +
		"ignored everywhere, which is a place for anchors. A list of texts with one item needs no\n" +
		"brackets. Durations are numbers with a unit: `90s`, `10m`, `8h`, `3d`.\n")
	var file group[fileShape]
	section(&b, "", &file)
	return b.Bytes()
}

// fielder is a shape with fixed keys: any group.
type fielder interface {
	fields(f func(r rule, s shape))
}

// section writes the table of one mapping, and then the sections of what is in it.
func section(b *bytes.Buffer, path string, g fielder) {
	title := "Top level"
	if path != "" {
		title = "`" + path + "`"
	}
	fmt.Fprintf(b, "\n## %s\n\n| key | type | default | meaning |\n| --- | --- | --- | --- |\n", title)
	type place struct {
		path string
		g    fielder
	}
	var below []place
	g.fields(func(r rule, s shape) {
		def := "`" + r.def + "`"
		switch {
		case r.required:
			def = "required"
		case r.def == "":
			def = ""
		}
		fmt.Fprintf(b, "| `%s` | %s | %s | %s |\n", r.key, cell(s.words(r)), cell(def), cell(r.doc))
		suffix, inner := nested(s)
		if inner != nil {
			below = append(below, place{strings.TrimPrefix(path+"."+r.key, ".") + suffix, inner})
		}
	})
	for _, p := range below {
		section(b, p.path, p.g)
	}
}

// nested is the mapping that a value is or consists of, and how its path goes
// on; nil when there is none.
func nested(s shape) (suffix string, g fielder) {
	suffix, inner := s.inside()
	if inner == nil {
		return "", nil
	}
	if g, ok := inner.(fielder); ok {
		return suffix, g
	}
	more, g := nested(inner)
	return suffix + more, g
}

func cell(s string) string { return strings.ReplaceAll(s, "|", "\\|") }
