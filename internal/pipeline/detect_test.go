package pipeline

import (
	"io/fs"
	"regexp"
	"strings"
	"testing"
	"testing/fstest"
)

func TestDetect(t *testing.T) {
	t.Parallel()
	file := func(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text), Mode: 0o644} }
	for name, c := range map[string]struct {
		tree fstest.MapFS
		kind string
		has  []string
	}{
		"Go":          {fstest.MapFS{"go.mod": file("module x"), "Makefile": file("all:")}, "Go", []string{"run: go test ./..."}},
		"npm":         {fstest.MapFS{"package.json": file(`{"scripts":{"test":"x","build":"y"}}`), "package-lock.json": file("{}")}, "Node", []string{"run: npm ci", "npm run test", "npm run build"}},
		"pnpm":        {fstest.MapFS{"package.json": file("broken"), "pnpm-lock.yaml": file("")}, "Node", []string{"pnpm install"}},
		"yarn":        {fstest.MapFS{"package.json": file("{}"), "yarn.lock": file("")}, "Node", []string{"yarn install"}},
		"Maven":       {fstest.MapFS{"pom.xml": file("<packaging>war</packaging>"), "mvnw": file("")}, "Maven", []string{"./mvnw -B verify", "target/*.war"}},
		"Gradle":      {fstest.MapFS{"build.gradle.kts": file(""), "gradlew": file("")}, "Gradle", []string{"./gradlew build", "build/test-results"}},
		"pyproject":   {fstest.MapFS{"pyproject.toml": file("")}, "Python", []string{"pytest", "dist/*.whl"}},
		"python":      {fstest.MapFS{"requirements.txt": file("")}, "Python", []string{"pip install -r requirements.txt"}},
		"Make":        {fstest.MapFS{"Makefile": file("all:\n\ncheck:\n\npackage: all\n")}, "Make", []string{"make check", "make package"}},
		"make, plain": {fstest.MapFS{"Makefile": file("test := 1\n")}, "Make", []string{"run: make\n", "git archive"}},
		"nothing":     {fstest.MapFS{"README": file("x")}, "", []string{"./ci/build.sh"}},
		"trunk":       {fstest.MapFS{"go.mod": file(""), ".git/HEAD": file("ref: refs/heads/main\n")}, "Go", []string{`integration: "main"`}},
		"git-flow":    {fstest.MapFS{"go.mod": file(""), ".git/HEAD": file("ref: refs/heads/main\n"), ".git/refs/heads/develop": file("x")}, "Go", []string{"# branches:"}},
		"bad branch":  {fstest.MapFS{"go.mod": file(""), ".git/HEAD": file("ref: refs/heads/a\": [{\n")}, "Go", []string{"# branches:"}},
		"a directory": {fstest.MapFS{"go.mod/x": file(""), "pom.xml": &fstest.MapFile{Mode: fs.ModeSymlink}}, "", nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			kind, text := Detect(c.tree)
			if kind != c.kind {
				t.Errorf("kind %q, want %q", kind, c.kind)
			}
			p := mustParse(t, string(text))
			if p.Production() == nil || len(p.Publish) != 1 {
				t.Errorf("%+v", p)
			}
			for _, part := range c.has {
				if !strings.Contains(string(text), part) {
					t.Errorf("no %q in\n%s", part, text)
				}
			}
			// What is commented out is right, too.
			text = regexp.MustCompile(`(?m)^( +)# `).ReplaceAll(text, []byte("$1"))
			text = regexp.MustCompile(`(?m)^# (branches:|  integration|  production|  hotfix)`).ReplaceAll(text, []byte("$1"))
			if p := mustParse(t, string(text)); p.Job("regression") == nil || p.Environment("qa") == nil {
				t.Errorf("not all comments were opened:\n%s", text)
			}
		})
	}
}
