package runner

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shuntcd/shunt/internal/delivery"
	"github.com/shuntcd/shunt/internal/runlog"
)

// partialDelay is how long an unfinished line waits for its rest before it is
// stored as a part.
const partialDelay = 200 * time.Millisecond

// pump moves what the steps print from their pipe to the stored log: redactor
// first, then the writer of stored lines. Reading and storing happen under one
// lock, so that a marker can be put exactly between what was printed before it
// and what comes after. A slow disk slows the job down; nothing piles up here.
type pump struct {
	pipe *os.File
	raw  syscall.RawConn
	buf  [64 << 10]byte
	grow func(size int64)
	done chan struct{} // closed when the pipe has ended

	mu       sync.Mutex
	file     *os.File
	redactor *runlog.Redactor
	writer   *runlog.Writer
	err      error // of the log
	finished bool  // the log is complete; what still comes is thrown away
}

func newPump(pipe, file *os.File, secrets []string, limit int64, clock delivery.Clock, grow func(int64)) (*pump, error) {
	raw, err := pipe.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("reading the output: %w", err)
	}
	writer := runlog.NewWriter(file, clock, limit)
	return &pump{
		pipe: pipe, raw: raw, file: file, writer: writer, grow: grow, done: make(chan struct{}),
		redactor: runlog.NewRedactor(writer, secrets),
	}, nil
}

// run pumps until the pipe ends or is closed.
func (p *pump) run() {
	defer close(p.done)
	armed := false
	for {
		n, pending := 0, false
		err := p.raw.Read(func(fd uintptr) bool {
			p.mu.Lock()
			defer p.mu.Unlock()
			var again bool
			n, again = p.read(int(fd), len(p.buf))
			pending = p.writer.Pending() && !p.finished
			return !again
		})
		if errors.Is(err, os.ErrDeadlineExceeded) {
			armed = false
			_ = p.pipe.SetReadDeadline(time.Time{})
			p.flush()
			continue
		}
		if err != nil || n == 0 {
			return
		}
		if pending && !armed {
			armed = p.pipe.SetReadDeadline(time.Now().Add(partialDelay)) == nil //nolint:forbidigo // the kernel's clock
		}
	}
}

// read takes at most limit bytes from the pipe; the caller holds the lock.
func (p *pump) read(fd, limit int) (n int, again bool) {
	for {
		n, err := unix.Read(fd, p.buf[:limit])
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.EAGAIN:
			return 0, true
		case err != nil:
			return 0, false
		}
		if n > 0 && !p.finished {
			_, err := p.redactor.Write(p.buf[:n])
			p.note(err)
		}
		return n, false
	}
}

func (p *pump) flush() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.finished {
		p.note(p.writer.Flush())
	}
}

// marker stores a line of the runner's own behind everything that was printed
// up to now.
func (p *pump) marker(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.finished {
		return
	}
	p.drain()
	p.note(p.writer.Marker(text))
}

// drain takes what is in the pipe now, and no more, because a background
// process may print for ever.
func (p *pump) drain() {
	_ = p.raw.Control(func(fd uintptr) {
		waiting, err := unix.IoctlGetInt(int(fd), unix.TIOCINQ)
		if err != nil {
			return
		}
		for waiting > 0 {
			n, again := p.read(int(fd), min(waiting, len(p.buf)))
			if again || n == 0 {
				return
			}
			waiting -= n
		}
	})
}

// drained stores all that was printed up to now. It is called when the steps have ended.
func (p *pump) drained() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.drain()
	p.note(p.redactor.Close())
}

// finish completes the log and makes it durable. The error is the first of all.
func (p *pump) finish() (size int64, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.finished = true
	p.note(p.writer.Close())
	if err := p.file.Sync(); err != nil && p.err == nil {
		p.err = fmt.Errorf("saving the log: %w", err)
	}
	if err := p.file.Close(); err != nil && p.err == nil {
		p.err = fmt.Errorf("saving the log: %w", err)
	}
	return p.writer.Size(), p.err
}

func (p *pump) note(err error) {
	if err != nil && p.err == nil {
		p.err = err
	}
	p.grow(p.writer.Size())
}
