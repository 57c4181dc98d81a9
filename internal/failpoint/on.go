//go:build failpoints

package failpoint

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Hit passes a point. FAILPOINT is `effect.position=fault@N`; the fault
// happens at the N-th time (from 1) that any process of this data directory
// passes the point:
//
//	kill   the process ends at once, as by kill -9
//	error  the point answers an error
//	stall  it waits for two seconds
//
// FAILPOINT_DIR keeps the count, and a file for each point that was passed.
func Hit(effect, position string) error {
	dir := os.Getenv("FAILPOINT_DIR")
	if dir == "" {
		return nil
	}
	name := effect + "." + position
	if !slices.Contains(Effects()[effect], position) {
		panic("failpoint " + name + " is not listed")
	}
	n := count(filepath.Join(dir, name))
	point, fault, ok := strings.Cut(os.Getenv("FAILPOINT"), "=")
	if !ok || point != name {
		return nil
	}
	fault, at, _ := strings.Cut(fault, "@")
	if fmt.Sprint(n) != at {
		return nil
	}
	if err := os.WriteFile(filepath.Join(dir, "fired"), []byte(name+" "+fault), 0o600); err != nil {
		panic(err)
	}
	switch fault {
	case "kill":
		_ = unix.Kill(os.Getpid(), unix.SIGKILL)
		select {} // the signal comes
	case "error":
		return errors.New("failpoint " + name)
	case "stall":
		time.Sleep(2 * time.Second)
	}
	return nil
}

// count counts a pass, one byte each, and tells how many there were with it.
func count(file string) int64 {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		panic(err)
	}
	defer f.Close() //nolint:errcheck // one byte
	if _, err := f.Write([]byte{'.'}); err != nil {
		panic(err)
	}
	info, err := f.Stat()
	if err != nil {
		panic(err)
	}
	return info.Size()
}
