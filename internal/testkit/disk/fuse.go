package disk

import (
	"maps"
	"slices"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// The methods of fuse.RawFileSystem (fuse(4)). Node numbers are never used
// again within a mount, so nothing is ever forgotten.

type dirEntry struct {
	name string
	id   uint64
	mode uint32
}

// cacheTime is how long the kernel may remember names and attributes: all
// changes go through it. What is directly below the root is asked for each
// time, so that a power cut takes the whole tree away.
const cacheTime = time.Hour

// node finds a node of this life; the caller holds the lock, which is given away
// while a node of an earlier life waits for its end.
func (d *Disk) node(id uint64) (*inode, fuse.Status) {
	n := d.nodes[id]
	if n == nil || n.life != d.life {
		dead := d.dead
		d.mu.Unlock()
		<-dead
		d.mu.Lock()
		return nil, fuse.EIO
	}
	return n, fuse.OK
}

// do asks the judge, and then does an op under the lock.
func (d *Disk) do(kind Kind, h *fuse.InHeader, name string, f func(n *inode) fuse.Status) fuse.Status {
	d.mu.Lock()
	n, st := d.node(h.NodeId)
	d.mu.Unlock()
	if !st.Ok() {
		return st
	}
	var v Verdict
	if d.judge != nil {
		op := Op{Kind: kind, Path: n.path, Thread: int(h.Pid)}
		if name != "" {
			op.Path += "/" + name
		}
		if v = d.judge(op); v.Errno != 0 {
			return fuse.Status(v.Errno)
		}
	}
	d.mu.Lock()
	if n, st = d.node(h.NodeId); st.Ok() { // the judge may have cut the power
		st = f(n)
	}
	d.mu.Unlock()
	if v.After != nil {
		v.After()
		d.mu.Lock()
		defer d.mu.Unlock()
		if _, gone := d.node(h.NodeId); !gone.Ok() {
			return gone
		}
	}
	return st
}

func (n *inode) attr(out *fuse.Attr) {
	*out = fuse.Attr{Ino: n.id, Size: uint64(len(n.data)), Blocks: uint64(len(n.data)+511) / 512, Blksize: 4096, Mode: n.mode, Nlink: n.links, Owner: fuse.Owner{Uid: n.uid, Gid: n.gid}}
	out.SetTimes(&n.mtime, &n.mtime, &n.mtime)
}

func (d *Disk) entry(dir, n *inode, out *fuse.EntryOut) {
	out.NodeId, out.Generation = n.id, 1
	n.attr(&out.Attr)
	if dir.id != fuse.FUSE_ROOT_ID {
		out.SetEntryTimeout(cacheTime)
	}
	out.SetAttrTimeout(time.Second)
}

// Lookup finds a name.
func (d *Disk) Lookup(cancel <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	if h.NodeId == fuse.FUSE_ROOT_ID && !d.powered(cancel) {
		return fuse.EINTR
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	dir, st := d.node(h.NodeId)
	if !st.Ok() {
		return st
	}
	n := dir.kids[name]
	if n == nil {
		return fuse.ENOENT
	}
	d.entry(dir, n, out)
	return fuse.OK
}

// GetAttr answers stat.
func (d *Disk) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	d.mu.Lock()
	defer d.mu.Unlock()
	n, st := d.node(in.NodeId)
	if st.Ok() {
		n.attr(&out.Attr)
		out.SetTimeout(time.Second)
	}
	return st
}

// SetAttr is truncate, chmod, chown and utimes.
func (d *Disk) SetAttr(_ <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	size, resize := in.GetSize()
	set := func(n *inode) fuse.Status {
		if resize {
			n.edit(edit{at: int64(size)})
		}
		if mode, ok := in.GetMode(); ok {
			n.mode = n.mode&syscall.S_IFMT | mode&0o7777
		}
		if uid, ok := in.GetUID(); ok {
			n.uid = uid
		}
		if gid, ok := in.GetGID(); ok {
			n.gid = gid
		}
		if t, ok := in.GetMTime(); ok {
			n.mtime = t
		}
		n.attr(&out.Attr)
		out.SetTimeout(time.Second)
		return fuse.OK
	}
	if resize {
		return d.do(Truncate, &in.InHeader, "", set)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	n, st := d.node(in.NodeId)
	if !st.Ok() {
		return st
	}
	return set(n)
}

// create puts a new node under a name.
func (d *Disk) create(h *fuse.InHeader, name string, n *inode, out *fuse.EntryOut) fuse.Status {
	return d.do(Create, h, name, func(dir *inode) fuse.Status {
		if dir.kids[name] != nil {
			return fuse.Status(syscall.EEXIST)
		}
		n.uid, n.gid = h.Uid, h.Gid
		if n.mode&syscall.S_IFMT == syscall.S_IFDIR {
			n.kids, n.kept = map[string]*inode{}, map[string]*inode{}
		}
		d.rename(change{{dir, name, d.add(n)}})
		d.entry(dir, n, out)
		return fuse.OK
	})
}

// Mknod makes a file or a socket.
func (d *Disk) Mknod(_ <-chan struct{}, in *fuse.MknodIn, name string, out *fuse.EntryOut) fuse.Status {
	return d.create(&in.InHeader, name, &inode{mode: in.Mode}, out)
}

// Mkdir makes a directory.
func (d *Disk) Mkdir(_ <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	return d.create(&in.InHeader, name, &inode{mode: syscall.S_IFDIR | in.Mode&0o7777}, out)
}

// Symlink makes a symbolic link.
func (d *Disk) Symlink(_ <-chan struct{}, h *fuse.InHeader, target, name string, out *fuse.EntryOut) fuse.Status {
	return d.create(h, name, &inode{mode: syscall.S_IFLNK | 0o777, target: target, data: []byte(target)}, out)
}

// Readlink reads one.
func (d *Disk) Readlink(_ <-chan struct{}, h *fuse.InHeader) ([]byte, fuse.Status) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n, st := d.node(h.NodeId)
	if !st.Ok() {
		return nil, st
	}
	return []byte(n.target), fuse.OK
}

// Link gives a file another name.
func (d *Disk) Link(_ <-chan struct{}, in *fuse.LinkIn, name string, out *fuse.EntryOut) fuse.Status {
	return d.do(Create, &in.InHeader, name, func(dir *inode) fuse.Status {
		n, st := d.node(in.Oldnodeid)
		if !st.Ok() {
			return st
		}
		if dir.kids[name] != nil {
			return fuse.Status(syscall.EEXIST)
		}
		n.links++
		d.rename(change{{dir, name, n}})
		d.entry(dir, n, out)
		return fuse.OK
	})
}

// Unlink removes a name of a file.
func (d *Disk) Unlink(_ <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	return d.do(Unlink, h, name, func(dir *inode) fuse.Status {
		n := dir.kids[name]
		if n == nil {
			return fuse.ENOENT
		}
		n.links--
		d.rename(change{{dir, name, nil}})
		return fuse.OK
	})
}

// Rmdir removes an empty directory.
func (d *Disk) Rmdir(_ <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	return d.do(Unlink, h, name, func(dir *inode) fuse.Status {
		n := dir.kids[name]
		switch {
		case n == nil:
			return fuse.ENOENT
		case n.kids == nil:
			return fuse.ENOTDIR
		case len(n.kids) > 0:
			return fuse.Status(syscall.ENOTEMPTY)
		}
		d.rename(change{{dir, name, nil}})
		return fuse.OK
	})
}

// Rename moves a name.
func (d *Disk) Rename(_ <-chan struct{}, in *fuse.RenameIn, from, to string) fuse.Status {
	const noReplace = 1
	return d.do(Rename, &in.InHeader, from, func(dir *inode) fuse.Status {
		other, st := d.node(in.Newdir)
		if !st.Ok() {
			return st
		}
		n, there := dir.kids[from], other.kids[to]
		switch {
		case in.Flags&^noReplace != 0:
			return fuse.EINVAL
		case n == nil:
			return fuse.ENOENT
		case n == there:
			return fuse.OK
		case there != nil && in.Flags&noReplace != 0:
			return fuse.Status(syscall.EEXIST)
		case there != nil && len(there.kids) > 0:
			return fuse.Status(syscall.ENOTEMPTY)
		case there != nil:
			there.links--
		}
		d.rename(change{{dir, from, nil}, {other, to, n}})
		return fuse.OK
	})
}

// Create opens a new file.
func (d *Disk) Create(_ <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	return d.create(&in.InHeader, name, &inode{mode: syscall.S_IFREG | in.Mode&0o7777}, &out.EntryOut)
}

// Open opens a file that is there. Its pages stay in the kernel's cache.
func (d *Disk) Open(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	out.OpenFlags = fuse.FOPEN_KEEP_CACHE
	if in.Flags&syscall.O_TRUNC != 0 {
		return d.do(Truncate, &in.InHeader, "", func(n *inode) fuse.Status {
			n.edit(edit{at: 0})
			return fuse.OK
		})
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	_, st := d.node(in.NodeId)
	return st
}

// Read reads bytes.
func (d *Disk) Read(_ <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n, st := d.node(in.NodeId)
	if !st.Ok() {
		return nil, st
	}
	if in.Offset >= uint64(len(n.data)) {
		return fuse.ReadResultData(nil), fuse.OK
	}
	return fuse.ReadResultData(buf[:copy(buf, n.data[in.Offset:])]), fuse.OK
}

// Write writes bytes.
func (d *Disk) Write(_ <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	h := in.InHeader
	if in.WriteFlags&fuse.WRITE_CACHE != 0 {
		h.Pid = 0
	}
	st := d.do(Write, &h, "", func(n *inode) fuse.Status {
		n.edit(edit{at: int64(in.Offset), data: slices.Clone(data)})
		return fuse.OK
	})
	if !st.Ok() {
		return 0, st
	}
	return uint32(len(data)), fuse.OK
}

// Flush is close; it promises nothing.
func (d *Disk) Flush(<-chan struct{}, *fuse.FlushIn) fuse.Status { return fuse.OK }

// Fsync makes a file durable.
func (d *Disk) Fsync(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	return d.do(Sync, &in.InHeader, "", func(n *inode) fuse.Status {
		d.sync(n)
		return fuse.OK
	})
}

// FsyncDir makes the names in a directory durable.
func (d *Disk) FsyncDir(cancel <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	return d.Fsync(cancel, in)
}

// OpenDir begins to list a directory.
func (d *Disk) OpenDir(cancel <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	if in.NodeId == fuse.FUSE_ROOT_ID && !d.powered(cancel) {
		return fuse.EINTR
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	_, st := d.node(in.NodeId)
	d.nextDir++
	out.Fh = d.nextDir
	return st
}

// ReadDir lists names as they were when the list was begun.
func (d *Disk) ReadDir(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	d.mu.Lock()
	defer d.mu.Unlock()
	n, st := d.node(in.NodeId)
	if !st.Ok() {
		return st
	}
	if in.Offset == 0 {
		var list []dirEntry
		for _, name := range slices.Sorted(maps.Keys(n.kids)) {
			list = append(list, dirEntry{name, n.kids[name].id, n.kids[name].mode})
		}
		d.handles[in.Fh] = list
	}
	for _, e := range d.handles[in.Fh][min(in.Offset, uint64(len(d.handles[in.Fh]))):] {
		if !out.AddDirEntry(fuse.DirEntry{Name: e.name, Ino: e.id, Mode: e.mode}) {
			break
		}
	}
	return fuse.OK
}

// ReleaseDir ends a list.
func (d *Disk) ReleaseDir(in *fuse.ReleaseIn) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.handles, in.Fh)
}

// StatFs answers df: there is always room.
func (d *Disk) StatFs(_ <-chan struct{}, _ *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	*out = fuse.StatfsOut{Blocks: 1 << 24, Bfree: 1 << 23, Bavail: 1 << 23, Files: 1 << 24, Ffree: 1 << 24, Bsize: 4096, NameLen: 255, Frsize: 4096}
	return fuse.OK
}
