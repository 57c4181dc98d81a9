package pipeline

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
)

// validate is a JSON Schema validator for exactly the keywords that Schema
// uses; any other keyword is an error, so that none is silently ignored.
func validate(schema map[string]any, v any) error {
	for keyword, arg := range schema {
		switch keyword {
		case "$schema", "title", "description", "default", "examples", "format", "properties", "additionalProperties":
		case "type":
			types, ok := arg.([]any)
			if !ok {
				types = []any{arg}
			}
			if !slices.ContainsFunc(types, func(t any) bool { return hasType(v, t) }) {
				return fmt.Errorf("%v is not %v", v, arg)
			}
		case "enum":
			if !slices.Contains(as[[]any](arg), v) {
				return fmt.Errorf("%v is not in %v", v, arg)
			}
		case "pattern":
			if s, ok := v.(string); ok && !regexp.MustCompile(as[string](arg)).MatchString(s) {
				return fmt.Errorf("%q does not match %v", s, arg)
			}
		case "minimum", "maximum":
			if n, ok := v.(float64); ok && (keyword == "minimum" && n < as[float64](arg) || keyword == "maximum" && n > as[float64](arg)) {
				return fmt.Errorf("%v: %s %v", n, keyword, arg)
			}
		case "items", "minItems", "uniqueItems":
			list, _ := v.([]any)
			if keyword == "minItems" && v != nil && float64(len(list)) < as[float64](arg) {
				return fmt.Errorf("too few items")
			}
			for i, item := range list {
				if keyword == "uniqueItems" && slices.Contains(list[:i], item) {
					return fmt.Errorf("%v twice", item)
				}
				if keyword == "items" {
					if err := validate(as[map[string]any](arg), item); err != nil {
						return fmt.Errorf("[%d]: %w", i, err)
					}
				}
			}
		case "oneOf":
			fits := 0
			var errs []string
			for _, s := range as[[]any](arg) {
				if err := validate(as[map[string]any](s), v); err != nil {
					errs = append(errs, err.Error())
				} else {
					fits++
				}
			}
			if fits != 1 {
				return fmt.Errorf("fits %d of oneOf: %s", fits, strings.Join(errs, "; "))
			}
		case "required", "minProperties":
			m, _ := v.(map[string]any)
			if n, ok := arg.(float64); ok && float64(len(m)) < n {
				return fmt.Errorf("too few properties")
			}
			keys, _ := arg.([]any)
			for _, key := range keys {
				if _, ok := m[key.(string)]; !ok {
					return fmt.Errorf("%v is missing", key)
				}
			}
		case "patternProperties":
			m, _ := v.(map[string]any)
			properties, _ := schema["properties"].(map[string]any)
			for key, value := range m {
				known := false
				if s, ok := properties[key]; ok {
					known = true
					if err := validate(as[map[string]any](s), value); err != nil {
						return fmt.Errorf("%s: %w", key, err)
					}
				}
				for pattern, s := range as[map[string]any](arg) {
					if !regexp.MustCompile(pattern).MatchString(key) {
						continue
					}
					known = true
					if sub, ok := s.(map[string]any); ok {
						if err := validate(sub, value); err != nil {
							return fmt.Errorf("%s: %w", key, err)
						}
					}
				}
				if !known {
					return fmt.Errorf("unknown key %s", key)
				}
			}
		default:
			return fmt.Errorf("keyword %s", keyword)
		}
	}
	return nil
}

// as fails loudly when the schema has another form than the validator expects.
func as[T any](v any) T {
	t, ok := v.(T)
	if !ok {
		panic(fmt.Sprintf("%v is %T", v, v))
	}
	return t
}

func hasType(v, want any) bool {
	switch v := v.(type) {
	case string:
		return want == "string"
	case bool:
		return want == "boolean"
	case float64:
		return want == "number" || want == "integer" && v == float64(int(v))
	case []any:
		return want == "array"
	case map[string]any:
		return want == "object"
	}
	return false
}

// asJSON reads YAML by another road than Parse does.
func asJSON(data []byte) (v any, err error) {
	text, err := yaml.YAMLToJSON(data)
	if err != nil {
		return nil, err
	}
	return v, json.Unmarshal(text, &v)
}

func schemaOf(t *testing.T) map[string]any {
	t.Helper()
	var schema map[string]any
	if err := json.Unmarshal(Schema(), &schema); err != nil {
		t.Fatal(err)
	}
	return schema
}

func TestValidFilesFitTheSchema(t *testing.T) {
	t.Parallel()
	schema := schemaOf(t)
	for file, data := range inputs(t, "valid") {
		v, err := asJSON(data)
		if err != nil {
			t.Fatal(err)
		}
		if err := validate(schema, v); err != nil {
			t.Errorf("%s: %v", file, err)
		}
	}
}

func TestSchemaRefusesWhatItCanSee(t *testing.T) {
	t.Parallel()
	schema := schemaOf(t)
	files := inputs(t, "errors")
	for _, name := range []string{"unknown-keys", "types", "missing", "version", "environments", "tag-bad-names", "hostile-names", "list"} {
		data, ok := files[filepath.Join("testdata", "errors", name+".yml")]
		if !ok {
			continue
		}
		v, err := asJSON(data)
		if err != nil {
			continue // duplicate keys and the like
		}
		if validate(schema, v) == nil {
			t.Errorf("the schema accepts %s", name)
		}
	}
}

func TestSchemaAndReferenceAreGolden(t *testing.T) {
	t.Parallel()
	golden(t, filepath.Join("testdata", "schema.golden.json"), string(Schema()))
	golden(t, filepath.Join("testdata", "reference.golden.md"), string(Reference()))
}

// TestDeclaration checks the tags of file.go: every key is documented once,
// every default is a value that the key itself accepts, every format exists.
func TestDeclaration(t *testing.T) {
	t.Parallel()
	var walk func(path string, g fielder)
	walk = func(path string, g fielder) {
		seen := map[string]bool{}
		g.fields(func(r rule, s shape) {
			at := path + "." + r.key
			if r.key == "" || !strings.HasSuffix(r.doc, ".") || seen[r.key] {
				t.Errorf("%s: %+v", at, r)
			}
			seen[r.key] = true
			for _, name := range []string{r.format, r.names} {
				if name != "" && formatOf(name).words == "text" {
					t.Errorf("%s: unknown format %s", at, name)
				}
			}
			if r.def != "" {
				s.preset(r.def)
				switch s := s.(type) {
				case *duration:
					if s.V == 0 {
						t.Errorf("%s: default %s", at, r.def)
					}
				case *text:
					if why := formatOf(r.format).check(s.V); why != "" {
						t.Errorf("%s: default %s: %s", at, r.def, why)
					}
				case *texts:
					for _, v := range s.values() {
						if len(r.enum) > 0 && !slices.Contains(r.enum, v) {
							t.Errorf("%s: default %s", at, v)
						}
					}
				}
			}
			if _, inner := nested(s); inner != nil {
				walk(at, inner)
			}
		})
	}
	walk("", &group[fileShape]{})
}
