package runner

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/shuntcd/shunt/internal/delivery"
)

const (
	maxSpecBytes = 64 << 20
	maxWait      = time.Minute
	// batchDelay lets more of the log arrive before a long poll returns, so that a
	// chatty job does not cost a request per line.
	batchDelay = 20 * time.Millisecond
)

// wireError is an error on the wire.
type wireError struct {
	Kind            delivery.Kind
	What, Why, Next string
	UnknownJob      bool
	LeaseLost       bool
	NoLease         bool
}

func (s *server) routes() http.Handler {
	mux := http.NewServeMux()
	handle := func(pattern string, h func(http.ResponseWriter, *http.Request) (any, error)) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			answer, err := h(w, r)
			if err != nil {
				s.fail(w, r, err)
				return
			}
			if answer != nil {
				s.reply(w, http.StatusOK, answer)
			}
		})
	}
	handle("GET /v1/info", func(http.ResponseWriter, *http.Request) (any, error) { return s.info(), nil })
	handle("POST /v1/jobs", func(w http.ResponseWriter, r *http.Request) (any, error) {
		var spec wireSpec
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxSpecBytes)).Decode(&spec); err != nil {
			return nil, &delivery.Error{Kind: delivery.KindInvalid, What: "cannot start the job", Why: "the request is damaged or too long", Err: err}
		}
		return s.start(spec.spec())
	})
	handle("GET /v1/jobs/{id}", func(_ http.ResponseWriter, r *http.Request) (any, error) {
		offset, err1 := strconv.ParseInt(r.FormValue("offset"), 10, 64)
		wait, err2 := time.ParseDuration(r.FormValue("wait"))
		if err1 != nil || err2 != nil {
			return nil, delivery.Errf(delivery.KindInvalid, "cannot wait for the job", "offset or wait is missing or wrong")
		}
		j, err := s.find(r.PathValue("id"))
		if err != nil {
			return nil, err
		}
		return s.await(r.Context(), j, offset, min(wait, maxWait)), nil
	})
	handle("GET /v1/jobs/{id}/log", s.sendLog)
	handle("GET /v1/jobs/{id}/out/{file}", s.sendFile)
	handle("PUT /v1/jobs/{id}/tree", s.receiveTree)
	handle("POST /v1/jobs/{id}/stop", func(w http.ResponseWriter, r *http.Request) (any, error) {
		var body control
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 64<<10)).Decode(&body); err != nil {
			return nil, &delivery.Error{Kind: delivery.KindInvalid, What: "cannot stop the job", Why: "the request is damaged", Err: err}
		}
		j, err := s.find(r.PathValue("id"))
		if err != nil {
			return nil, err
		}
		if err := j.stop(body.Stop); err != nil {
			s.log.Warn("a job could not be told to stop", "job", j.record.ID, "err", err)
		}
		return struct{}{}, nil
	})
	handle("DELETE /v1/jobs/{id}", func(_ http.ResponseWriter, r *http.Request) (any, error) {
		return struct{}{}, s.release(r.PathValue("id"))
	})
	return mux
}

func (s *server) info() Info {
	s.mu.Lock()
	defer s.mu.Unlock()
	info := Info{Protocol: Protocol, Version: s.version, PID: os.Getpid(), Instance: s.instance, Draining: s.draining, Jobs: []string{}, Work: filepath.Join(s.dir, "work"), Now: sinceBoot()}
	for id := range s.jobs {
		info.Jobs = append(info.Jobs, id)
	}
	slices.Sort(info.Jobs)
	return info
}

// await returns when the job has finished, its log is longer than offset, or
// the time is over.
func (s *server) await(ctx context.Context, j *job, offset int64, wait time.Duration) Status {
	enough := time.After(wait)
	for {
		status, changed := j.watch()
		switch {
		case !status.Running:
			return status
		case status.LogSize > offset:
			select {
			case <-time.After(min(batchDelay, wait)):
			case <-ctx.Done():
			}
			return j.status()
		}
		select {
		case <-changed:
		case <-enough:
			return j.status()
		case <-ctx.Done():
			return status
		case <-s.end:
			return j.status()
		}
	}
}

func (s *server) sendLog(w http.ResponseWriter, r *http.Request) (any, error) {
	offset, err := strconv.ParseInt(r.FormValue("offset"), 10, 64)
	if err != nil || offset < 0 {
		return nil, delivery.Errf(delivery.KindInvalid, "cannot read the log", "offset is missing or wrong")
	}
	j, err := s.find(r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	size := j.status().LogSize
	f, err := os.Open(j.dir.log())
	if err != nil {
		return nil, fmt.Errorf("opening the log: %w", err)
	}
	defer f.Close() //nolint:errcheck // opened for reading
	length := max(0, size-offset)
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.FormatInt(length, 10))
	if _, err := io.Copy(w, io.NewSectionReader(f, offset, length)); err != nil {
		s.log.Debug("a log was not read to its end", "job", j.record.ID, "err", err)
	}
	return nil, nil //nolint:nilnil // the answer has been sent
}

func (s *server) fail(w http.ResponseWriter, r *http.Request, err error) {
	e, ok := errors.AsType[*delivery.Error](err)
	if !ok {
		s.log.Error("internal error", "path", r.URL.Path, "err", err)
		e = delivery.Errf(delivery.KindInternal, "the runner failed", "see its log")
	}
	s.reply(w, e.Kind.HTTPStatus(), wireError{
		Kind: e.Kind, What: e.What, Why: e.Why, Next: e.Next,
		UnknownJob: errors.Is(err, ErrUnknownJob), LeaseLost: errors.Is(err, delivery.ErrLeaseLost), NoLease: errors.Is(err, ErrNoLease),
	})
}

func (s *server) reply(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if err := json.NewEncoder(w).Encode(v); err != nil {
		s.log.Debug("an answer was not taken", "err", err)
	}
}
