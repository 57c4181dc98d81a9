package runlog

import (
	"bytes"
	"context"
	"io"
	"strings"
)

// Found is what a search in a whole log tells: how many lines have the words,
// and those at and around a line.
type Found struct {
	Count    int64 `json:"count" doc:"lines that match, in the whole log"`
	Nth      int64 `json:"nth" doc:"which of them Line is, from 1; 0: none"`
	Line     int64 `json:"line" doc:"the first match at or behind the line asked for, else the last one"`
	Previous int64 `json:"previous" doc:"line of the match before; 0: none"`
	Next     int64 `json:"next" doc:"line of the match after; 0: none"`
}

// Search looks for a text in the first size bytes of a log, whatever its case,
// as it is shown: escape sequences do not part words. It reads the log once, in
// constant memory.
func Search(ctx context.Context, r io.ReaderAt, size int64, text string, from int64) (f Found, err error) {
	needle := []byte(strings.ToLower(text))
	if len(needle) == 0 {
		return f, nil
	}
	line := int64(0)
	var before, last int64 // matches
	see := func(stored []byte) {
		line++
		if !shows(stored, needle) {
			return
		}
		f.Count++
		switch {
		case f.Line == 0 && line >= from:
			f.Line, f.Nth, f.Previous = line, f.Count, last
		case f.Line != 0 && f.Next == 0:
			f.Next = line
		}
		before, last = last, line
	}
	var rest []byte
	err = blocks(ctx, r, 0, size, func(_ int64, part []byte) bool {
		for {
			end := bytes.IndexByte(part, '\n')
			if end < 0 {
				rest = append(rest, part...)
				return len(rest) <= maxStored
			}
			if len(rest) > 0 {
				see(append(rest, part[:end]...))
				rest = rest[:0]
			} else {
				see(part[:end])
			}
			part = part[end+1:]
		}
	})
	if f.Line == 0 && f.Count > 0 {
		f.Line, f.Nth, f.Previous = last, f.Count, before
	}
	return f, err
}

// shows tells whether a stored line has a lower-case text. It changes the line.
func shows(stored, needle []byte) bool {
	_, text, _ := bytes.Cut(stored, []byte{' '})
	if len(text) == 0 {
		return false
	}
	text = text[1:] // the flag
	if bytes.IndexByte(text, 0x1b) >= 0 {
		text = []byte(Strip(string(text)))
	}
	plain := true
	for i, c := range text {
		if 'A' <= c && c <= 'Z' {
			text[i] = c | 0x20
		} else if c >= 0x80 {
			plain = false
		}
	}
	if !plain {
		text = bytes.ToLower(text)
	}
	return bytes.Contains(text, needle)
}

// Matches tells whether a line shows a text, whatever its case.
func (l Line) Matches(text string) bool {
	return text != "" && strings.Contains(strings.ToLower(Strip(l.Text)), strings.ToLower(text))
}
