package demo

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/shuntcd/shunt/internal/api"
	"github.com/shuntcd/shunt/internal/delivery"
)

// lookEvery is how often the story looks whether what it waits for has come.
const lookEvery = 25 * time.Millisecond

// until waits for something. A server that is away counts as "not yet".
func (d *demo) until(ctx context.Context, what string, ok func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		done, err := ok()
		if done {
			return nil
		}
		if err != nil && !delivery.IsKind(err, delivery.KindUnavailable) {
			return fmt.Errorf("%s: %w", what, err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waited in vain until %s: %w", what, ctx.Err())
		case <-d.server.done:
			if d.server.err != nil {
				return d.server.err
			}
			return ctx.Err()
		case <-time.After(lookEvery):
		}
	}
}

// push pushes the current branch and returns the build that the server made of
// it, and the server's answer as git prints it. When there was none (the server
// was away), the server is asked to look.
func (d *demo) push(ctx context.Context, branch string) (build api.Build, answer string, err error) {
	commit, err := d.repo.Git(ctx, "rev-parse", "HEAD")
	if err != nil {
		return build, "", err
	}
	said, err := d.repo.Git(ctx, "push", "origin", branch)
	if err != nil {
		return build, "", err
	}
	err = d.until(ctx, "there is a build of "+delivery.ShortHash(commit), func() (bool, error) {
		list, err := d.client.Builds(ctx, projectName, api.BuildFilter{Commit: commit, Limit: 1})
		if err != nil || len(list) > 0 {
			if err == nil {
				build = list[0]
			}
			return err == nil, err
		}
		pushes, err := d.client.Sync(ctx, projectName)
		for _, p := range pushes {
			if p.Commit == commit && p.Refused != "" {
				return false, fmt.Errorf("the push was refused: %s", p.Refused)
			}
		}
		return false, err
	})
	if err != nil {
		return build, "", fmt.Errorf("%w\ngit push said:\n%s", err, said)
	}
	for line := range strings.Lines(said) {
		if _, after, ok := strings.Cut(line, "shunt: "); ok {
			answer = strings.TrimSpace(after)
		}
	}
	if want := "build " + itoa(build.Number) + " "; !strings.HasPrefix(answer, want) && d.server.starts.Load() == 1 {
		return build, "", fmt.Errorf("git push did not print the server's answer, but:\n%s", said)
	}
	return build, answer, nil
}

// reach waits until a build has a status.
func (d *demo) reach(ctx context.Context, number int64, status delivery.BuildStatus) (api.BuildDetail, error) {
	var b api.BuildDetail
	err := d.until(ctx, fmt.Sprintf("build %d is %s", number, status), func() (bool, error) {
		var err error
		if b, err = d.client.Build(ctx, projectName, number); err != nil {
			return false, err
		}
		if b.Status != status && (b.Status.Final() || b.Status == delivery.BuildStopped) {
			return false, unexpected(b)
		}
		return b.Status == status, nil
	})
	return b, err
}

// unexpected tells all that is known of a build that went another way.
func unexpected(b api.BuildDetail) error {
	var words strings.Builder
	fmt.Fprintf(&words, "build %d is %s: %s", b.Number, b.Status, b.Reason)
	for _, n := range b.Nodes {
		fmt.Fprintf(&words, "\n  %-18s %s %s", n.Name, n.State, n.Reason)
	}
	if w := b.WhyFailed; w != nil {
		words.WriteString("\n  " + w.Node + ": " + w.Reason + "\n    " + strings.Join(w.Tail, "\n    "))
	}
	return errors.New(words.String())
}

// rememberQA keeps where a build's environment is, to see later that it is gone.
func (d *demo) rememberQA(ctx context.Context, b api.BuildDetail) error {
	for _, i := range b.Instances {
		if i.State != delivery.InstanceUp {
			continue
		}
		labels, err := labelsAt(ctx, i.URL)
		if err != nil || labels["build"] != itoa(b.Number) {
			return errors.Join(err, fmt.Errorf("at %s is %v, want build %d", i.URL, labels, b.Number))
		}
		d.ids.qa = append(d.ids.qa, qaShop{i.URL, labels["instance"]})
		return nil
	}
	return fmt.Errorf("build %d waits and has no environment to try it in", b.Number)
}

// answers waits until an address answers as it should.
func (d *demo) answers(ctx context.Context, url string, status int, words string) error {
	var last string
	err := d.until(ctx, url+" answers "+http.StatusText(status), func() (bool, error) {
		got, body, err := get(ctx, url)
		if err != nil {
			last = err.Error()
			return false, nil //nolint:nilerr // not yet
		}
		last = fmt.Sprintf("%d\n%s", got, body)
		return got == status && strings.Contains(body, words), nil
	})
	if err != nil {
		return fmt.Errorf("%w; the last answer was %s", err, last)
	}
	return nil
}
