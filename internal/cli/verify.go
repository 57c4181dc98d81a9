package cli

import (
	"context"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/shuntcd/shunt/internal/api"
)

func (a *app) verifyCommand() *cobra.Command {
	cmd := command("verify [project] build|tag", "Check tags, commit and artifact bytes of a build against each other", cobra.RangeArgs(1, 2), func(ctx context.Context, args []string) error {
		last := len(args) - 1
		number := args[last][strings.LastIndex(args[last], "/")+1:]
		c, project, n, err := a.target(ctx, append(args[:last:last], number))
		if err != nil {
			return err
		}
		return a.verify(ctx, c, project, n)
	})
	cmd.Long = "Verify reads the annotated tags of a build in this clone (git fetch --tags first), the server's record,\nand the artifact's bytes, and checks that all three say the same. It ends with 1 when they do not."
	return cmd
}

// verdict is one checked claim.
type verdict struct {
	Claim string `json:"claim"`
	OK    bool   `json:"ok"`
	Words string `json:"words"`
}

func (a *app) verify(ctx context.Context, c *api.Client, project string, number int64) error {
	b, err := c.Build(ctx, project, number)
	if err != nil {
		return err
	}
	digests := map[string]string{} // of the bytes that the server gives
	var verdicts []verdict
	for _, art := range b.Artifacts {
		got, err := fetchArtifact(ctx, c, project, number, art.Name, io.Discard)
		if err != nil {
			return err
		}
		digests[art.Name] = got
		verdicts = append(verdicts, same("bytes of "+art.Name+" and the record", got, art.SHA256))
	}
	tags := 0
	for _, tag := range []string{b.BuildTag, b.ProductionTag} {
		if tag == "" {
			continue
		}
		tags++
		verdicts = append(verdicts, a.verifyTag(ctx, b, tag, digests)...)
	}
	if tags == 0 {
		verdicts = append(verdicts, verdict{Claim: "tags", Words: "build " + itoa(number) + " has none: it is " + string(b.Status)})
	}
	failed := false
	for _, v := range verdicts {
		failed = failed || !v.OK
		if a.json {
			if err := a.emit(v); err != nil {
				return err
			}
			continue
		}
		mark := a.paint(green, " ok ")
		if !v.OK {
			mark = a.paint(red, "FAIL")
		}
		a.printf("%s  %s: %s\n", mark, clean(v.Claim), clean(v.Words))
	}
	if failed {
		return exitError(1)
	}
	return nil
}

// verifyTag compares a tag object of this clone with the record.
func (a *app) verifyTag(ctx context.Context, b api.BuildDetail, tag string, digests map[string]string) []verdict {
	ref := "refs/tags/" + tag
	kind, err := a.git(ctx, "cat-file", "-t", ref)
	if err != nil {
		return []verdict{{Claim: tag, Words: "it is not in this clone:  git fetch --tags"}}
	}
	commit, err := a.git(ctx, "rev-parse", "--verify", "--quiet", ref+"^{commit}")
	if err != nil {
		return []verdict{{Claim: tag, Words: "it names no commit"}}
	}
	verdicts := []verdict{same(tag+" and the record name the commit", commit, b.Commit)}
	if kind != "tag" {
		return append(verdicts, verdict{Claim: tag, Words: "it is not annotated"})
	}
	text, err := a.git(ctx, "cat-file", "tag", ref)
	if err != nil {
		return append(verdicts, verdict{Claim: tag, Words: whyOf(err)})
	}
	named := trailerDigests(text)
	for name, digest := range digests {
		verdicts = append(verdicts, same(tag+" and the bytes of "+name, named[name], digest))
	}
	return verdicts
}

func same(claim, got, want string) verdict {
	if got == want && got != "" {
		return verdict{Claim: claim, OK: true, Words: got}
	}
	if got == "" {
		got = "nothing"
	}
	return verdict{Claim: claim, Words: got + " is not " + want}
}

// trailerDigests reads the artifact trailers of a tag's message: artifact name
// to SHA-256.
func trailerDigests(text string) map[string]string {
	out := map[string]string{}
	for line := range strings.SplitSeq(text, "\n") {
		value, ok := strings.CutPrefix(line, artifactTrailer)
		if !ok {
			continue
		}
		fields := strings.Fields(value)
		if len(fields) < 2 {
			continue
		}
		for _, f := range fields[1:] {
			if d, ok := strings.CutPrefix(f, "sha256:"); ok {
				out[fields[0]] = d
			}
		}
	}
	return out
}

// artifactTrailer begins the trailer "Shunt-Artifact: app sha256:9b1f... 4711 petstore.tar.gz".
const artifactTrailer = "Shunt-Artifact: "
