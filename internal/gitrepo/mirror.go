package gitrepo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/shuntcd/shunt/internal/delivery"
)

// mirrorConfig is the whole configuration of a mirror. Objects are checked when
// they come in; the three oddities that are let through are harmless and common
// in old histories.
const mirrorConfig = `[core]
	repositoryformatversion = %d
	bare = true
	filemode = true
	logallrefupdates = false
[transfer]
	fsckObjects = true
[fetch "fsck"]
	badTimezone = ignore
	missingSpaceBeforeDate = ignore
	zeroPaddedFilemode = ignore
[gc]
	auto = 0
`

const sha256Config = "[extensions]\n\tobjectformat = sha256\n"

// Ensure makes the mirror when it is missing. It starts no process.
func (r *Repo) Ensure(ctx context.Context) error {
	if r.invalid != nil {
		return r.invalid
	}
	done, err := r.lock.take(ctx)
	if err != nil {
		return err
	}
	defer done()
	return r.ensure()
}

// Verify is called when the machine may have lost power: git syncs no
// directories, and so the mirror may have names without objects. A mirror that is
// not whole is thrown away and fetched again; nothing in it is only there. It
// tells whether it was whole; a mirror that does not exist is.
func (r *Repo) Verify(ctx context.Context) (whole bool, err error) {
	if r.invalid != nil {
		return true, r.invalid
	}
	done, err := r.lock.take(ctx)
	if err != nil {
		return true, err
	}
	defer done()
	if _, err := os.Stat(r.mirror); errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	r.sweep()
	c := r.inside("fsck", "--connectivity-only", "--no-dangling", "--no-progress")
	c.timeout = r.git.timeout * firstFetchFactor
	_, err = r.git.run(ctx, c)
	const oddRefs = 8 // HEAD, which names nothing (see create); a ref without its object has another bit
	if e, ended := errors.AsType[*exitError](err); !ended || e.code == oddRefs {
		if ended {
			err = nil
		}
		return true, err
	}
	r.git.log.WarnContext(ctx, "a mirror is damaged, probably by a power loss; it is fetched again", "project", r.project, "error", err)
	if err := r.create(false); err != nil {
		return false, fmt.Errorf("making the mirror of %s: %w", r.project, err)
	}
	return false, nil
}

// take waits for the mirror's turn; the function that it returns ends it.
func (l *mirrorLock) take(ctx context.Context) (func(), error) {
	select {
	case l.turn <- struct{}{}:
		return func() { <-l.turn }, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("waiting for the mirror: %w", ctx.Err())
	}
}

// ensure runs with the lock held.
func (r *Repo) ensure() error {
	_, err := os.Stat(filepath.Join(r.mirror, "HEAD"))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err = r.create(false); err != nil {
			return fmt.Errorf("making the mirror of %s: %w", r.project, err)
		}
	case err != nil:
		return fmt.Errorf("mirror of %s: %w", r.project, err)
	case !r.lock.ready:
		r.sweep() // a killed server may have left lock files
	}
	r.lock.ready = true
	return nil
}

// create writes an empty bare repository beside its place and moves it there,
// so that a crash leaves no half of one.
func (r *Repo) create(sha256 bool) error {
	tmp, err := os.MkdirTemp(r.git.dir, r.project+".new-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp) //nolint:errcheck // moved away, or rubbish
	config := fmt.Sprintf(mirrorConfig, 0)
	if sha256 {
		config = fmt.Sprintf(mirrorConfig, 1) + sha256Config
	}
	// HEAD names a branch that cannot come from the remote, so none is special.
	if err = skeleton(tmp, "ref: refs/shunt/none\n", config); err != nil {
		return err
	}
	if err = os.RemoveAll(r.mirror); err != nil { // without HEAD it is no repository
		return err
	}
	return os.Rename(tmp, r.mirror)
}

// skeleton makes what git wants to see in a git directory.
func skeleton(dir, head, config string) error {
	for _, d := range []string{"objects/info", "refs"} { // git makes the others when it needs them
		if err := os.MkdirAll(filepath.Join(dir, d), 0o700); err != nil {
			return err
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "config"), []byte(config), 0o600); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "HEAD"), []byte(head), 0o600)
}

