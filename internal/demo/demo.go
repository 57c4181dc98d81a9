package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/shuntcd/shunt/internal/api"
	"github.com/shuntcd/shunt/internal/delivery"
)

// Options say how the demo is played.
type Options struct {
	Auto bool   // play the story and check it; else serve until ctx ends
	Dir  string // absolute
	Data string // of the server; "": in Dir. The fault suite has a disk of its own for it
	Port int    // of the server, if it is free; 0: any, and for production too
	Exe  string // this program
	// Database is an empty PostgreSQL database for the server; "": a SQLite file in the folder.
	Database string
	Env      []string
	Out      io.Writer
	Clock    delivery.Clock
	HTTP     *http.Client // asks again while the server is away
	Paint    func(color, text string) string
	// EndRunner ends the runner that a server left with its data directory.
	EndRunner func(ctx context.Context, data string) error
}

// productionPort is where the demo's production runs, if it is free.
const productionPort = 9001

// patience is how long the story waits for something that must come.
const patience = 90 * time.Second

// demo is a running demo.
type demo struct {
	Options
	*folder
	repo       Repo
	exe        string // in the folder
	url        string // of the server
	production string // URL
	server     *supervisor
	client     *api.Client
	stepStart  time.Time
	ids        facts
}

// facts are what the story learns on its way and checks at its end.
type facts struct {
	release, unfinishedBuild, hotfix int64    // builds
	unfinished                       []string // commits
	released, fixed                  string   // commits
	qa                               []qaShop // environments that have to be gone
	again                            int      // deployments that were lost, and that a person decided to start once more
}

// qaShop is a QA environment that was up.
type qaShop struct{ url, instance string }

// Run makes the demo, and plays it or serves it. It leaves the folder and
// nothing else.
func Run(ctx context.Context, o Options) (err error) {
	d := &demo{Options: o, stepStart: o.Clock.Now()}
	if d.folder, err = openFolder(ctx, o.Dir, o.EndRunner); err != nil {
		return err
	}
	defer d.mark.Close() //nolint:errcheck // gives the lock back
	serving, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer func() {
		if err = errors.Join(err, d.stop(context.WithoutCancel(ctx), stop)); err == nil && d.Auto {
			d.say("All claims hold. Everything was stopped; %s stays, with %s.git and the mails in %s", d.short(d.path), projectName, d.short(d.in("mail")))
		}
	}()
	if err := d.make(ctx, serving); err != nil {
		return err
	}
	if d.Auto {
		return d.story(ctx)
	}
	return d.invite(ctx)
}

// stop ends everything that the demo started.
func (d *demo) stop(ctx context.Context, server context.CancelFunc) error {
	server()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if d.server == nil {
		return nil
	}
	<-d.server.done
	return errors.Join(d.EndRunner(ctx, d.data()), d.stopShops(ctx))
}

// step does one thing, prints it with its time, and stops at the first that
// fails. words are told what came out.
func (d *demo) step(words string, do func() (more string, err error)) error {
	d.stepStart = d.Clock.Now()
	more, err := do()
	if more != "" {
		words = fmt.Sprintf("%-34s %s", words, more)
	}
	seconds := ""
	if d.Auto {
		seconds = fmt.Sprintf("%5.1fs  ", d.Clock.Now().Sub(d.stepStart).Seconds())
	}
	if err != nil {
		d.say("%s  %s%s", d.Paint("1", "FAIL"), seconds, words)
		return fmt.Errorf("the demo stopped at %q: %w\nSee %s and %s", strings.TrimSpace(words), err, d.in("server.log"), d.url)
	}
	d.say("%s  %s%s", d.Paint("2", " ok"), seconds, words)
	return nil
}

// data is the server's data directory.
func (d *demo) data() string {
	if d.Data != "" {
		return d.Data
	}
	return d.in("data")
}

func (d *demo) say(format string, args ...any) { _, _ = fmt.Fprintf(d.Out, format+"\n", args...) }

