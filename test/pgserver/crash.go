package pgserver

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// crashLimit bounds how long killed processes may take to be gone.
const crashLimit = 10 * time.Second

// Crash ends all processes of the server by SIGKILL at one moment, as the death of its machine would: nobody says goodbye, and what is left of it is
// what it had written. Run starts it again.
func (s *Server) Crash() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process == nil {
		return nil
	}
	// A stopped postmaster neither makes another child nor tells the others of those that fall.
	if err := s.process.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	family, err := children(s.process.Pid)
	memory := sharedMemory(s.data())
	for _, pid := range family {
		err = errors.Join(err, gone(syscall.Kill(pid, syscall.SIGKILL)))
	}
	err = errors.Join(err, s.process.Kill())
	<-s.ended
	s.process = nil
	for _, pid := range family {
		err = errors.Join(err, waitGone(pid))
	}
	return errors.Join(err, removeMemory(memory))
}

// gone forgives that a process had ended before.
func gone(err error) error {
	if errors.Is(err, syscall.ESRCH) {
		return nil
	}
	return err
}

// children are the processes that name the given one as their parent.
func children(parent int) (pids []int, err error) {
	processes, err := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range processes {
		state, its, ok := readStat(path)
		if pid, err := strconv.Atoi(strings.Split(path, "/")[2]); err == nil && ok && its == parent && state != "Z" {
			pids = append(pids, pid)
		}
	}
	return pids, err
}

// readStat reads a process's state and its parent: the first two fields behind the name, which stands in parentheses and may hold any (proc(5)).
func readStat(path string) (state string, parent int, ok bool) {
	text, err := os.ReadFile(path)
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if err != nil || len(fields) < 2 {
		return "", 0, false
	}
	parent, err = strconv.Atoi(fields[1])
	return fields[0], parent, err == nil
}

// waitGone waits until a killed process, which is nobody's child any more, holds nothing: its socket and its files.
func waitGone(pid int) error {
	for until := time.Now().Add(crashLimit); time.Now().Before(until); time.Sleep(time.Millisecond) {
		if state, _, there := readStat(fmt.Sprintf("/proc/%d/stat", pid)); !there || state == "Z" {
			return nil
		}
	}
	return fmt.Errorf("process %d is there %v after it was killed", pid, crashLimit)
}

// sharedMemory is the id of the segment that guards a cluster's directory: the last number of the line in postmaster.pid that has two. It outlives a
// server that is killed.
func sharedMemory(data string) (id int) {
	text, _ := os.ReadFile(filepath.Join(data, "postmaster.pid"))
	lines := strings.Split(string(text), "\n")
	if len(lines) > 6 {
		if fields := strings.Fields(lines[6]); len(fields) == 2 {
			id, _ = strconv.Atoi(fields[1])
		}
	}
	return id
}

// removeMemory removes the segment, which a server that starts again would do too, but one that is given up would not.
func removeMemory(id int) error {
	const ipcRMID = 0
	if id == 0 {
		return nil
	}
	if _, _, errno := syscall.Syscall(syscall.SYS_SHMCTL, uintptr(id), ipcRMID, 0); errno != 0 && errno != syscall.EINVAL && errno != syscall.EIDRM {
		return fmt.Errorf("removing the shared memory of a killed server: %w", errno)
	}
	return nil
}

// Freeze halts all processes of the server, as a machine or a network that hangs: it takes connections and answers none. Thaw lets it go on where it was,
// knowing nothing of it. A frozen server may also be crashed.
func (s *Server) Freeze() error { return s.signalAll(syscall.SIGSTOP) }

// Thaw ends what Freeze began.
func (s *Server) Thaw() error { return s.signalAll(syscall.SIGCONT) }

// signalAll begins with the postmaster, which then makes no more of them.
func (s *Server) signalAll(signal syscall.Signal) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process == nil {
		return errors.New("pgserver: the server does not run")
	}
	if err := s.process.Signal(signal); err != nil {
		return err
	}
	family, err := children(s.process.Pid)
	for _, pid := range family {
		err = errors.Join(err, gone(syscall.Kill(pid, signal)))
	}
	return err
}
