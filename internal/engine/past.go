package engine

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/shuntcd/shunt/internal/delivery"
	"github.com/shuntcd/shunt/internal/gitrepo"
	"github.com/shuntcd/shunt/internal/pipeline"
)

// past is what git tells of one build by its annotated tags: that its jobs
// passed, what it made, and who let it into production. What git does not tell
// (logs, tests, refusals, builds that never got a tag) is not in it.
type past struct {
	build     delivery.Build // ended; its ID is 0
	pipeline  *pipeline.Pipeline
	artifacts []delivery.Artifact
	jobs      []string
	released  *pastRelease // nil: it has no production tag
	server    string       // the installation that made the tag
}

// pastRelease is what a production tag says.
type pastRelease struct {
	by, reason string
	without    int64
	takeover   bool
}

// pastRollback is what a rollback tag says.
type pastRollback struct {
	tag        string
	number     int64
	commit     string
	by, reason string
	at         time.Time
}

// pasts is what the tags of a remote tell.
type pasts struct {
	builds    []past // by number
	rollbacks []pastRollback
	highest   int64    // number of any tag that is called as ours are, whoever made it
	strange   []string // tags that are called as ours are and are not, in words
}

// rollbackTags is where rollbackTag leaves its evidence.
const rollbackTags = "refs/tags/rollback/"

// tagNumber is the number in a tag's name by its template; ok is false for other tags.
func tagNumber(template, ref string) (number int64, ok bool) {
	before, after, has := strings.Cut(template, "$N")
	middle, cut := strings.CutPrefix(ref, "refs/tags/"+before)
	middle, end := strings.CutSuffix(middle, after)
	if !has || !cut || !end || len(middle) > 15 { // a number beyond leaves none above it
		return 0, false
	}
	number, err := strconv.ParseInt(middle, 10, 64)
	return number, err == nil && number > 0 && strconv.FormatInt(number, 10) == middle
}

// readPasts reads the tags of a remote that want chooses.
func (e *Engine) readPasts(ctx context.Context, p delivery.Project, refs map[string]string, want func(ref string) bool) (out pasts, err error) {
	repo := e.repo(p)
	found := map[int64]*past{}
	for _, ref := range slices.Sorted(maps.Keys(refs)) {
		number, isBuild := tagNumber(p.Tags.Build, ref)
		production := false
		if !isBuild {
			number, production = tagNumber(p.Tags.Production, ref)
		}
		out.highest = max(out.highest, number)
		back := strings.HasPrefix(ref, rollbackTags)
		if !isBuild && !production && !back || !want(ref) {
			continue
		}
		info, err := repo.TagInfo(ctx, refs[ref])
		if err != nil && !delivery.IsKind(err, delivery.KindInvalid) {
			return out, fmt.Errorf("read tag %s: %w", ref, err)
		}
		t := trailers(info.Trailers)
		if back {
			number, _ = strconv.ParseInt(t.of("Shunt-Build"), 10, 64)
		}
		if why := t.ours(info, p.Name, number); err != nil || why != "" {
			out.strange = append(out.strange, strings.TrimPrefix(ref, "refs/tags/")+": "+cmp.Or(why, "it names no commit"))
			continue
		}
		if back {
			out.rollbacks = append(out.rollbacks, pastRollback{tag: strings.TrimPrefix(ref, "refs/tags/"), number: number, commit: info.Commit, by: t.of("Shunt-By"), reason: t.of("Shunt-Reason"), at: info.At})
			continue
		}
		b := found[number]
		if b == nil {
			b = &past{build: t.build(info, p.Name, number), artifacts: t.artifacts(), server: t.of("Shunt-Server")}
			found[number] = b
		}
		switch {
		case b.build.Commit != info.Commit:
			out.strange = append(out.strange, strings.TrimPrefix(ref, "refs/tags/")+": another tag of its number is at another commit")
			b.build.Number = 0 // nobody can tell which is right
		case isBuild:
			b.build.TagObject, b.jobs = refs[ref], strings.Fields(t.of("Shunt-Jobs"))
		default:
			without, _ := strconv.ParseInt(t.of("Shunt-Without"), 10, 64)
			b.released = &pastRelease{by: t.of("Shunt-Promoted-By"), reason: t.of("Shunt-Reason"), without: without, takeover: t.of("Shunt-Takeover") != ""}
		}
	}
	for _, number := range slices.Sorted(maps.Keys(found)) {
		if b := found[number]; b.build.Number != 0 {
			if err := e.complete(ctx, repo, b); err != nil {
				return out, err
			}
			out.builds = append(out.builds, *b)
		}
	}
	slices.SortFunc(out.rollbacks, func(a, b pastRollback) int { return a.at.Compare(b.at) })
	return out, nil
}

