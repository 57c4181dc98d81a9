package disk

import (
	"maps"
	"math/rand/v2"
	"slices"
	"syscall"
	"time"
)

// inode is a file, a directory, a link or a socket.
type inode struct {
	id    uint64
	life  int
	path  string // the last name that it got, for people
	mode  uint32
	uid   uint32
	gid   uint32
	links uint32
	mtime time.Time

	data    []byte // a file as programs see it
	synced  []byte // as it is found after a power cut
	pending []edit // what lies between the two, in order

	kids   map[string]*inode // a directory as programs see it
	kept   map[string]*inode // as it is found after a power cut
	target string            // of a symbolic link
}

// edit is a write, or a truncation to a size.
type edit struct {
	at   int64
	data []byte // nil: truncate to at
}

func (e edit) apply(b []byte) []byte {
	if e.data == nil {
		if e.at <= int64(len(b)) {
			return b[:e.at]
		}
		return append(b, make([]byte, e.at-int64(len(b)))...)
	}
	if end := e.at + int64(len(e.data)); end > int64(len(b)) {
		b = append(b, make([]byte, end-int64(len(b)))...)
	}
	copy(b[e.at:], e.data)
	return b
}

// change is a call on names: all of it survives, or nothing.
type change []set

// set puts a node, or nothing, under a name.
type set struct {
	dir  *inode
	name string
	node *inode
}

func (c change) touches(dir *inode) bool {
	return slices.ContainsFunc(c, func(s set) bool { return s.dir == dir })
}

func (c change) keep() {
	for _, s := range c {
		if s.node == nil {
			delete(s.dir.kept, s.name)
		} else {
			s.dir.kept[s.name] = s.node
		}
	}
}

// add gives a node its number.
func (d *Disk) add(n *inode) *inode {
	n.id, n.life = d.nextID, d.life
	d.nextID++
	if n.links == 0 {
		n.links = 1
	}
	if n.mtime.IsZero() {
		n.mtime = time.Now()
	}
	d.nodes[n.id] = n
	return n
}

// edit changes a file.
func (n *inode) edit(e edit) {
	n.data = e.apply(n.data)
	n.pending = append(n.pending, e)
	n.mtime = time.Now()
}

// rename does a call on names: programs see it at once.
func (d *Disk) rename(c change) {
	for _, s := range c {
		if s.node == nil {
			delete(s.dir.kids, s.name)
		} else {
			s.dir.kids[s.name] = s.node
			s.node.path = s.dir.path + "/" + s.name
		}
		s.dir.mtime = time.Now()
	}
	d.journal = append(d.journal, &c)
}

// sync makes a file or directory durable.
func (d *Disk) sync(n *inode) {
	for _, e := range n.pending {
		n.synced = e.apply(n.synced)
	}
	n.pending = nil
	d.journal = slices.DeleteFunc(d.journal, func(c *change) bool {
		durable := d.model == Ordered || c.touches(n)
		if durable {
			c.keep()
		}
		return durable
	})
}

// lose begins a new life with what is found after a power cut.
func (d *Disk) lose(rnd *rand.Rand) {
	l := loss{rnd: rnd, model: d.model, names: rnd.IntN(3), bytes: rnd.IntN(3)}
	prefix := 0
	if len(d.journal) > 0 {
		prefix = rnd.IntN(len(d.journal) + 1)
	}
	for i, c := range d.journal {
		found := i < prefix
		if d.model == Harsh {
			found = rnd.IntN(2) == 0
		}
		if l.names == allFound || l.names == someFound && found {
			c.keep()
		}
	}
	d.journal = nil
	old := d.root
	d.handles = map[uint64][]dirEntry{}
	made := map[*inode]*inode{}
	var again func(n *inode) *inode
	again = func(n *inode) *inode {
		if m, ok := made[n]; ok {
			m.links++
			return m
		}
		m := &inode{path: n.path, mode: n.mode, uid: n.uid, gid: n.gid, links: 1, mtime: n.mtime, target: n.target}
		made[n] = m
		if n == old { // the kernel knows the root by its number
			m.id, m.life = n.id, d.life
			d.nodes[m.id] = m
		} else {
			d.add(m)
		}
		if n.kids != nil {
			m.kids = map[string]*inode{}
			for _, name := range slices.Sorted(maps.Keys(n.kept)) { // the seed decides, not the map
				m.kids[name] = again(n.kept[name])
			}
			m.kept = maps.Clone(m.kids)
		}
		if n.mode&syscall.S_IFMT == syscall.S_IFREG {
			m.data = l.found(n)
			m.synced = slices.Clone(m.data)
		}
		return m
	}
	d.root = again(old)
}

// What is found of what was not synced.
const (
	noneFound = iota
	someFound
	allFound
)

type loss struct {
	rnd          *rand.Rand
	model        Model
	names, bytes int
}

// found is what a file holds after the cut.
func (l loss) found(n *inode) []byte {
	b := slices.Clone(n.synced)
	prefix := l.rnd.IntN(len(n.pending) + 1)
	for i, e := range n.pending {
		switch {
		case l.bytes == allFound, l.bytes == someFound && l.model == Ordered && i < prefix:
			b = e.apply(b)
		case l.bytes == someFound && l.model == Harsh && l.rnd.IntN(2) == 0:
			b = l.torn(e, b)
		}
	}
	return b
}

// torn applies an edit, or some of its sectors.
func (l loss) torn(e edit, b []byte) []byte {
	const sector = 512
	if len(e.data) <= sector || l.rnd.IntN(2) == 0 {
		return e.apply(b)
	}
	for at := e.at; at < e.at+int64(len(e.data)); {
		end := min((at/sector+1)*sector, e.at+int64(len(e.data)))
		if l.rnd.IntN(2) == 0 {
			b = edit{at: at, data: e.data[at-e.at : end-e.at]}.apply(b)
		}
		at = end
	}
	return b
}