// sweep removes the lock files of killed git processes. Nobody else writes refs
// here: callers hold the lock, and a data directory has one server.
func (r *Repo) sweep() {
	_ = os.Remove(filepath.Join(r.mirror, "packed-refs.lock"))
	_ = os.Remove(filepath.Join(r.mirror, "packed-refs.new"))
	_ = filepath.WalkDir(filepath.Join(r.mirror, "refs"), func(p string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && strings.HasSuffix(p, ".lock") {
			_ = os.Remove(p) //nolint:gosec // G122: our own directory, not a build's
		}
		return nil
	})
}

// Fetch brings the mirror to the state of the remote, branches and tags, and
// returns the refs: full name to object id (of the tag object, for an annotated
// tag). Callers of one project wait for each other.
func (r *Repo) Fetch(ctx context.Context) (map[string]string, error) {
	if r.invalid != nil {
		return nil, r.invalid
	}
	done, err := r.lock.take(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	if err = r.ensure(); err != nil {
		return nil, err
	}
	first := r.empty()
	err = r.fetch(ctx, first)
	if e, ok := errors.AsType[*exitError](err); ok && first && strings.Contains(e.stderr, "mismatched algorithms: client sha1; server sha256") {
		if err = r.create(true); err == nil {
			err = r.fetch(ctx, first)
		}
	}
	if err != nil {
		r.sweep()
		return nil, r.remoteError("cannot fetch "+r.project, err)
	}
	return r.refs(ctx)
}

// run reads from the mirror. Where other servers work too, what is not in it may
// be on the remote.
func (r *Repo) run(ctx context.Context, c command) ([]byte, error) {
	out, err := r.git.run(ctx, c)
	code := exitCode(err)
	unknown := code == 128 || code == 1 && c.args[0] == "rev-parse"
	if !unknown || !r.git.shared || c.stdin != nil {
		return out, err
	}
	if _, fetch := r.Fetch(ctx); fetch != nil {
		return out, err
	}
	return r.git.run(ctx, c)
}

// empty tells whether the mirror has never had a ref.
func (r *Repo) empty() bool {
	entries, err := os.ReadDir(filepath.Join(r.mirror, "refs"))
	_, packed := os.Stat(filepath.Join(r.mirror, "packed-refs"))
	return err == nil && len(entries) == 0 && errors.Is(packed, fs.ErrNotExist)
}

func (r *Repo) fetch(ctx context.Context, first bool) error {
	c := r.network(
		"fetch", "--quiet", "--prune", "--force", "--no-tags", "--no-recurse-submodules",
		"--no-auto-maintenance", "--no-write-fetch-head", "--no-show-forced-updates")
	c.operands = []string{r.url, "+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"}
	if first {
		c.timeout = r.git.timeout * firstFetchFactor
	}
	_, err := r.git.run(ctx, c)
	return err
}

// refs reads the refs of the mirror.
func (r *Repo) refs(ctx context.Context) (map[string]string, error) {
	c := r.inside("for-each-ref", "--format=%(objectname)%09%(refname)")
	c.operands = []string{heads, tags}
	out, err := r.git.run(ctx, c)
	if err != nil {
		return nil, err
	}
	return parseRefs(out), nil
}

// parseRefs reads lines of object id, tab, ref name. What is not UTF-8 in a name
// becomes U+FFFD: it could not be written down, shown or named again.
func parseRefs(out []byte) map[string]string {
	refs := make(map[string]string)
	for line := range bytes.Lines(out) {
		id, ref, ok := strings.Cut(strings.TrimSuffix(string(line), "\n"), "\t")
		if ok && isID(id) {
			refs[strings.ToValidUTF8(ref, "\ufffd")] = id
		}
	}
	return refs
}

// RemoteRefs asks the remote for refs, without fetching. A pattern is a full ref
// name, or one that ends in * and means everything that begins so; none means
// all branches and tags. An annotated tag has a second key with ^{} behind the
// name: the commit.
func (r *Repo) RemoteRefs(ctx context.Context, patterns ...string) (map[string]string, error) {
	if len(patterns) == 0 {
		patterns = []string{heads + "*", tags + "*"}
	}
	if err := r.Ensure(ctx); err != nil {
		return nil, err
	}
	c := r.network("ls-remote", "--quiet")
	c.operands = []string{r.url}
	for _, p := range patterns {
		prefix, star := strings.CutSuffix(p, "*")
		if err := checkRef(strings.TrimSuffix(prefix, "/") + "/x"); err != nil || !strings.HasPrefix(prefix, "refs/") {
			return nil, delivery.Errf(delivery.KindInvalid, "bad ref pattern", fmt.Sprintf("%.200q", p))
		}
		c.operands = append(c.operands, p)
		if !star {
			c.operands = append(c.operands, p+"^{}")
		}
	}
	out, err := r.git.run(ctx, c)
	if err != nil {
		return nil, r.remoteError("cannot read the refs of "+r.project, err)
	}
	refs := parseRefs(out)
	for ref := range refs { // git matches the end of a name, so more can come
		if !matches(ref, patterns) {
			delete(refs, ref)
		}
	}
	return refs, nil
}

func matches(ref string, patterns []string) bool {
	ref = strings.TrimSuffix(ref, "^{}")
	for _, p := range patterns {
		if prefix, star := strings.CutSuffix(p, "*"); ref == p || star && strings.HasPrefix(ref, prefix) {
			return true
		}
	}
	return false
}

// Maintain packs what many small fetches left in the mirror. Nothing that a
// work tree may use is removed.
func (r *Repo) Maintain(ctx context.Context) error {
	if err := r.Ensure(ctx); err != nil {
		return err
	}
	done, err := r.lock.take(ctx)
	if err != nil {
		return err
	}
	defer done()
	c := r.inside("repack", "-d", "-l", "-q", "--geometric=2", "--no-write-bitmap-index")
	c.timeout = r.git.timeout * firstFetchFactor
	if _, err = r.git.run(ctx, c); err != nil {
		return err
	}
	c = r.inside("pack-refs", "--all")
	if _, err = r.git.run(ctx, c); err != nil {
		r.sweep()
	}
	return err
}

// inside is a command on the mirror that needs no network.
func (r *Repo) inside(args ...string) command {
	return command{gitDir: r.mirror, args: args, env: []string{"GIT_ALLOW_PROTOCOL="}, secrets: r.secrets}
}

// ownPush marks our own pushes for the hook that we install in a local remote: it
// has nothing to tell us about them.
const ownPush = "SHUNT_PUSH=1"

// network is a command on the mirror that talks to the remote.
func (r *Repo) network(args ...string) command {
	return command{gitDir: r.mirror, args: args, env: append([]string{ownPush}, r.env...), secrets: r.secrets}
}

// remoteError puts into words why the remote could not be used.
func (r *Repo) remoteError(what string, err error) error {
	e := &delivery.Error{Kind: delivery.KindUnavailable, What: what, Err: err}
	x, ok := errors.AsType[*exitError](err)
	if !ok {
		switch {
		case errors.Is(err, context.DeadlineExceeded):
			e.Why = "the remote did not answer in time"
		case errors.Is(err, context.Canceled):
			e.Why = "it was cancelled"
		default:
			e.Kind, e.Why = delivery.KindInternal, "git could not be run"
		}
		return e
	}
	e.Why = summary(x.stderr)
	for _, h := range hints() {
		if strings.Contains(x.stderr, h.says) {
			e.Kind, e.Next = h.kind, h.next
			break
		}
	}
	return e
}

type hint struct {
	says string
	kind delivery.Kind
	next string
}

func hints() []hint {
	return []hint{
		{"could not read Username", delivery.KindUnavailable, "The remote wants a login: put a token into the project's URL, or use ssh."},
		{"Authentication failed", delivery.KindUnavailable, "The remote did not take the login in the project's URL."},
		{"Permission denied (", delivery.KindUnavailable, "Give the ssh key of the user who runs Shunt access to the repository."},
		{"Host key verification failed", delivery.KindUnavailable, "Add the host's key to known_hosts of the user who runs Shunt."},
		{"dubious ownership", delivery.KindUnavailable, "The repository belongs to another user: give it to the user who runs Shunt."},
		{"requested URL returned error: 30", delivery.KindInvalid, "The remote redirects: register the address that it redirects to."},
		{"fsck error", delivery.KindInvalid, "The repository has an object that git's checks refuse."},
		{"does not appear to be a git repository", delivery.KindUnavailable, "Check the project's URL."},
	}
}

// summary is the line of git's output that says what went wrong.
func summary(stderr string) string {
	first := ""
	for line := range strings.SplitSeq(stderr, "\n") {
		line = strings.TrimSpace(line)
		if first == "" {
			first = line
		}
		if strings.HasPrefix(line, "fatal: ") || strings.HasPrefix(line, "error: ") || strings.HasPrefix(line, "remote: error: ") {
			first = line
			break
		}
	}
	if first == "" {
		return "git gave no reason"
	}
	if len(first) > 300 {
		first = strings.ToValidUTF8(first[:300], "") + "..."
	}
	return first
}