// complete adds what the commit itself tells.
func (e *Engine) complete(ctx context.Context, repo *gitrepo.Repo, b *past) error {
	c, err := repo.Commit(ctx, b.build.Commit)
	if err != nil {
		return err
	}
	b.build.Tree, b.build.Subject, b.build.AuthorName, b.build.AuthorEmail = c.Tree, c.Subject, c.AuthorName, c.AuthorEmail
	if len(c.Parents) > 0 {
		b.build.Parent = c.Parents[0]
	}
	pl, text, err := e.readPipeline(ctx, repo, c.ID)
	if err == nil {
		b.pipeline, b.build.Pipeline = pl, text
		b.build.PolicyDigest = cmp.Or(b.build.PolicyDigest, pl.Digest())
	} else if delivery.KindOf(err) == delivery.KindInternal {
		return err
	}
	b.build.Status = delivery.BuildExpired
	b.build.Reason = "read back from git: its jobs passed; what became of it then is not written there"
	if b.released != nil {
		b.build.Status, b.build.Reason = delivery.BuildSucceeded, ""
	}
	return nil
}

// nodes is the graph of the build as far as its tags tell how it went.
func (b *past) nodes() []delivery.Node {
	const words = "read back from git"
	if b.pipeline == nil || b.released != nil && b.released.takeover {
		return []delivery.Node{{Name: "tag", Kind: delivery.NodeTag, State: delivery.NodeSucceeded, Reason: words}}
	}
	nodes := b.pipeline.Graph(b.build.Lane)
	for i := range nodes {
		n := &nodes[i]
		passed := n.Kind == delivery.NodeTag || n.Kind == delivery.NodeJob && slices.Contains(b.jobs, n.Target)
		switch {
		case n.State == delivery.NodeSkipped:
		case passed || b.released != nil:
			n.State, n.Reason = delivery.NodeSucceeded, words
		default:
			n.State, n.Reason = delivery.NodeUnreached, words
		}
	}
	return nodes
}

// environment names where the build was released to.
func (b *past) environment() string {
	if b.pipeline != nil && b.pipeline.Production() != nil {
		return b.pipeline.Production().Name
	}
	return "production"
}

// trailers are the last paragraph of a tag's message.
type trailers map[string][]string

func (t trailers) of(key string) string {
	if v := t[key]; len(v) > 0 {
		return v[0]
	}
	return ""
}

// ours tells why a tag was not made by Shunt for this build; "" when it was.
// Whoever may push tags can forge one: git's own permissions guard them.
func (t trailers) ours(info gitrepo.TagInfo, project string, number int64) string {
	switch {
	case info.At.IsZero() || t.of("Shunt-Project") == "":
		return "it is not an annotated tag of Shunt's"
	case t.of("Shunt-Project") != project:
		return "it is of project " + t.of("Shunt-Project")
	case number <= 0 || t.of("Shunt-Build") != strconv.FormatInt(number, 10) || t.of("Shunt-Commit") != info.Commit:
		return "it says that it is build " + t.of("Shunt-Build") + " at " + delivery.ShortHash(t.of("Shunt-Commit"))
	}
	if l := delivery.Lane(t.of("Shunt-Lane")); l != delivery.LaneMain && l != delivery.LaneHotfix {
		return "it names no lane"
	}
	return ""
}

func (t trailers) build(info gitrepo.TagInfo, project string, number int64) delivery.Build {
	return delivery.Build{
		Project: project, Number: number, Lane: delivery.Lane(t.of("Shunt-Lane")), Ref: "refs/heads/" + t.of("Shunt-Branch"), Commit: info.Commit,
		PolicyDigest: t.of("Shunt-Policy"), CreatedAt: info.At,
	}
}

// artifacts reads "app sha256:<digest> <size> <file>".
func (t trailers) artifacts() (all []delivery.Artifact) {
	for _, line := range t["Shunt-Artifact"] {
		f := strings.SplitN(line, " ", 4)
		if len(f) != 4 {
			continue
		}
		sha, isSHA := strings.CutPrefix(f[1], "sha256:")
		size, err := strconv.ParseInt(f[2], 10, 64)
		if !safeName(f[0]) || !isSHA || len(sha) != 64 || strings.Trim(sha, "0123456789abcdef") != "" || err != nil || size < 0 {
			continue
		}
		all = append(all, delivery.Artifact{Name: f[0], SHA256: sha, Size: size, File: f[3]})
	}
	return all
}

// safeName tells whether an artifact of the pipeline file may be called so; it
// becomes part of a path.
func safeName(s string) bool {
	return s != "" && len(s) <= 63 && !strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '_' && r != '-'
	})
}
