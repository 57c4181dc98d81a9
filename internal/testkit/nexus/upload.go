package nexus

import (
	"io"
	"net"
	"net/http"
	"path"
	"strings"
	"time"
)

// maxUpload bounds what one upload may hold in memory, in bytes.
const maxUpload = 256 << 20

func (s *Server) upload(w http.ResponseWriter, r *http.Request) {
	if !s.allow(w, r, func(u User) bool { return u.Write }) {
		return
	}
	repo, ok := s.find(r.URL.Query().Get("repository"))
	if !ok {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	fields, files, err := readForm(http.MaxBytesReader(w, r.Body, maxUpload), r)
	if err != nil {
		refuse(w, "*", err.Error())
		return
	}
	fault := s.next()
	switch fault {
	case Fault500Before:
		w.WriteHeader(http.StatusInternalServerError)
		return
	case FaultHangBefore:
		s.hang(r)
		return
	case FaultResetBefore:
		reset(w)
		return
	case FaultUnprocessable:
		w.WriteHeader(http.StatusUnprocessableEntity)
		return
	case FaultSlow:
		s.wait(r, s.options.SlowBy)
	case FaultNone, Fault500After, FaultHangAfter, FaultResetAfter:
	}
	if id, message := s.keep(repo, fields, files); message != "" {
		refuse(w, id, message)
		return
	}
	switch fault {
	case Fault500After:
		w.WriteHeader(http.StatusInternalServerError)
	case FaultHangAfter:
		s.hang(r)
	case FaultResetAfter:
		reset(w)
	case FaultNone, FaultSlow, Fault500Before, FaultHangBefore, FaultResetBefore, FaultUnprocessable:
		w.WriteHeader(http.StatusNoContent)
	}
}

// next counts the upload and takes its fault from the script.
func (s *Server) next() Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.posts++
	if len(s.script) == 0 {
		return FaultNone
	}
	f := s.script[0]
	s.script = s.script[1:]
	return f
}

func readForm(body io.Reader, r *http.Request) (fields map[string]string, files map[string][]byte, err error) {
	r.Body = io.NopCloser(body)
	parts, err := r.MultipartReader()
	if err != nil {
		return nil, nil, err
	}
	fields, files = map[string]string{}, map[string][]byte{}
	for {
		part, err := parts.NextPart()
		if err == io.EOF { //nolint:errorlint // the reader's own end, never wrapped
			// Only a body read to its end lets the server notice a client that leaves.
			_, err = io.Copy(io.Discard, r.Body)
			return fields, files, err
		}
		if err != nil {
			return nil, nil, err
		}
		content, err := io.ReadAll(part)
		if err != nil {
			return nil, nil, err
		}
		if part.FileName() != "" {
			files[part.FormName()] = content
		} else {
			fields[part.FormName()] = string(content)
		}
	}
}

// keep stores the one asset of an upload, or says what is wrong with it.
func (s *Server) keep(repo Repository, fields map[string]string, files map[string][]byte) (id, message string) {
	if repo.Type != "hosted" {
		return "*", "Upload to non-hosted repository is not supported"
	}
	if repo.Snapshot {
		return "*", "Upload to snapshot repositories not supported, use the maven client."
	}
	asset := repo.Format + ".asset1"
	content, ok := files[asset]
	if !ok {
		return "*", "Missing required asset field '" + asset + "'"
	}
	var required []string
	switch repo.Format {
	case "maven2":
		required = []string{"maven2.groupId", "maven2.artifactId", "maven2.version", "maven2.asset1.extension"}
	case "raw":
		required = []string{"raw.directory", "raw.asset1.filename"}
	}
	for _, name := range required {
		if fields[name] == "" {
			return name, "Missing required field '" + name + "'"
		}
	}
	if strings.HasSuffix(fields["maven2.version"], "-SNAPSHOT") {
		return "*", "Version policy mismatch, cannot upload SNAPSHOT content to RELEASE repositories for file '0'"
	}
	place := assetPath(repo.Format, fields)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch _, exists := s.assets[repo.Name+"/"+place]; {
	case s.readOnly:
		return "*", "Nexus Repository is in read-only mode"
	case exists && !repo.Redeploy:
		return "*", "Repository does not allow updating assets: " + repo.Name
	}
	s.put(repo.Name, place, content)
	if pom := fields["maven2.generate-pom"]; pom == "true" {
		name := strings.TrimSuffix(path.Dir(place)+"/"+fields["maven2.artifactId"]+"-"+fields["maven2.version"], "/") + ".pom"
		s.assets[repo.Name+"/"+name] = []byte("<project/>\n")
	}
	return "", ""
}

func assetPath(format string, f map[string]string) string {
	if format == "raw" {
		return strings.TrimPrefix(path.Join(f["raw.directory"], f["raw.asset1.filename"]), "/")
	}
	name := f["maven2.artifactId"] + "-" + f["maven2.version"]
	if c := f["maven2.asset1.classifier"]; c != "" {
		name += "-" + c
	}
	return path.Join(strings.ReplaceAll(f["maven2.groupId"], ".", "/"), f["maven2.artifactId"], f["maven2.version"],
		name+"."+f["maven2.asset1.extension"])
}

// hang answers nothing until the client gives up.
func (s *Server) hang(r *http.Request) {
	select {
	case <-r.Context().Done():
	case <-s.closed:
	}
}

func (s *Server) wait(r *http.Request, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-r.Context().Done():
	case <-s.closed:
	}
}

// reset drops the connection with a TCP reset.
func reset(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = conn.Close()
}
