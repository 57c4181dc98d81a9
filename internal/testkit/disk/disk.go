// Package disk is a file system for tests that can fail as disks do: it is kept
// in memory, mounted by FUSE, and knows of every byte and every name whether it
// was synced. Its vocabulary:
//
//   - an op is a call that changes the disk or makes it durable: write, sync,
//     rename, unlink, create, truncate. The judge sees each op before it is done,
//     with the process that asks, and may delay it, refuse it with an error of the
//     disk, kill the process, or cut the power;
//   - what is synced is what would be found after the power was cut. A file's
//     bytes are synced by fsync of that file, a name by fsync of its directory;
//   - a model says what is found of the rest (see Model);
//   - a life is the time from one power cut to the next. Whoever holds a file of an
//     earlier life gets EIO: to them the machine is gone.
//
// Mounting needs root and /dev/fuse.
package disk

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// Kind is what an op does.
type Kind string

// The kinds of ops.
const (
	Write    Kind = "write"    // write, pwrite64, writev
	Sync     Kind = "sync"     // fsync and fdatasync, of files and directories
	Rename   Kind = "rename"   // rename, renameat, renameat2
	Unlink   Kind = "unlink"   // unlink, unlinkat, rmdir
	Create   Kind = "create"   // open with O_CREAT of a new file, mkdir, link, symlink, bind
	Truncate Kind = "truncate" // truncate, ftruncate, open with O_TRUNC
)

// Op is a call that is about to change the disk.
type Op struct {
	Kind   Kind
	Path   string // below the mount point
	Thread int    // that asks; 0: the kernel writes back a mapped page
}

// Verdict is what happens to an op. The zero value lets it happen.
type Verdict struct {
	Errno syscall.Errno // the op is not done and this is the answer
	After func()        // called when the op was done, before it is answered
}

// Model says what is found after a power cut of what was not synced.
type Model int

const (
	// Ordered is a journal as ext4 keeps it: names come and go in the order of the
	// calls, and any sync makes all names before it durable. Of bytes that were not
	// synced none or some are found, so that a file may be there and be empty.
	Ordered Model = iota
	// Harsh promises what POSIX promises and nothing more: of names and bytes that
	// were not synced any subset is found, in any order, and writes are torn at
	// sectors of 512 bytes.
	Harsh
)

func (m Model) String() string { return [...]string{"ordered", "harsh"}[m] }

// Disk is a mounted file system.
type Disk struct {
	fuse.RawFileSystem

	dir    string
	model  Model
	judge  func(Op) Verdict
	server *fuse.Server

	mu      sync.Mutex
	nodes   map[uint64]*inode
	handles map[uint64][]dirEntry
	nextID  uint64
	nextDir uint64
	life    int
	root    *inode
	journal []*change     // of names, not yet durable, oldest first
	on      chan struct{} // closed while there is power
	dead    chan struct{} // closed when those of the earlier life may learn that it is over
}

// Mount mounts an empty disk on the directory. judge may be nil. An error that
// is ErrCannot says that this machine has no FUSE for us.
func Mount(dir string, model Model, judge func(Op) Verdict) (*Disk, error) {
	if os.Geteuid() != 0 {
		return nil, fmt.Errorf("%w: not root", ErrCannot)
	}
	if _, err := os.Stat("/dev/fuse"); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCannot, err)
	}
	d := &Disk{
		RawFileSystem: fuse.NewDefaultRawFileSystem(), dir: dir, model: model, judge: judge,
		nodes: map[uint64]*inode{}, handles: map[uint64][]dirEntry{}, nextID: fuse.FUSE_ROOT_ID, on: make(chan struct{}), dead: make(chan struct{}),
	}
	close(d.on)
	close(d.dead)
	d.root = d.add(&inode{mode: syscall.S_IFDIR | 0o755, kids: map[string]*inode{}, kept: map[string]*inode{}})
	server, err := fuse.NewServer(d, dir, &fuse.MountOptions{
		FsName: "shunt-disk", Name: "disk", DirectMountStrict: true, DirectMountFlags: syscall.MS_NOSUID | syscall.MS_NODEV,
		AllowOther: true, DisableXAttrs: true, MaxWrite: 1 << 20, DisableReadDirPlus: true,
	})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCannot, err)
	}
	d.server = server
	go server.Serve()
	if err := server.WaitMount(); err != nil {
		return nil, fmt.Errorf("mount: %w", err)
	}
	return d, nil
}

// ErrCannot says that no disk can be mounted on this machine.
var ErrCannot = errors.New("disk: cannot mount here")

// Close unmounts, also when files are still open.
func (d *Disk) Close() error {
	d.mu.Lock()
	d.life++ // whoever still holds a file gets EIO
	d.mu.Unlock()
	if err := syscall.Unmount(d.dir, syscall.MNT_DETACH|syscall.MNT_FORCE); err != nil {
		return fmt.Errorf("unmount: %w", err)
	}
	return nil
}

// PowerCut takes the power away, at once and for everybody: nothing reaches the
// disk any more, and what was not synced is found by the disk's model and rnd, or
// not at all. kill has to send SIGKILL to all who would have died, and nothing
// else: whoever reads /proc or the disk meanwhile may hang with them. Calls on files
// of this life hang until it returns, so that nobody sees the disk fail and says
// so, and answer EIO then. gone has to wait until they are gone. Then a new life
// begins, and whoever opens a file meanwhile waits for it.
func (d *Disk) PowerCut(rnd *rand.Rand, kill, gone func()) {
	d.mu.Lock()
	d.life++
	again, dead := make(chan struct{}), make(chan struct{})
	d.on, d.dead = again, dead
	d.lose(rnd)
	d.mu.Unlock()
	kill()
	close(dead)
	gone()
	close(again)
}

// powered waits until there is power.
func (d *Disk) powered(cancel <-chan struct{}) bool {
	for {
		d.mu.Lock()
		on := d.on
		d.mu.Unlock()
		select {
		case <-on:
			return true
		case <-cancel:
			return false
		}
	}
}

// Dump copies what is on the disk to a directory, which is made. It does not go
// through the mount.
func (d *Disk) Dump(ctx context.Context, to string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.root.dump(ctx, to)
}

func (n *inode) dump(ctx context.Context, to string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	switch n.mode & syscall.S_IFMT {
	case syscall.S_IFDIR:
		if err := os.MkdirAll(to, 0o700); err != nil {
			return err
		}
		for name, kid := range n.kids {
			if err := kid.dump(ctx, filepath.Join(to, name)); err != nil {
				return err
			}
		}
	case syscall.S_IFREG:
		return os.WriteFile(to, n.data, fs.FileMode(n.mode&0o777)|0o600)
	case syscall.S_IFLNK:
		return os.Symlink(n.target, to)
	}
	return nil
}
