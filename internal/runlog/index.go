package runlog

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
)

// IndexEvery is how many lines lie between two places that an Index remembers.
const IndexEvery = 10_000

// scanBlock is how much of a log is read at once when lines are counted, in bytes.
const scanBlock = 1 << 20

// Index remembers where every IndexEvery-th line of a log begins, so that any
// line of a log of many millions is found by reading a few hundred kilobytes.
// Lines count from 1. The zero Index knows nothing yet.
type Index struct {
	starts []int64 // starts[i] is where line i*IndexEvery+1 begins; starts[0] is 0
}

// Extend reads what the log has grown by since, up to size; grown tells whether
// there is more to keep now.
func (x *Index) Extend(ctx context.Context, r io.ReaderAt, size int64) (grown bool, err error) {
	if len(x.starts) == 0 {
		x.starts = []int64{0}
	}
	lines := 0
	err = blocks(ctx, r, x.starts[len(x.starts)-1], size, func(at int64, part []byte) bool {
		for {
			n := bytes.Count(part, []byte{'\n'})
			if lines+n < IndexEvery {
				lines += n
				return true
			}
			end := nth(part, IndexEvery-lines)
			at, part, lines = at+int64(end), part[end:], 0
			x.starts, grown = append(x.starts, at), true
		}
	})
	return grown, err
}

// nth is the index behind the n-th newline of b, which has that many.
func nth(b []byte, n int) int {
	at := 0
	for range n {
		at += bytes.IndexByte(b[at:], '\n') + 1
	}
	return at
}

// blocks reads from one offset to another until each says no more.
func blocks(ctx context.Context, r io.ReaderAt, from, size int64, each func(at int64, part []byte) bool) error {
	buf := make([]byte, min(scanBlock, max(0, size-from)))
	for from < size {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("reading the log: %w", err)
		}
		n, err := r.ReadAt(buf[:min(int64(len(buf)), size-from)], from)
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("reading the log: %w", err)
		}
		if n == 0 || !each(from, buf[:n]) {
			return nil
		}
		from += int64(n)
	}
	return nil
}

// Offset tells where a line begins, in the first size bytes of the log; a line
// behind the last one is the last one.
func (x *Index) Offset(ctx context.Context, r io.ReaderAt, size, line int64) (int64, error) {
	line = max(1, line)
	mark := min((line-1)/IndexEvery, int64(len(x.starts))-1)
	if mark < 0 {
		return 0, nil
	}
	offset, skip := x.starts[mark], line-1-mark*IndexEvery
	err := blocks(ctx, r, offset, size, func(at int64, part []byte) bool {
		for skip > 0 {
			end := bytes.IndexByte(part, '\n')
			if end < 0 || at+int64(end)+1 >= size {
				return end < 0
			}
			at, part = at+int64(end)+1, part[end+1:]
			offset, skip = at, skip-1
		}
		return false
	})
	return offset, err
}

// Line tells the number of the line that begins at an offset.
func (x *Index) Line(ctx context.Context, r io.ReaderAt, offset int64) (int64, error) {
	mark, found := slices.BinarySearch(x.starts, offset)
	if !found {
		mark = max(0, mark-1)
	}
	line, from := int64(mark)*IndexEvery+1, int64(0)
	if mark < len(x.starts) {
		from = x.starts[mark]
	}
	err := blocks(ctx, r, from, offset, func(_ int64, part []byte) bool {
		line += int64(bytes.Count(part, []byte{'\n'}))
		return true
	})
	return line, err
}

// Encode writes the index as it is kept beside its log.
func (x *Index) Encode() []byte {
	out := make([]byte, 0, 8*len(x.starts))
	for _, s := range x.starts {
		out = binary.BigEndian.AppendUint64(out, uint64(s)) //nolint:gosec // offsets are not negative
	}
	return out
}

// DecodeIndex reads what Encode wrote, for a log of size bytes. What does not
// fit the log is forgotten, and found again by Extend.
func DecodeIndex(b []byte, size int64) *Index {
	x := &Index{}
	for len(b) >= 8 {
		start := int64(binary.BigEndian.Uint64(b)) //nolint:gosec // checked below
		if start < 0 || start > size || len(x.starts) == 0 && start != 0 || len(x.starts) > 0 && start <= x.starts[len(x.starts)-1] {
			break
		}
		x.starts, b = append(x.starts, start), b[8:]
	}
	return x
}
