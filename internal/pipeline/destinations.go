package pipeline

import (
	"fmt"
	"strconv"
)

// publishing resolves the destinations and checks that each artifact exists
// before it is published.
func (r *resolver) publishing(p *Pipeline, late map[string]bool) {
	makers := map[string]string{}
	var artifacts []string
	for i := range r.file.Jobs.V {
		job := &r.file.Jobs.V[i]
		for _, a := range job.V.V.Artifacts.V {
			if other, double := makers[a.Name]; double {
				r.add(a.At, "a name is used once in the whole file", "the artifact %s is made by job %s already", quoted(a.Name), other)
				continue
			}
			makers[a.Name] = job.Name
			artifacts = append(artifacts, a.Name)
		}
	}
	nodes := map[string]bool{}
	for i := range r.file.Publish.V {
		n := &r.file.Publish.V[i]
		maker, known := makers[n.Name]
		switch {
		case !known:
			hint := "publish takes names from artifacts: of a job"
			if near := didYouMean(n.Name, artifacts); near != "" {
				hint = fmt.Sprintf("did you mean %q?", near)
			}
			r.add(n.At, hint, "publish %s: no job makes this artifact", quoted(n.Name))
		case late[maker]:
			r.add(n.At, "make the artifact in a CI job", "publish %s: job %s needs an environment, and publishing comes before environments", quoted(n.Name), maker)
		}
		for k := range n.V.V {
			d := r.destination(n.Name, &n.V.V[k])
			d.Node = "publish/" + n.Name
			if k > 0 {
				d.Node += "-" + strconv.Itoa(k+1)
			}
			if nodes[d.Node] {
				r.add(n.At, "rename an artifact", "two destinations would be called %s", d.Node)
			}
			nodes[d.Node] = true
			p.Publish = append(p.Publish, d)
		}
	}
}

func (r *resolver) destination(artifact string, g *group[dest]) Publish {
	s := &g.V
	d := Publish{Artifact: artifact, Secrets: s.Secrets.values()}
	label := "publish " + short(artifact)
	if !g.Set || r.broken(g.At) {
		return d
	}
	files := s.Files.V
	if s.Files.Set && !files {
		r.add(s.Files.At, "remove the destination instead", "files of %s can only be true", label)
		return d
	}
	kinds := 0
	for _, set := range []bool{files, s.Raw.Set, s.Nexus.Set} {
		if set {
			kinds++
		}
	}
	if kinds != 1 {
		r.add(g.At, "files: true, raw: URL, or nexus: URL", "%s must have exactly one of files, raw and nexus", label)
		return d
	}
	if !s.Nexus.Set {
		d.Kind, d.URL = PublishFiles, ""
		if s.Raw.Set {
			d.Kind, d.URL = PublishRaw, s.Raw.V
		}
		r.refuses(label+" does not go to nexus", "", []keyAt{
			{"repository", s.Repository.Set, s.Repository.At},
			{"format", s.Format.Set, s.Format.At},
			{"coordinates", s.Coordinates.Set, s.Coordinates.At},
			{"directory", s.Directory.Set, s.Directory.At},
		})
		return d
	}
	d.Kind, d.URL, d.Repository = PublishNexus, s.Nexus.V, s.Repository.V
	d.Format, d.Coordinates, d.Directory = s.Format.V, s.Coordinates.V, s.Directory.V
	r.requires(g.At, label+" goes to nexus", "repository", s.Repository, "the name of the hosted repository")
	if d.Format == "" {
		d.Format = "maven2"
		if s.Directory.Set && !s.Coordinates.Set {
			d.Format = "raw"
		}
	}
	if d.Format == "raw" {
		r.requires(g.At, label+" goes to a raw repository", "directory", s.Directory, "where the file goes, such as /petstore")
		r.refuses(label+" goes to a raw repository", "coordinates are for format: maven2", []keyAt{{"coordinates", s.Coordinates.Set, s.Coordinates.At}})
		return d
	}
	r.requires(g.At, label+" goes to a maven2 repository", "coordinates", s.Coordinates, "group:artifact:version:packaging")
	r.refuses(label+" goes to a maven2 repository", "directory is for format: raw", []keyAt{{"directory", s.Directory.Set, s.Directory.At}})
	return d
}
