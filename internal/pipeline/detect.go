package pipeline

import (
	"encoding/json"
	"io/fs"
	"regexp"
	"strings"
)

// maxProbe bounds what Detect reads of one file.
const maxProbe = 1 << 20

// Detect looks at a work tree and proposes a pipeline file for it, with
// comments, that passes Parse. kind is Go, Node, Maven, Gradle, Python or Make;
// it is empty when nothing is recognised, and the file then has commands to
// fill in. Files that cannot be read count as absent.
func Detect(fsys fs.FS) (kind string, file []byte) {
	w := worktree{fsys}
	for _, d := range []struct {
		kind  string
		files []string
		draft func() draft
	}{
		{"Go", []string{"go.mod"}, w.golang},
		{"Node", []string{"package.json"}, w.node},
		{"Maven", []string{"pom.xml"}, w.maven},
		{"Gradle", []string{"build.gradle", "build.gradle.kts", "settings.gradle", "settings.gradle.kts"}, w.gradle},
		{"Python", []string{"pyproject.toml", "setup.py", "setup.cfg", "requirements.txt"}, w.python},
		{"Make", []string{"Makefile", "makefile", "GNUmakefile"}, w.make},
	} {
		if w.hasAny(d.files...) {
			return d.kind, []byte(d.draft().write(w))
		}
	}
	return "", []byte(draft{
		steps:    []string{"./ci/build.sh                 # compile and test", "mkdir -p dist && git archive -o dist/app.tar.gz HEAD"},
		artifact: "dist/app.tar.gz",
	}.write(w))
}

// draft is what differs between the kinds.
type draft struct {
	steps    []string
	junit    string
	artifact string
}

type worktree struct{ fsys fs.FS }

func (w worktree) hasAny(names ...string) bool {
	for _, name := range names {
		if info, err := fs.Stat(w.fsys, name); err == nil && info.Mode().IsRegular() {
			return true
		}
	}
	return false
}

// text reads a small file; "" when it cannot.
func (w worktree) text(name string) string {
	info, err := fs.Stat(w.fsys, name)
	if err != nil || !info.Mode().IsRegular() || info.Size() > maxProbe {
		return ""
	}
	data, err := fs.ReadFile(w.fsys, name)
	if err != nil {
		return ""
	}
	return string(data)
}

func (w worktree) golang() draft {
	return draft{
		steps: []string{
			"go vet ./...",
			"go test ./...",
			"mkdir -p dist/bin && go build -trimpath -o dist/bin/ ./...",
			"tar -czf dist/app.tar.gz -C dist bin",
		},
		artifact: "dist/app.tar.gz",
	}
}

func (w worktree) node() draft {
	var pkg struct {
		Scripts map[string]string `json:"scripts"`
	}
	// A broken package.json has no scripts that could run.
	_ = json.Unmarshal([]byte(w.text("package.json")), &pkg)
	tool, install := "npm", "npm install"
	switch {
	case w.hasAny("pnpm-lock.yaml"):
		tool, install = "pnpm", "pnpm install --frozen-lockfile"
	case w.hasAny("yarn.lock"):
		tool, install = "yarn", "yarn install --frozen-lockfile"
	case w.hasAny("package-lock.json", "npm-shrinkwrap.json"):
		install = "npm ci"
	}
	steps := []string{install}
	for _, script := range []string{"lint", "test", "build"} {
		if pkg.Scripts[script] != "" {
			steps = append(steps, tool+" run "+script)
		}
	}
	return draft{
		steps:    append(steps, "mkdir -p .shunt-dist && tar -czf .shunt-dist/app.tar.gz --exclude=./.shunt-dist --exclude=./.git ."),
		artifact: ".shunt-dist/app.tar.gz",
	}
}

func (w worktree) maven() draft {
	mvn := "mvn"
	if w.hasAny("mvnw") {
		mvn = "./mvnw"
	}
	artifact := "target/*.jar"
	if strings.Contains(w.text("pom.xml"), "<packaging>war</packaging>") {
		artifact = "target/*.war"
	}
	return draft{steps: []string{mvn + " -B verify"}, junit: "target/surefire-reports/*.xml", artifact: artifact}
}

func (w worktree) gradle() draft {
	gradle := "gradle"
	if w.hasAny("gradlew") {
		gradle = "./gradlew"
	}
	return draft{steps: []string{gradle + " build"}, junit: "build/test-results/test/*.xml", artifact: "build/libs/*.jar"}
}

