package runlog

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"time"
)

// The flags of a stored line.
const (
	FlagLine   byte = '|' // a complete line, or the last part of one
	FlagPart   byte = '+' // a part of a line whose rest follows
	FlagMarker byte = '#' // written by Shunt itself
)

// MaxText is the most bytes of text in one stored line; longer lines are cut
// into parts.
const MaxText = 16 << 10

// maxStored bounds a stored line with its time, flag and newline.
const maxStored = MaxText + 64

// ErrCorrupt says that bytes are not a stored log, or that an offset is not
// the start of a stored line.
var ErrCorrupt = errors.New("not a stored log line")

// Line is one stored line. Offset is where it starts in its log, in bytes; it
// is set by Read.
type Line struct {
	At     time.Time
	Flag   byte
	Text   string
	Offset int64
}

// ParseLine reads one stored line, with or without its newline. Its errors are
// ErrCorrupt.
func ParseLine(b []byte) (Line, error) {
	b = bytes.TrimSuffix(b, []byte{'\n'})
	stamp, rest, ok := bytes.Cut(b, []byte{' '})
	if !ok || len(rest) == 0 || len(stamp) == 0 || len(rest) > MaxText+1 {
		return Line{}, ErrCorrupt
	}
	micros, err := strconv.ParseInt(string(stamp), 10, 64)
	if err != nil || micros < 0 {
		return Line{}, ErrCorrupt
	}
	switch rest[0] {
	case FlagLine, FlagPart, FlagMarker:
	default:
		return Line{}, ErrCorrupt
	}
	if bytes.IndexByte(rest, '\n') >= 0 {
		return Line{}, ErrCorrupt
	}
	return Line{At: time.UnixMicro(micros).UTC(), Flag: rest[0], Text: string(rest[1:])}, nil
}

// Read returns up to maxLines stored lines (at least one is asked for) of the
// first size bytes of r, from offset, which must be the start of a stored line.
// next is the offset behind the last line returned; a last line without its
// newline is still being written and is left for the next call.
func Read(r io.ReaderAt, size, offset int64, maxLines int) (lines []Line, next int64, err error) {
	if offset < 0 || offset > size {
		return nil, offset, fmt.Errorf("offset %d of a log of %d bytes: %w", offset, size, ErrCorrupt)
	}
	if offset > 0 {
		var before [1]byte
		if _, err := r.ReadAt(before[:], offset-1); err != nil {
			return nil, offset, fmt.Errorf("reading the log: %w", err)
		}
		if before[0] != '\n' {
			return nil, offset, fmt.Errorf("offset %d: %w", offset, ErrCorrupt)
		}
	}
	next = offset
	buf := make([]byte, 0, 4*maxStored)
	for at := offset; len(lines) < max(1, maxLines); {
		n, err := r.ReadAt(buf[len(buf):min(cap(buf), len(buf)+int(min(size-at, int64(cap(buf)))))], at)
		if err != nil && !errors.Is(err, io.EOF) {
			return lines, next, fmt.Errorf("reading the log: %w", err)
		}
		buf, at = buf[:len(buf)+n], at+int64(n)
		used := 0
		for len(lines) < max(1, maxLines) {
			end := bytes.IndexByte(buf[used:], '\n')
			if end < 0 {
				break
			}
			line, err := ParseLine(buf[used : used+end])
			if err != nil {
				return lines, next, fmt.Errorf("offset %d: %w", next, err)
			}
			line.Offset = next
			lines, next, used = append(lines, line), next+int64(end)+1, used+end+1
		}
		if n == 0 {
			break
		}
		if used == 0 && len(buf) > maxStored {
			return lines, next, fmt.Errorf("offset %d: %w", next, ErrCorrupt)
		}
		buf = append(buf[:0], buf[used:]...)
	}
	return lines, next, nil
}

// TailOffset returns the offset at which the last n stored lines of the first
// size bytes of r begin. It reads backwards, so its cost does not depend on the
// length of the log. An unfinished last line does not count.
func TailOffset(r io.ReaderAt, size int64, lines int) (int64, error) {
	const block = 64 << 10
	buf := make([]byte, block)
	end := size
	for seen := 0; end > 0; {
		start := max(0, end-block)
		part := buf[:end-start]
		if _, err := r.ReadAt(part, start); err != nil && !errors.Is(err, io.EOF) {
			return 0, fmt.Errorf("reading the log: %w", err)
		}
		for i, c := range slices.Backward(part) {
			if c != '\n' {
				continue
			}
			// The newline before the first wanted line is number n+1 from the end.
			if seen == max(0, lines) {
				return start + int64(i) + 1, nil
			}
			seen++
		}
		end = start
	}
	return 0, nil
}
