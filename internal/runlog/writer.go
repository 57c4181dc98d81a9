package runlog

import (
	"bytes"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/shuntcd/shunt/internal/delivery"
)

// DefaultLimit is the most bytes of a stored log unless something else is
// asked for: 1 GiB.
const DefaultLimit = 1 << 30

// Writer cuts a stream of bytes into stored lines. Each call makes at most one
// write to the underlying writer, and only of whole stored lines, so a reader
// of the file never sees half of one. It is not safe for concurrent use.
type Writer struct {
	w       io.Writer
	clock   delivery.Clock
	limit   int64
	size    int64 // bytes written
	dropped int64 // bytes of text not written, because of the limit
	partial []byte
	out     []byte
	err     error
	closed  bool
}

// NewWriter makes a Writer of stored lines. After limit bytes (DefaultLimit if
// it is not positive) output is counted and dropped; markers are still written.
func NewWriter(w io.Writer, clock delivery.Clock, limit int64) *Writer {
	if limit <= 0 {
		limit = DefaultLimit
	}
	return &Writer{w: w, clock: clock, limit: limit, partial: make([]byte, 0, MaxText)}
}

// Size is the length of the stored log so far, in bytes; always the end of a line.
func (w *Writer) Size() int64 { return w.size }

// Pending tells whether an unfinished line is held back.
func (w *Writer) Pending() bool { return len(w.partial) > 0 }

// Write takes output of the job. It always takes all of p; after a failed
// write it goes on returning that error.
func (w *Writer) Write(p []byte) (int, error) {
	stamp := w.stamp()
	for rest := p; len(rest) > 0; {
		end := bytes.IndexByte(rest, '\n')
		text := rest
		if end >= 0 {
			text = rest[:end]
		}
		if room := MaxText - len(w.partial); len(text) > room {
			w.partial = append(w.partial, text[:room]...)
			rest = rest[room:]
			w.emitPart(stamp)
			continue
		}
		switch {
		case end >= 0 && len(w.partial) == 0: // a whole line: no copy
			w.emit(stamp, FlagLine, text)
		case end >= 0:
			w.partial = append(w.partial, text...)
			w.emit(stamp, FlagLine, w.partial)
			w.partial = w.partial[:0]
		default:
			w.partial = append(w.partial, text...)
		}
		rest = rest[min(len(rest), len(text)+1):]
	}
	if err := w.flush(); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Flush stores an unfinished line as a part, so that a prompt or a row of dots
// is seen before its newline comes.
func (w *Writer) Flush() error {
	if len(w.partial) > 0 {
		w.emitPart(w.stamp())
	}
	return w.flush()
}

// Marker stores a line of Shunt's own. An unfinished line of the job ends
// before it. Control characters become spaces, and text is cut to 1 KiB.
func (w *Writer) Marker(text string) error {
	if len(text) > 1<<10 {
		text = text[:1<<10]
	}
	text = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, "\uFFFD"))
	stamp := w.stamp()
	w.endLine(stamp)
	w.store(stamp, FlagMarker, []byte(text))
	return w.flush()
}

// Close stores what is unfinished, and how much was dropped. It does not close
// the underlying writer.
func (w *Writer) Close() error {
	if w.closed {
		return w.err
	}
	w.closed = true
	w.endLine(w.stamp())
	if w.dropped > 0 {
		return w.Marker(fmt.Sprintf("output limit reached: %d bytes dropped", w.dropped))
	}
	return w.flush()
}

func (w *Writer) endLine(stamp int64) {
	if len(w.partial) > 0 {
		w.emit(stamp, FlagLine, w.partial)
		w.partial = w.partial[:0]
	}
}

// emitPart stores the partial line, but keeps the start of a character whose
// rest has not come yet, so that no part is cut within a character.
func (w *Writer) emitPart(stamp int64) {
	cut := len(w.partial)
	for i := 1; i <= min(utf8.UTFMax-1, cut); i++ {
		if b := w.partial[cut-i]; utf8.RuneStart(b) {
			if !utf8.FullRune(w.partial[cut-i:]) && cut > i {
				cut -= i
			}
			break
		}
	}
	w.emit(stamp, FlagPart, w.partial[:cut])
	w.partial = append(w.partial[:0], w.partial[cut:]...)
}

func (w *Writer) emit(stamp int64, flag byte, text []byte) {
	const overhead = 19 // 16 digits, space, flag, newline
	if w.dropped > 0 || w.size+int64(len(w.out)+len(text)+overhead) > w.limit {
		w.dropped += int64(len(text))
		if flag == FlagLine {
			w.dropped++ // its newline
		}
		return
	}
	w.store(stamp, flag, text)
}

func (w *Writer) store(stamp int64, flag byte, text []byte) {
	w.out = strconv.AppendInt(w.out, stamp, 10)
	w.out = append(w.out, ' ', flag)
	w.out = append(w.out, text...)
	w.out = append(w.out, '\n')
}

func (w *Writer) flush() error {
	if w.err != nil || len(w.out) == 0 {
		w.out = w.out[:0]
		return w.err
	}
	if _, err := w.w.Write(w.out); err != nil {
		// What a full disk may have kept of it lies behind size and is never read.
		w.err = fmt.Errorf("writing the log: %w", err)
	} else {
		w.size += int64(len(w.out))
	}
	if cap(w.out) > 1<<20 { // one flood of short lines must not be kept for the job's life
		w.out = nil
	}
	w.out = w.out[:0]
	return w.err
}

func (w *Writer) stamp() int64 { return w.clock.Now().UnixMicro() }