func (w worktree) python() draft {
	d := draft{steps: []string{"python3 -m venv .venv"}}
	if w.hasAny("requirements.txt") {
		d.steps = append(d.steps, ".venv/bin/pip install -r requirements.txt")
	}
	d.steps = append(d.steps, ".venv/bin/pip install pytest build")
	packaged := w.hasAny("pyproject.toml", "setup.py", "setup.cfg")
	if packaged {
		d.steps = append(d.steps, ".venv/bin/pip install .")
	}
	d.steps = append(d.steps, ".venv/bin/pytest --junitxml=test-results.xml")
	d.junit = "test-results.xml"
	if packaged {
		d.steps = append(d.steps, ".venv/bin/python -m build --wheel --outdir dist")
		d.artifact = "dist/*.whl"
		return d
	}
	d.steps = append(d.steps, "mkdir -p dist && git archive -o dist/app.tar.gz HEAD")
	d.artifact = "dist/app.tar.gz"
	return d
}

func (w worktree) make() draft {
	rules := w.text("Makefile") + "\n" + w.text("makefile") + "\n" + w.text("GNUmakefile")
	has := func(target string) bool {
		return regexp.MustCompile(`(?m)^` + target + `\s*:([^=]|$)`).MatchString(rules)
	}
	d := draft{steps: []string{"make"}, artifact: "dist/app.tar.gz"}
	for _, test := range []string{"test", "check"} {
		if has(test) {
			d.steps = append(d.steps, "make "+test)
			break
		}
	}
	if has("package") {
		d.steps = append(d.steps, "make package                  # must leave dist/app.tar.gz")
		return d
	}
	d.steps = append(d.steps, "mkdir -p dist && git archive -o dist/app.tar.gz HEAD   # what a deployment gets; change it to what you ship")
	return d
}

// write makes the file. Its words are fixed, except for a branch name that was
// checked, so nothing from the work tree gets into it.
func (d draft) write(w worktree) string {
	var b strings.Builder
	b.WriteString(`# How this repository gets to production. Check it:  shunt lint
# All keys:  shunt help pipeline
version: 1
`)
	b.WriteString(w.branches())
	b.WriteString(`
jobs:                          # jobs without an environment run first, on every push, in both lanes
  build:
    steps:
`)
	for _, step := range d.steps {
		b.WriteString("      - run: " + step + "\n")
	}
	if d.junit != "" {
		b.WriteString("    reports: { junit: \"" + d.junit + "\" }\n")
	}
	b.WriteString(`    artifacts:
      app: "` + d.artifact + `"   # exactly one file; this is what gets approved and deployed
    timeout: 30m
  # regression:                # a long job against QA, left out for a hotfix
  #   lanes: [main]
  #   needs: qa
  #   steps: [./ci/regression.sh]

publish:
  app: { files: true }         # Shunt's own store; or nexus:, or raw:

environments:
  # qa:                        # one instance per build, destroyed by the decision
  #   ephemeral: true
  #   up: ./ci/qa-up.sh        # writes url=... to $SHUNT_OUTPUT
  #   ready: /healthz
  #   down: ./ci/qa-down.sh
  production:
    # needs: [qa, regression]
    approve:
      by: []                   # people or groups; empty: the operators
    deploy: ./ci/deploy.sh     # write this script: it gets the artifact, SHUNT_DEPLOY_ID and SHUNT_FENCE
    # verify: ./ci/verify.sh   # exits 0 when SHUNT_DEPLOY_ID is live; asked when an answer was lost
    # url: https://www.example.org
    # ready: /healthz
`)
	return b.String()
}

// branches proposes one branch for both when the repository has no develop.
func (w worktree) branches() string {
	const defaults = `
# branches:                    # git-flow's names; these are the defaults
#   integration: develop
#   production: master
#   hotfix: hotfix/*
`
	head, ok := strings.CutPrefix(strings.TrimSpace(w.text(".git/HEAD")), "ref: refs/heads/")
	if !ok || badRef(head) != "" || !namePattern.MatchString(head) || strings.HasPrefix(head, "hotfix") {
		return defaults
	}
	if head == "develop" || w.hasAny(".git/refs/heads/develop") || strings.Contains(w.text(".git/packed-refs"), "refs/heads/develop\n") {
		return defaults
	}
	return `
branches:                      # one branch for both; git-flow uses develop and master
  integration: "` + head + `"
  production: "` + head + `"
  hotfix: hotfix/*
`
}
