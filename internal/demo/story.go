package demo

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/shuntcd/shunt/internal/api"
	"github.com/shuntcd/shunt/internal/delivery"
)

// exitWaiting is the exit code of `shunt watch --no-wait` when a person is asked.
const exitWaiting = 4

const hotfixName, fixMessage = "cart-500", "Cart answers 500 for a discontinued item"

// story plays what a person would do, and checks every claim.
func (d *demo) story(ctx context.Context) error {
	acts := []struct {
		words string
		do    func(context.Context) (string, error)
	}{
		{"production has a bug", d.seeBug},
		{"shunt hotfix start " + hotfixName, d.startHotfix},
		{"one line edited, shunt run", d.tryHere},
		{"committed, git push", d.pushHotfix},
		{"shunt watch: a person is asked", d.watchToGate},
		{"a mail asks the team", d.mailAsks},
		{"QA has the fix, production not yet", d.tryQA},
		{"shunt promote", d.promote},
		{"production answers", d.seeFix},
		{"QA is gone", d.qaGone},
		{"tags and branch moved together", d.tagsHold},
		{"nothing unfinished shipped", d.nothingUnfinished},
		{"the bytes are the approved ones", d.bytesHold},
		{"each deployment happened once", d.deploysHold},
		{"shunt backmerge: develop lacks the fix", d.debt},
		{"a person merged it into develop", d.payDebt},
		{"the mails", d.mailsHold},
	}
	for _, act := range acts {
		if err := d.step(act.words, func() (string, error) { return act.do(ctx) }); err != nil {
			return err
		}
	}
	graph, err := d.repo.Git(ctx, "log", "--graph", "--oneline", "--decorate", "--all")
	if err != nil {
		return err
	}
	d.say("\n%s\n", indent(graph))
	return nil
}

func indent(s string) string { return "  " + strings.ReplaceAll(s, "\n", "\n  ") }

func (d *demo) seeBug(ctx context.Context) (string, error) {
	return "GET /cart/7 answers 500", d.answers(ctx, d.production+"/cart/7", http.StatusInternalServerError, "")
}

func (d *demo) startHotfix(ctx context.Context) (string, error) {
	if _, err := d.shunt(ctx, "hotfix", "start", hotfixName); err != nil {
		return "", err
	}
	branch, err1 := d.repo.Git(ctx, "symbolic-ref", "--short", "HEAD")
	head, err2 := d.repo.Git(ctx, "rev-parse", "HEAD")
	if branch != "hotfix/"+hotfixName || head != d.ids.released {
		return "", errors.Join(err1, err2, fmt.Errorf("stands on %s at %s, want the production commit %s", branch, head, d.ids.released))
	}
	return branch + " at production/" + itoa(d.ids.release), nil
}

func (d *demo) tryHere(ctx context.Context) (string, error) {
	if err := d.repo.Fix(); err != nil {
		return "", err
	}
	out, err := d.shunt(ctx, "run")
	if err != nil {
		return "", err
	}
	return out[strings.LastIndexByte(out, '\n')+1:], nil
}

func (d *demo) pushHotfix(ctx context.Context) (string, error) {
	if err := d.repo.commit(ctx, fixMessage); err != nil {
		return "", err
	}
	b, answer, err := d.push(ctx, "HEAD")
	if err != nil {
		return "", err
	}
	if b.Lane != delivery.LaneHotfix {
		return "", fmt.Errorf("build %d travels on the %s lane", b.Number, b.Lane)
	}
	d.ids.hotfix, d.ids.fixed = b.Number, b.Commit
	return answer, nil
}

func (d *demo) watchToGate(ctx context.Context) (string, error) {
	out, code, err := d.shuntCode(ctx, "watch", "--no-wait")
	if err != nil || code != exitWaiting {
		return "", errors.Join(err, fmt.Errorf("it ended with %d, want %d:\n%s", code, exitWaiting, out))
	}
	b, err := d.client.Build(ctx, projectName, d.ids.hotfix)
	if err != nil {
		return "", err
	}
	if err := d.rememberQA(ctx, b); err != nil {
		return "", err
	}
	for _, n := range b.Nodes {
		if (n.Target == "regression" || n.Target == "security") && n.State != delivery.NodeSkipped {
			return "", fmt.Errorf("%s is %s; the hotfix lane skips it", n.Name, n.State)
		}
	}
	for _, g := range b.Gates {
		if g.State == delivery.GateOpen {
			return g.URL, nil
		}
	}
	return "", errors.New("no gate is open")
}

func (d *demo) mailAsks(ctx context.Context) (string, error) {
	return d.mail(ctx, fmt.Sprintf("(build %d)", d.ids.hotfix), d.ids.qa[len(d.ids.qa)-1].url)
}

func (d *demo) tryQA(ctx context.Context) (string, error) {
	qa := d.ids.qa[len(d.ids.qa)-1].url
	if err := d.answers(ctx, qa+"/cart/7", http.StatusOK, "no longer sold"); err != nil {
		return "", err
	}
	return qa + "/cart/7 answers 200", d.answers(ctx, d.production+"/cart/7", http.StatusInternalServerError, "")
}