// make makes the folder's content and brings production to where the story begins.
func (d *demo) make(ctx, serving context.Context) error {
	serverPort, err := freePort(ctx, d.Port)
	if err != nil {
		return err
	}
	wanted := productionPort
	if d.Port == 0 || !holdPort(productionPort) {
		wanted = 0 // several demos at once
	}
	shopPort, err := freePort(ctx, wanted)
	if err != nil {
		return err
	}
	d.url = "http://localhost:" + strconv.Itoa(serverPort)
	shop := "localhost:" + strconv.Itoa(shopPort)
	d.production = "http://" + shop
	shown := d.short(d.path)
	steps := []func() error{
		func() error {
			return d.step("made "+shown, func() (_ string, err error) {
				d.exe, err = d.copyExe(d.Exe)
				return "(delete the folder and it is gone)", err
			})
		},
		func() error {
			return d.step("repository", func() (_ string, err error) {
				d.repo, err = MakeRepo(ctx, d.path, Values{Exe: d.exe, Dir: d.path, Production: shop}, d.Env)
				return filepath.Join(shown, projectName+".git") + " + clone " + filepath.Join(shown, projectName), err
			})
		},
		func() error {
			return d.step("server, artifacts, mailbox", func() (string, error) { return d.url, d.startServer(ctx, serving) })
		},
		func() error {
			return d.step("build 1 promoted, in production", func() (string, error) { return d.production, d.firstRelease(ctx) })
		},
		func() error {
			return d.step("develop is 3 commits ahead: unfinished work that must not ship", func() (string, error) { return "", d.goAhead(ctx) })
		},
	}
	for _, s := range steps {
		if err := s(); err != nil {
			return err
		}
	}
	return nil
}

// short shows a path below the current directory as people write it.
func (d *demo) short(path string) string {
	if wd, err := os.Getwd(); err == nil {
		if rel, err := filepath.Rel(wd, path); err == nil && !strings.HasPrefix(rel, "..") {
			return "." + string(filepath.Separator) + rel
		}
	}
	return path
}

func (d *demo) startServer(ctx, serving context.Context) error {
	d.server = &supervisor{
		exe: d.exe, env: d.env(), log: d.in("server.log"),
		args: []string{"serve", "--data", d.data(), "--listen", strings.TrimPrefix(d.url, "http://"), "--public-url", d.url, "--mail-dir", d.in("mail")},
	}
	if d.Database != "" {
		d.server.args = append(d.server.args, "--database", d.Database)
	}
	if err := supervise(serving, d.server, d.Clock); err != nil {
		return err
	}
	if err := d.until(ctx, "the server answers", func() (bool, error) {
		status, _, err := get(ctx, d.url+"/readyz")
		return err == nil && status == http.StatusOK, nil
	}); err != nil {
		return err
	}
	var token string
	if err := d.until(ctx, "a token is made", func() (bool, error) {
		out, code, err := d.shuntCode(ctx, "token", "create", "demo", "--data", d.data())
		if code == 0 {
			token = out
		} else {
			err = errors.Join(err, delivery.Errf(delivery.KindUnavailable, "no token yet", out)) // a disk that fails now may not fail again
		}
		return token != "", err
	}); err != nil {
		return err
	}
	d.client = api.NewClient(d.url, token, d.HTTP)
	if err := d.repo.gits(ctx, []string{"config", "shunt.server", d.url}, []string{"config", "shunt.token", token}, []string{"config", "shunt.project", projectName}); err != nil {
		return err
	}
	return d.until(ctx, "the project is there", func() (bool, error) {
		_, err := d.client.AddProject(ctx, api.AddProject{Name: projectName, URL: d.repo.Bare, Local: true, InstallHook: true})
		if delivery.IsKind(err, delivery.KindConflict) {
			return true, nil // it is there: an answer was lost
		}
		return err == nil, err
	})
}

