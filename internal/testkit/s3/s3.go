// Package s3 runs a real S3 server for tests: versitygw on a directory of its
// own. It is a Go program of the module tools/s3; the compiler's cache keeps it.
package s3

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

// The credentials of every server of this package.
const (
	AccessKey = "tests"
	SecretKey = "only-for-tests"
)

// program finds the server's binary, and builds it when the cache has none.
var program = sync.OnceValues(func() (string, error) {
	var words bytes.Buffer
	ask := func(dir string, args ...string) (string, error) {
		cmd := exec.Command("go", args...)
		cmd.Dir, cmd.Env, cmd.Stderr = dir, append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off"), &words
		out, err := cmd.Output()
		if err != nil {
			err = fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, words.String())
		}
		return strings.TrimSpace(string(out)), err
	}
	root, err := ask("", "list", "-m", "-f", "{{.Dir}}")
	if err != nil {
		return "", err
	}
	return ask(filepath.Join(root, "tools", "s3"), "tool", "-n", "versitygw")
})

// Server is a running S3 server with one bucket.
type Server struct {
	*testing.T
	Dir     string // of the bucket: an object is the file of that name
	address string
	root    string
	ended   chan struct{}
	process *os.Process
}

// Start starts a server; it ends with the test.
func Start(t *testing.T) *Server {
	t.Helper()
	root := t.TempDir()
	s := &Server{T: t, root: root, Dir: filepath.Join(root, "data", "bucket")}
	for _, dir := range []string{"data", "meta", "iam"} {
		if err := os.Mkdir(filepath.Join(root, dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.address = l.Addr().String()
	_ = l.Close()
	t.Cleanup(s.Kill)
	s.Run()
	client, err := minio.New(s.address, &minio.Options{Creds: credentials.NewStaticV4(AccessKey, SecretKey, ""), Region: "us-east-1"})
	if err == nil {
		err = client.MakeBucket(t.Context(), "bucket", minio.MakeBucketOptions{})
	}
	if err != nil {
		t.Fatalf("make a bucket: %v\n%s", err, s.log())
	}
	return s
}

// URL is the address of a prefix in the bucket, as `shunt serve --objects` takes it.
func (s *Server) URL(prefix string) string {
	return "s3://bucket/" + prefix + "?endpoint=http://" + s.address
}

// Run starts the server, also after Kill.
func (s *Server) Run() {
	s.Helper()
	exe, err := program()
	if err != nil {
		s.Fatal(err)
	}
	log, err := os.OpenFile(filepath.Join(s.root, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		s.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(exe, "--port", s.address, "--quiet", "posix", "--sidecar", filepath.Join(s.root, "meta"), filepath.Join(s.root, "data"))
	cmd.Env = []string{"PATH=/usr/bin:/bin", "HOME=" + s.root, "ROOT_ACCESS_KEY_ID=" + AccessKey, "ROOT_SECRET_ACCESS_KEY=" + SecretKey}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started, ended := make(chan error), make(chan struct{})
	go func() {
		runtime.LockOSThread() // the parent-death signal comes when the forking thread ends
		started <- cmd.Start()
		_ = cmd.Wait()
		close(ended)
	}()
	if err := <-started; err != nil {
		s.Fatal(err)
	}
	s.process, s.ended = cmd.Process, ended
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		req, _ := http.NewRequestWithContext(context.Background(), http.MethodGet, "http://"+s.address+"/", nil)
		if resp, err := http.DefaultClient.Do(req); err == nil {
			_ = resp.Body.Close()
			return
		}
		if time.Now().After(deadline) {
			s.Fatalf("the S3 server does not start:\n%s", s.log())
		}
	}
}

func (s *Server) log() string {
	text, _ := os.ReadFile(filepath.Join(s.root, "log"))
	return string(text)
}

// Kill ends the server at once; what it acknowledged is kept.
func (s *Server) Kill() {
	if s.process != nil {
		_ = s.process.Kill()
		<-s.ended
		s.process = nil
	}
}

// Environ are the variables that hold the credentials.
func Environ() []string {
	return []string{"AWS_ACCESS_KEY_ID=" + AccessKey, "AWS_SECRET_ACCESS_KEY=" + SecretKey}
}

// Setenv puts the credentials into this process; for TestMain.
func Setenv() {
	for _, v := range Environ() {
		name, value, _ := strings.Cut(v, "=")
		_ = os.Setenv(name, value)
	}
}
