package runner

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// process is a row of /proc. A process number is used again one day; number
// and start together are not, until the machine restarts.
type process struct {
	pid, parent, session int
	start                uint64 // clock ticks since the machine started
}

// processes lists all processes that run, zombies left out.
func processes() []process {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	list := make([]process, 0, len(entries))
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			if p, ok := readProcess(pid); ok {
				list = append(list, p)
			}
		}
	}
	return list
}

// readProcess reads /proc/PID/stat (proc_pid_stat(5)); it does not find zombies.
func readProcess(pid int) (process, bool) {
	data, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return process{}, false
	}
	// The second field is the name in parentheses, and may hold anything.
	end := bytes.LastIndexByte(data, ')')
	if end < 0 {
		return process{}, false
	}
	f := strings.Fields(string(data[end+1:])) // f[0] is field 3
	if len(f) < 20 || f[0] == "Z" || f[0] == "X" {
		return process{}, false
	}
	parent, err1 := strconv.Atoi(f[1])
	session, err2 := strconv.Atoi(f[3])
	start, err3 := strconv.ParseUint(f[19], 10, 64)
	return process{pid: pid, parent: parent, session: session, start: start}, err1 == nil && err2 == nil && err3 == nil
}

// descendants lists the children of pid and theirs.
func descendants(pid int) []process {
	children := map[int][]process{}
	for _, p := range processes() {
		children[p.parent] = append(children[p.parent], p)
	}
	var list []process
	for queue := []int{pid}; len(queue) > 0; queue = queue[1:] {
		list = append(list, children[queue[0]]...)
		for _, c := range children[queue[0]] {
			queue = append(queue, c.pid)
		}
		delete(children, queue[0])
	}
	return list
}

// killAll kills what find lists until it lists nothing, because a process may
// fork while others are being killed. It gives up after a while on processes
// that the kernel does not let go, such as those that wait for a dead disk.
func killAll(find func() []process) bool {
	for end := time.After(20 * time.Second); ; {
		list := find()
		if len(list) == 0 {
			return true
		}
		for _, p := range list {
			_ = unix.Kill(p.pid, unix.SIGKILL)
		}
		select {
		case <-end:
			return false
		case <-time.After(2 * time.Millisecond):
		}
	}
}

// withCookie lists the processes of a job by the cookie in their environment.
// It sees those which escaped from the job's session and outlived its shim.
func withCookie(dir, id string) []process {
	var list []process
	for _, p := range processes() {
		env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", p.pid))
		if err != nil {
			continue // gone, or not ours
		}
		env = append([]byte{0}, append(env, 0)...)
		if bytes.Contains(env, []byte("\x00SHUNT_JOB="+id+"\x00")) && bytes.Contains(env, []byte("\x00SHUNT_RUNNER="+dir+"\x00")) {
			list = append(list, p)
		}
	}
	return list
}
