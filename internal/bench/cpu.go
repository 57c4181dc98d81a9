package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// cpu is the processor time of a process and of its ended children, from
// proc(5). Linux counts it in hundredths of a second.
func cpu(pid int) (own, children time.Duration) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, 0
	}
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	ticks := func(i int) time.Duration {
		n, err := strconv.ParseInt(f[i-3], 10, 64) // fields are numbered from 1, and two are before the )
		if err != nil {
			return 0
		}
		return time.Duration(n) * 10 * time.Millisecond
	}
	return ticks(14) + ticks(15), ticks(16) + ticks(17)
}
