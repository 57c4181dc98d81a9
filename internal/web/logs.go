package web

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/shuntcd/shunt/internal/delivery"
	"github.com/shuntcd/shunt/internal/runlog"
)

const (
	logChunk   = 32 << 10 // bytes copied before the reader sees them
	batchLines = 400      // lines rendered between two flushes
	pageLines  = 1000     // lines that one page of a log shows
	tailLines  = 200      // lines shown below a build
	linesAbove = 20       // lines shown above the one that was asked for
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
			line, err := lineAt(r.Context(), src, in.Offset)
			if err != nil {
				return err
			}
			send, kind = sendSpans(line), "application/jsonl"
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
	Line  int64    `json:"i"`
	Next  int64    `json:"n"`
	At    string   `json:"t"`
	Flag  string   `json:"f"`
	Spans []inSpan `json:"s"`
}

type inSpan struct {
	Class string `json:"c,omitempty"`
	Text  string `json:"x"`
	Href  string `json:"h,omitempty"`
}

// sendSpans sends lines for pages; the first one has the given number.
func sendSpans(line int64) sender {
	return func(w io.Writer, src Log, from, size int64) (int64, error) {
		return eachLine(w, src, from, size, func(bw *bufio.Writer, l runlog.Line, next int64) error {
			out := spanLine{Line: line, Next: next, At: l.At.Format(stampFormat), Flag: string(l.Flag), Spans: []inSpan{}}
			line++
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
}

// stampFormat is a time with milliseconds, as scripts read it.
const stampFormat = "2006-01-02T15:04:05.000Z07:00"

// lineAt is the number of the line that begins at an offset.
func lineAt(ctx context.Context, src Log, offset int64) (int64, error) {
	x, err := src.Index(ctx)
	if err != nil {
		return 0, err //nolint:wrapcheck // explained by fail
	}
	line, err := x.Line(ctx, src, offset)
	if err != nil {
		return 0, fmt.Errorf("read log: %w", err)
	}
	return line, nil
}

// apiSearch looks for words in a whole log.
func (s *server) apiSearch(ctx context.Context, in *inSearch) (runlog.Found, error) {
	src, err := s.Backend.Log(ctx, in.Project, in.Number, in.Node, in.Attempt)
	if err != nil {
		return runlog.Found{}, err //nolint:wrapcheck // explained by fail
	}
	defer src.Close()                                                                //nolint:errcheck // only read
	return runlog.Search(ctx, src, src.Size(), strings.TrimSpace(in.Query), in.From) //nolint:wrapcheck // explained by fail
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
	First   int64 // number of the first line shown
	Total   int64 // lines there are
	Next    int64 // offset behind the last line shown
	Size    int64
	Began   time.Time // when its first line was printed
	Done    bool
	Missing string // why there is no log to show

	From, To int64 // lines that the address names; 0: none
	Relative bool  // times count from Began
	Query    string
	Found    runlog.Found
}

// last is the number of the last line shown.
func (v logView) last() int64 { return v.First + int64(len(v.Lines)) - 1 }

// chosen tells whether the address names a line.
func (v logView) chosen(line int64) bool { return line >= v.From && line <= v.To }

// readLog reads a window of a log: from a line on, or the last lines (0).
func (s *server) readLog(ctx context.Context, v logView, line int64, lines int) (logView, error) {
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
	x, err := src.Index(ctx)
	if err != nil {
		return v, err //nolint:wrapcheck // explained by fail
	}
	if v.Query != "" {
		if v.Found, err = runlog.Search(ctx, src, v.Size, v.Query, v.From); err != nil {
			return v, fmt.Errorf("search log: %w", err)
		}
		if v.Found.Line > 0 {
			v.From, v.To = v.Found.Line, v.Found.Line
			line = max(1, v.Found.Line-linesAbove)
		}
	}
	var offset int64
	if line > 0 {
		offset, err = x.Offset(ctx, src, v.Size, line)
	} else {
		offset, err = runlog.TailOffset(src, v.Size, lines)
	}
	if err != nil {
		return v, fmt.Errorf("read log: %w", err)
	}
	if v.First, err = x.Line(ctx, src, offset); err != nil {
		return v, fmt.Errorf("read log: %w", err)
	}
	if v.Total, err = x.Line(ctx, src, v.Size); err != nil {
		return v, fmt.Errorf("read log: %w", err)
	}
	v.Total--
	if v.Lines, v.Next, err = runlog.Read(src, v.Size, offset, lines); err != nil {
		return v, fmt.Errorf("read log: %w", err)
	}
	first, _, err := runlog.Read(src, v.Size, 0, 1)
	if err != nil {
		return v, fmt.Errorf("read log: %w", err)
	}
	if len(first) > 0 {
		v.Began = first[0].At
	}
	return v, nil
}
