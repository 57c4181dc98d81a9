package web

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/shuntcd/shunt/internal/delivery"
	"github.com/shuntcd/shunt/internal/runlog"
)

const (
	logChunk   = 32 << 10 // bytes copied before the reader sees them
	batchLines = 400      // lines rendered between two flushes
	pageLines  = 1000     // lines that one page of a log shows
	tailLines  = 200      // lines shown below a build
)

func (s *server) apiLog(ctx context.Context, in *inLog) (handler, error) {
	src, err := s.Backend.Log(ctx, in.Project, in.Number, in.Node, in.Attempt)
	if err != nil {
		return nil, err //nolint:wrapcheck // explained by fail
	}
	if in.Offset > src.Size() {
		_ = src.Close() // only read
		return nil, &delivery.Error{Kind: delivery.KindInvalid, What: "the log is shorter than that", Why: fmt.Sprintf("offset %d of %d bytes", in.Offset, src.Size())}
	}
	return func(w http.ResponseWriter, r *http.Request) error {
		defer src.Close() //nolint:errcheck // only read
		w.Header().Set("X-Accel-Buffering", "no")
		send, kind := sendStored, "text/plain; charset=utf-8"
		switch in.Format {
		case "text":
			send = sendText
		case "spans":
			send, kind = sendSpans, "application/jsonl"
		}
		w.Header().Set("Content-Type", kind)
		return follow(w, r, src, in.Offset, in.Follow && r.Method != http.MethodHead, send)
	}, nil
}

// sender writes the lines of a log between two offsets and returns the offset
// that it reached.
type sender func(w io.Writer, src Log, from, size int64) (int64, error)

// follow writes what is there, and with wait goes on until the attempt has
// ended. Done is asked before Size: the other way round, lines written between
// the two questions would be lost.
func follow(w http.ResponseWriter, r *http.Request, src Log, offset int64, wait bool, send sender) error {
	rc := http.NewResponseController(w)
	_ = rc.SetWriteDeadline(time.Time{}) // this answer may take hours
	w.WriteHeader(http.StatusOK)
	for {
		done, size := src.Done(), src.Size()
		for offset < size {
			next, err := send(w, src, offset, size)
			if err != nil {
				return err
			}
			if next == offset { // nothing whole to read
				break
			}
			offset = next
			if err := rc.Flush(); err != nil {
				return fmt.Errorf("send log: %w", err)
			}
		}
		if done || !wait {
			return nil
		}
		if err := rc.Flush(); err != nil {
			return fmt.Errorf("send log: %w", err)
		}
		if err := src.Wait(r.Context(), offset); err != nil {
			return fmt.Errorf("wait for the log: %w", err)
		}
		if err := r.Context().Err(); err != nil {
			return fmt.Errorf("wait for the log: %w", err)
		}
	}
}

func sendStored(w io.Writer, src Log, from, size int64) (int64, error) {
	n, err := io.Copy(w, io.NewSectionReader(src, from, min(size-from, logChunk)))
	if err != nil {
		return from, fmt.Errorf("send log: %w", err)
	}
	return from + n, nil
}

func sendText(w io.Writer, src Log, from, size int64) (int64, error) {
	return eachLine(w, src, from, size, func(bw *bufio.Writer, l runlog.Line, _ int64) error {
		text := runlog.Strip(l.Text)
		if l.Flag != runlog.FlagPart {
			text += "\n"
		}
		_, err := bw.WriteString(text)
		return err //nolint:wrapcheck // wrapped by eachLine
	})
}

// spanLine is a line for pages: the script writes Spans as text nodes.
type spanLine struct {
	Offset int64    `json:"o"`
	Next   int64    `json:"n"`
	At     string   `json:"t"`
	Flag   string   `json:"f"`
	Spans  []inSpan `json:"s"`
}

type inSpan struct {
	Class string `json:"c,omitempty"`
	Text  string `json:"x"`
	Href  string `json:"h,omitempty"`
}

func sendSpans(w io.Writer, src Log, from, size int64) (int64, error) {
	return eachLine(w, src, from, size, func(bw *bufio.Writer, l runlog.Line, next int64) error {
		out := spanLine{Offset: l.Offset, Next: next, At: l.At.Format(time.RFC3339), Flag: string(l.Flag), Spans: []inSpan{}}
		for _, sp := range runlog.Spans(l.Text) {
			out.Spans = append(out.Spans, inSpan{sp.Class, sp.Text, sp.Href})
		}
		b, err := json.Marshal(out)
		if err != nil {
			return fmt.Errorf("encode line: %w", err)
		}
		_, err = bw.Write(append(b, '\n'))
		return err //nolint:wrapcheck // wrapped by eachLine
	})
}

func eachLine(w io.Writer, src Log, from, size int64, f func(bw *bufio.Writer, l runlog.Line, next int64) error) (int64, error) {
	lines, next, err := runlog.Read(src, size, from, batchLines)
	if err != nil {
		return from, fmt.Errorf("read log: %w", err)
	}
	bw := bufio.NewWriterSize(w, logChunk)
	for i, l := range lines {
		behind := next
		if i+1 < len(lines) {
			behind = lines[i+1].Offset
		}
		if err := f(bw, l, behind); err != nil {
			return from, fmt.Errorf("send log: %w", err)
		}
	}
	if err := bw.Flush(); err != nil {
		return from, fmt.Errorf("send log: %w", err)
	}
	return next, nil
}

// logView is a window on a log: Lines, and where the next ones begin.
type logView struct {
	Project string
	Number  int64
	Node    string
	Attempt int
	Lines   []runlog.Line
	First   int64 // offset of the first line shown
	Next    int64
	Size    int64
	Done    bool
	Missing string // why there is no log to show
}

// readLog reads a window of a log: from an offset, or the last lines (-1).
func (s *server) readLog(ctx context.Context, v logView, offset int64, lines int) (logView, error) {
	src, err := s.Backend.Log(ctx, v.Project, v.Number, v.Node, v.Attempt)
	if delivery.IsKind(err, delivery.KindNotFound) {
		v.Missing, v.Done = "There is no log yet.", true
		return v, nil
	}
	if err != nil {
		return v, err //nolint:wrapcheck // explained by fail
	}
	defer src.Close() //nolint:errcheck // only read
	v.Done, v.Size = src.Done(), src.Size()
	if offset < 0 {
		if offset, err = runlog.TailOffset(src, v.Size, lines); err != nil {
			return v, fmt.Errorf("read log: %w", err)
		}
	}
	if offset > v.Size {
		return v, notFound("the log is shorter than that")
	}
	v.First = offset
	v.Lines, v.Next, err = runlog.Read(src, v.Size, offset, lines)
	if errors.Is(err, runlog.ErrCorrupt) && len(v.Lines) == 0 && offset > 0 {
		return v, notFound("no line of the log begins there")
	}
	if err != nil {
		return v, fmt.Errorf("read log: %w", err)
	}
	return v, nil
}

// readLogBefore is the offset of the window before v.
func (s *server) readLogBefore(ctx context.Context, v logView) (int64, error) {
	src, err := s.Backend.Log(ctx, v.Project, v.Number, v.Node, v.Attempt)
	if err != nil {
		return 0, err //nolint:wrapcheck // explained by fail
	}
	defer src.Close() //nolint:errcheck // only read
	at, err := runlog.TailOffset(src, v.First, pageLines)
	if err != nil {
		return 0, fmt.Errorf("read log: %w", err)
	}
	return at, nil
}
