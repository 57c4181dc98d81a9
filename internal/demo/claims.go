package demo

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/shuntcd/shunt/internal/delivery"
)

// bare runs git in the bare repository, which is what everybody sees.
func (d *demo) bare(ctx context.Context, args ...string) (string, error) {
	return d.repo.Git(ctx, append([]string{"--git-dir", d.repo.Bare}, args...)...)
}

// contains tells whether a branch of the bare repository contains a commit.
func (d *demo) contains(ctx context.Context, branch, commit string) (bool, error) {
	_, err := d.bare(ctx, "merge-base", "--is-ancestor", commit, "refs/heads/"+branch)
	if e, ok := errors.AsType[*exec.ExitError](err); ok && e.ExitCode() == 1 {
		return false, nil
	}
	return err == nil, err
}

// tagsHold: annotated build/N and production/N on one commit for each release,
// master at the latest, and the hotfix right on top of the one before.
func (d *demo) tagsHold(ctx context.Context) (string, error) {
	for number, commit := range map[int64]string{d.ids.release: d.ids.released, d.ids.hotfix: d.ids.fixed} {
		for _, prefix := range []string{"build/", "production/"} {
			ref := "refs/tags/" + prefix + itoa(number)
			kind, err := d.bare(ctx, "cat-file", "-t", ref)
			if err != nil || kind != "tag" {
				return "", errors.Join(err, fmt.Errorf("%s is a %s, want an annotated tag", ref, kind))
			}
			if got, err := d.bare(ctx, "rev-parse", ref+"^{commit}"); err != nil || got != commit {
				return "", errors.Join(err, fmt.Errorf("%s is on %s, want %s", ref, got, commit))
			}
		}
	}
	if got, err := d.bare(ctx, "rev-parse", "refs/heads/"+production); err != nil || got != d.ids.fixed {
		return "", errors.Join(err, fmt.Errorf("%s is at %s, want %s", production, got, d.ids.fixed))
	}
	if got, err := d.bare(ctx, "rev-parse", d.ids.fixed+"^"); err != nil || got != d.ids.released {
		return "", errors.Join(err, fmt.Errorf("the hotfix's parent is %s, want the production commit %s", got, d.ids.released))
	}
	return fmt.Sprintf("build/%d, production/%d, %s at %s", d.ids.hotfix, d.ids.hotfix, production, delivery.ShortHash(d.ids.fixed)), nil
}

func (d *demo) nothingUnfinished(ctx context.Context) (string, error) {
	if len(d.ids.unfinished) != 3 {
		return "", fmt.Errorf("there are %d unfinished commits, want 3", len(d.ids.unfinished))
	}
	for _, c := range d.ids.unfinished {
		if in, err := d.contains(ctx, production, c); err != nil || in {
			return "", errors.Join(err, fmt.Errorf("%s contains the unfinished commit %s: %v", production, c, in))
		}
		if in, err := d.contains(ctx, integration, c); err != nil || !in {
			return "", errors.Join(err, fmt.Errorf("%s lost the commit %s", integration, c))
		}
	}
	return "3 commits stay on develop", nil
}

// bytesHold: what production serves from, what the server keeps, what its record
// says and what both tags say is one digest.
func (d *demo) bytesHold(ctx context.Context) (string, error) {
	live, err := labelsAt(ctx, d.production)
	if err != nil {
		return "", err
	}
	b, err := d.client.Build(ctx, projectName, d.ids.hotfix)
	if err != nil {
		return "", err
	}
	if len(b.Artifacts) != 1 || live["sha256"] != b.Artifacts[0].SHA256 || live["commit"] != d.ids.fixed || live["build"] != itoa(d.ids.hotfix) {
		return "", fmt.Errorf("production serves %v, recorded are %v", live, b.Artifacts)
	}
	digest := b.Artifacts[0].SHA256
	for _, prefix := range []string{"build/", "production/"} {
		tag, err := d.bare(ctx, "cat-file", "tag", "refs/tags/"+prefix+itoa(d.ids.hotfix))
		if err != nil {
			return "", err
		}
		if !strings.Contains(tag, "\nShunt-Artifact: app sha256:"+digest+" ") {
			return "", fmt.Errorf("the tag %s%d does not name the artifact %s:\n%s", prefix, d.ids.hotfix, digest, tag)
		}
	}
	// And once more in the way that a person would.
	if err := d.repo.gits(ctx, []string{"fetch", "--quiet", "--tags", "origin"}); err != nil {
		return "", err
	}
	if _, err := d.shunt(ctx, "verify", itoa(d.ids.hotfix)); err != nil {
		return "", err
	}
	return "sha256 " + digest[:12] + "… live, recorded and tagged", nil
}

// deploysHold reads what the deploy script itself wrote down.
func (d *demo) deploysHold(ctx context.Context) (string, error) {
	log, err := os.ReadFile(d.in("production", "deploys.log"))
	if err != nil {
		return "", err
	}
	var ids, builds []string
	for line := range strings.Lines(string(log)) {
		f := strings.Fields(line)
		if len(f) != 5 {
			return "", fmt.Errorf("deploys.log has the line %q", line)
		}
		ids, builds = append(ids, f[0]), append(builds, f[2])
	}
	want := []string{itoa(d.ids.release), itoa(d.ids.hotfix)}
	slices.Sort(ids)
	starts := len(builds)
	if !slices.Equal(slices.Compact(builds), want) || starts > len(want)+d.ids.again || len(slices.Compact(ids)) != starts {
		return "", fmt.Errorf("deployed were the builds %v, want %v, each once and %d more by a person:\n%s", builds, want, d.ids.again, log)
	}
	live, err := labelsAt(ctx, d.production)
	if err != nil || !slices.Contains(ids, live["deploy"]) {
		return "", errors.Join(err, fmt.Errorf("production runs the deployment %q", live["deploy"]))
	}
	return fmt.Sprintf("%d in deploys.log", starts), nil
}

// qaGone: the server says so, nothing answers there, and no state is left.
func (d *demo) qaGone(ctx context.Context) (string, error) {
	if len(d.ids.qa) < 2 {
		return "", fmt.Errorf("there were %d QA environments, want one for each release", len(d.ids.qa))
	}
	err := d.until(ctx, "no QA environment is left", func() (bool, error) {
		list, err := d.client.Instances(ctx, projectName)
		if err != nil {
			return false, err
		}
		for _, i := range list {
			if i.State != delivery.InstanceDown {
				return false, nil
			}
		}
		return true, nil
	})
	if err != nil {
		return "", err
	}
	for _, qa := range d.ids.qa {
		if labels, err := labelsAt(ctx, qa.url); err == nil && labels["instance"] == qa.instance {
			return "", fmt.Errorf("%s still answers", qa.url)
		}
	}
	left, err := filepath.Glob(d.in("qa", "*"))
	if err != nil || len(left) > 0 {
		return "", errors.Join(err, fmt.Errorf("left are %v", left))
	}
	return "nothing answers at " + d.ids.qa[len(d.ids.qa)-1].url, nil
}