func (d *demo) promote(ctx context.Context) (string, error) {
	return "build " + itoa(d.ids.hotfix) + " succeeded", d.promoteBuild(ctx, d.ids.hotfix)
}

// promoteBuild is what a person does who wants a build in production. Where the
// machine that deployed died meanwhile, Shunt looked the deployment up, found that
// it is not live, and does not start it again: they decide that.
func (d *demo) promoteBuild(ctx context.Context, number int64) error {
	out, code, err := d.shuntCode(ctx, "promote", projectName, itoa(number), "-m", "it works in QA")
	if err != nil {
		return err
	}
	b, err := d.client.Build(ctx, projectName, number)
	if err != nil {
		return err
	}
	if code != 0 && b.Status == delivery.BuildStopped && lost(b) {
		d.ids.again++
		if _, err := d.shunt(ctx, "resolve", projectName, itoa(number), "retry", "-m", "the machine died; production was looked at"); err != nil {
			return err
		}
	} else if code != 0 {
		return fmt.Errorf("shunt promote ended with %d:\n%s", code, out)
	}
	_, err = d.reach(ctx, number, delivery.BuildSucceeded)
	return err
}

// lost tells whether the build's deployment ended without an answer.
func lost(b api.BuildDetail) bool {
	for _, n := range b.Nodes {
		if n.Kind == delivery.NodeDeploy && n.State == delivery.NodeFailed && strings.Contains(n.Reason, "it was looked up: not live") {
			return true
		}
	}
	return false
}

func (d *demo) seeFix(ctx context.Context) (string, error) {
	return "GET /cart/7 answers 200", d.answers(ctx, d.production+"/cart/7", http.StatusOK, "no longer sold")
}

// debt: develop does not have the fix, Shunt says so, and did not merge it.
func (d *demo) debt(ctx context.Context) (string, error) {
	out, err := d.shunt(ctx, "backmerge")
	if err != nil {
		return "", err
	}
	if !strings.Contains(out, "build "+itoa(d.ids.hotfix)) || !strings.Contains(out, "merges clean") {
		return "", fmt.Errorf("it does not name build %d with a clean forecast:\n%s", d.ids.hotfix, out)
	}
	if in, err := d.contains(ctx, integration, d.ids.fixed); err != nil || in {
		return "", errors.Join(err, fmt.Errorf("develop contains the hotfix: %v; nobody merged it", in))
	}
	return "merges clean", nil
}

func (d *demo) payDebt(ctx context.Context) (string, error) {
	if err := d.repo.gits(ctx,
		[]string{"fetch", "--quiet", "--tags", "origin"},
		[]string{"switch", "--quiet", integration},
		[]string{"merge", "--quiet", "--no-edit", "origin/" + production}); err != nil {
		return "", err
	}
	b, _, err := d.push(ctx, integration)
	if err != nil {
		return "", err
	}
	err = d.until(ctx, "the debt is paid", func() (bool, error) {
		debts, err := d.client.BackMerges(ctx, projectName)
		if err != nil {
			return false, err
		}
		for _, m := range debts {
			if m.ClosedAt.IsZero() {
				return false, nil
			}
		}
		return true, nil
	})
	if err != nil {
		return "", err
	}
	if in, err := d.contains(ctx, integration, d.ids.fixed); err != nil || !in {
		return "", errors.Join(err, errors.New("develop does not contain the hotfix"))
	}
	// Its build still has the test of the unfinished page in its way.
	if _, err := d.reach(ctx, b.Number, delivery.BuildFailed); err != nil {
		return "", err
	}
	return "debt paid", nil
}

// mail waits for a mail with words in its subject and others in its text.
func (d *demo) mail(ctx context.Context, subject, text string) (string, error) {
	var found api.Mail
	err := d.until(ctx, "there is a mail about "+subject, func() (bool, error) {
		mails, err := d.client.Mails(ctx)
		for _, m := range mails {
			if strings.Contains(m.Subject, subject) && strings.Contains(m.Text, text) {
				found = m
				return true, nil
			}
		}
		return false, err
	})
	return found.Subject, err
}

func (d *demo) mailsHold(ctx context.Context) (string, error) {
	for _, n := range []int64{d.ids.release, d.ids.unfinishedBuild, d.ids.hotfix} {
		if _, err := d.mail(ctx, itoa(n), ""); err != nil {
			return "", err
		}
	}
	files, err := filepath.Glob(d.in("mail", "*.eml"))
	if err != nil || len(files) < 4 {
		return "", errors.Join(err, fmt.Errorf("there are %d mails in %s", len(files), d.in("mail")))
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil || !strings.Contains(string(b), "Auto-Submitted: auto-generated") {
			return "", errors.Join(err, fmt.Errorf("%s is not a mail of Shunt", f))
		}
	}
	return fmt.Sprintf("%d in %s", len(files), d.short(d.in("mail"))), nil
}