// firstRelease takes the shop, with its bug, to production.
func (d *demo) firstRelease(ctx context.Context) error {
	b, _, err := d.push(ctx, integration)
	if err != nil {
		return err
	}
	d.ids.release, d.ids.released = b.Number, b.Commit
	waiting, err := d.reach(ctx, b.Number, delivery.BuildWaiting)
	if err != nil {
		return err
	}
	if err := d.rememberQA(ctx, waiting); err != nil {
		return err
	}
	if err := d.promoteBuild(ctx, b.Number); err != nil {
		return err
	}
	return d.answers(ctx, d.production+"/", http.StatusOK, "All for your pet")
}

// goAhead puts the unfinished commits on develop. Their build stops at the test
// whose page does not exist yet.
func (d *demo) goAhead(ctx context.Context) error {
	if err := d.repo.Unfinished(ctx); err != nil {
		return err
	}
	list, err := d.repo.Git(ctx, "rev-list", d.ids.released+"..HEAD")
	if err != nil {
		return err
	}
	d.ids.unfinished = strings.Fields(list)
	b, _, err := d.push(ctx, integration)
	if err != nil {
		return err
	}
	d.ids.unfinishedBuild = b.Number
	_, err = d.reach(ctx, b.Number, delivery.BuildFailed)
	return err
}

// invite prints what a person can do now, and waits until they stop it.
func (d *demo) invite(ctx context.Context) error {
	link, err := d.shunt(ctx, "login-link", "--data", d.data())
	if err != nil {
		return err
	}
	cart := strings.TrimPrefix(d.production, "http://") + "/cart/7"
	d.say("\n Open  %s      (signs you in once)\n", link)
	d.say(" Production has a bug:  curl %s      -> 500", cart)
	if _, err := exec.LookPath("shunt"); err != nil {
		d.say(" In another terminal:   export PATH=%s:$PATH", shellQuote(d.in("bin")))
	}
	d.say(" Fix it:  cd %s && shunt hotfix start cart-500", d.short(d.repo.Clone))
	d.say(" Then:    edit the line with .Price.Amount in %s  (README.md says how)", bugFile)
	d.say("          shunt run && git commit -am 'Cart answers 500' && git push && shunt watch")
	d.say("\n Ctrl-C stops everything.")
	select {
	case <-ctx.Done():
		d.say("\n stopping; %s stays", d.short(d.path))
		return nil
	case <-d.server.done:
		return d.server.err
	}
}

// env is the environment of what the demo starts: no configuration of this
// person's Shunt or git gets in.
func (d *demo) env() []string {
	var out []string
	for _, kv := range plainGit(d.Env) {
		if !strings.HasPrefix(kv, "SHUNT_") {
			out = append(out, kv)
		}
	}
	return out
}

// shunt runs a command of the command line in the clone and returns what it
// printed. It goes on asking while the server is away.
func (d *demo) shunt(ctx context.Context, args ...string) (string, error) {
	out, code, err := d.shuntCode(ctx, args...)
	if err == nil && code != 0 {
		err = fmt.Errorf("shunt %s ended with %d:\n%s", strings.Join(args, " "), code, out)
	}
	return out, err
}

// shuntCode is shunt for commands that say something with their exit code.
func (d *demo) shuntCode(ctx context.Context, args ...string) (string, int, error) {
	cmd := exec.CommandContext(ctx, d.exe, append([]string{"--patience", patience.String()}, args...)...)
	cmd.Dir = d.repo.Clone
	cmd.Env = d.env()
	var out, complaints bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaints
	err := cmd.Run()
	if cmd.ProcessState != nil && !cmd.ProcessState.Success() {
		out.Write(complaints.Bytes())
	}
	if _, ended := errors.AsType[*exec.ExitError](err); ended && ctx.Err() == nil {
		err = nil
	}
	return strings.TrimSpace(out.String()), cmd.ProcessState.ExitCode(), err
}

func itoa(n int64) string { return strconv.FormatInt(n, 10) }
