// Package disk plays the demo's story below the program: the data directory of
// the real binary is a disk of testkit/disk, on which the server is killed at its
// n-th call, a call is refused, or the power is cut. What the disk holds at the
// end is checked as well. A world is the demo with --serve, for faults that last
// for a while: a full disk, a slow one, flipped bits, no more files.
//
//	go test ./internal/faults/disk                  the core: a sample of the sweeps
//	go test ./internal/faults/disk -faults all      more of them, and a slow disk
//	go test ./internal/faults/disk -sweep kill,power -ops 50 -seed 7
//	go test ./internal/faults/disk -run WhateverTheDisk -deed server.sync=kill@17/ordered/0
package disk

import (
	"bytes"
	"context"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

var (
	faults = flag.String("faults", "core", "core or all")
	seed   = flag.Uint64("seed", 1, "which faults are taken, and the order")
)

// demo plays the demo's story in a folder of its own.
func demo(t *testing.T, bin string, args []string, env ...string) ([]byte, error) {
	t.Helper()
	dir, err := os.MkdirTemp("", "shunt-faults-") //nolint:usetesting // kept when the story fails
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, bin, append([]string{"demo", "--auto", "--port", "0", "--dir", filepath.Join(dir, "demo")}, args...)...)
	cmd.Env = append(os.Environ(), env...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGINT) }
	cmd.WaitDelay = 30 * time.Second
	err = cmd.Run()
	log, _ := os.ReadFile(filepath.Join(dir, "demo", "server.log"))
	if err == nil {
		err = os.RemoveAll(dir)
	} else {
		out.WriteString("server.log:\n")
		out.Write(log[max(0, len(log)-8000):])
	}
	return out.Bytes(), err
}
