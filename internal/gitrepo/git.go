package gitrepo

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shuntcd/shunt/internal/delivery"
)

// Config says how git is run.
type Config struct {
	Dir        string        // where the mirrors are: data directory/mirrors; made when missing
	Home       string        // HOME of the git processes; made when missing; never a person's
	Bin        string        // the git binary; default "git"
	Log        *slog.Logger  // default: discards
	SSHCommand string        // GIT_SSH_COMMAND; default: ssh that never asks
	Timeout    time.Duration // of one operation; default 2 minutes. The first fetch of a mirror may take 15 times as long
	// Shared says that other servers work on the same remotes: an object that is
	// not in the mirror is fetched, once, before it counts as missing.
	Shared bool
}

const (
	defaultTimeout    = 2 * time.Minute
	defaultSSHCommand = "ssh -oBatchMode=yes -oConnectTimeout=20 -oServerAliveInterval=15"
	firstFetchFactor  = 15
)

// Git runs git for all projects of an installation. It is safe for concurrent use.
type Git struct {
	dir     string
	bin     string
	env     []string
	log     *slog.Logger
	timeout time.Duration
	shared  bool

	mu    sync.Mutex
	locks map[string]*mirrorLock // by project

	ancestry   sync.Map // ancestry -> bool; objects never change, so neither does the answer
	ancestries atomic.Int64
}

// mirrorLock serialises what writes refs in one mirror. It is a channel, so
// that a waiting caller can give up with its context.
type mirrorLock struct {
	turn  chan struct{}
	ready bool // Ensure has run in this process; guarded by turn
}

// New prepares the directories. It starts no process; see Version for that.
func New(cfg Config) (*Git, error) {
	if cfg.Dir == "" || cfg.Home == "" {
		return nil, errors.New("gitrepo: Dir and Home are needed")
	}
	bin := cfg.Bin
	if bin == "" {
		bin = "git"
	}
	bin, err := exec.LookPath(bin)
	if err != nil {
		return nil, &delivery.Error{
			Kind: delivery.KindUnavailable, What: "git was not found", Why: "Shunt runs the git binary",
			Next: "Install git 2.39.4 or newer, and make sure it is in PATH.", Err: err,
		}
	}
	if bin, err = filepath.Abs(bin); err != nil {
		return nil, fmt.Errorf("gitrepo: %w", err)
	}
	dirs := []string{cfg.Dir, cfg.Home}
	for i, d := range dirs {
		if dirs[i], err = filepath.Abs(d); err != nil {
			return nil, fmt.Errorf("gitrepo: %w", err)
		}
		// The alternates file is read line by line.
		if strings.ContainsAny(dirs[i], "\n\r\"") {
			return nil, delivery.Errf(delivery.KindInvalid, "bad data directory", "its path has a line break or a quote in it")
		}
		if err = os.MkdirAll(dirs[i], 0o700); err != nil {
			return nil, fmt.Errorf("gitrepo: %w", err)
		}
	}
	g := &Git{
		dir: dirs[0], bin: bin, log: cfg.Log, timeout: cfg.Timeout, shared: cfg.Shared,
		locks: map[string]*mirrorLock{},
	}
	if g.log == nil {
		g.log = slog.New(slog.DiscardHandler)
	}
	if g.timeout <= 0 {
		g.timeout = defaultTimeout
	}
	ssh := cfg.SSHCommand
	if ssh == "" {
		ssh = defaultSSHCommand
	}
	g.env = baseEnv(dirs[1], ssh)
	return g, nil
}

// Repo is one project's repository: the remote at its URL and its mirror.
type Repo struct {
	git     *Git
	project string
	mirror  string // absolute path of the bare mirror
	url     string // without credentials, as git gets it
	path    string // of a local remote; else empty
	env     []string
	secrets []string // never shown
	invalid error    // why nothing can be done with it
	lock    *mirrorLock
}

// Repo returns the repository of a project. Nothing is read or run yet; a bad
// name or URL is reported by the first method that is called.
func (g *Git) Repo(project, url string, local bool) *Repo {
	r := &Repo{git: g, project: project}
	if !projectName.MatchString(project) {
		r.invalid = delivery.Errf(delivery.KindInvalid, "bad project name", "it is made of a-z, 0-9 and -, at most 63 of them")
		return r
	}
	r.mirror = filepath.Join(g.dir, project+".git")
	g.mu.Lock()
	defer g.mu.Unlock()
	if r.lock = g.locks[project]; r.lock == nil {
		r.lock = &mirrorLock{turn: make(chan struct{}, 1)}
		g.locks[project] = r.lock
	}
	r.remote(url, local)
	return r
}

// projectName is delivery.Project's rule for names; a name is also a directory here.
var projectName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)
