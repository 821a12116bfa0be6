package main

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
)

// memory is the resident memory of a process, whose peak Linux itself keeps.
type memory struct{ path string }

func watchMemory(pid int) memory { return memory{fmt.Sprintf("/proc/%d/status", pid)} }

// peak is in bytes, 0 if it cannot be read.
func (m memory) peak() int64 {
	text, err := os.ReadFile(m.path)
	if err != nil {
		return 0
	}
	for line := range bytes.Lines(text) {
		if fields := bytes.Fields(line); len(fields) == 3 && string(fields[0]) == "VmHWM:" {
			kilobytes, _ := strconv.ParseInt(string(fields[1]), 10, 64)
			return kilobytes << 10
		}
	}
	return 0
}
