// Package pgserver starts a PostgreSQL server of its own for tests: a fresh cluster in a directory of its own, reached by a socket in that
// directory, gone when it is stopped or the test process dies. It never touches a cluster of the machine.
//
// The server flushes what it acknowledges, as the store demands; the directory lies in memory where the machine has a place
// for that, so that the flushes cost nothing. What a power loss does is not tested with it.
package pgserver

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// Server is a running server. Its superuser is "latchkey", its first database "postgres".
type Server struct {
	dir      string
	lock     *os.File // held while the directory is in use
	bin      string
	settings []string
	followed string              // what a standby followed before Unfollow
	who      *syscall.Credential // nil: as the test itself

	mu      sync.Mutex
	process *os.Process   // nil when stopped
	ended   chan struct{} // closed when it is gone
}

// Start makes a cluster and starts its server with settings of the form "name=value". A machine without PostgreSQL is an error that says what
// to install.
func Start(settings ...string) (*Server, error) {
	s, err := claim(settings)
	if err != nil {
		return nil, err
	}
	if err := s.initdb(); err != nil {
		return nil, errors.Join(err, s.Stop())
	}
	if err := s.Run(); err != nil {
		return nil, errors.Join(err, s.Stop())
	}
	return s, nil
}

// claim is a server without a cluster, in a directory of its own.
func claim(settings []string) (*Server, error) {
	bin, err := programs()
	if err != nil {
		return nil, err
	}
	who, err := unprivileged()
	if err != nil {
		return nil, err
	}
	dir, lock, err := claimDir(memory())
	if err != nil {
		return nil, err
	}
	s := &Server{dir: dir, lock: lock, bin: bin, who: who, settings: settings}
	if who != nil {
		err = os.Chown(dir, int(who.Uid), int(who.Gid))
	}
	if err != nil {
		return nil, errors.Join(err, s.Stop())
	}
	return s, nil
}

// programs finds the newest PostgreSQL that Debian has installed, or the one on the PATH.
func programs() (string, error) {
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if len(found) > 0 {
		version := func(path string) int { n, _ := strconv.Atoi(strings.Split(path, "/")[4]); return n }
		return filepath.Dir(slices.MaxFunc(found, func(a, b string) int { return version(a) - version(b) })), nil
	}
	path, err := exec.LookPath("initdb")
	if err != nil {
		return "", errors.New("PostgreSQL is needed and not installed: run scripts/setup.sh test")
	}
	path, err = filepath.EvalSymlinks(path)
	return filepath.Dir(path), err
}

// unprivileged names whom the server runs as: PostgreSQL refuses to run as root.
func unprivileged() (*syscall.Credential, error) {
	if os.Getuid() != 0 {
		return nil, nil
	}
	var errs []error
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
		gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
		if err := errors.Join(err1, err2); err != nil {
			return nil, err
		}
		return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid), NoSetGroups: false}, nil
	}
	return nil, errors.Join(errs...)
}

func (s *Server) data() string { return filepath.Join(s.dir, "data") }

func (s *Server) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(s.bin, name), args...)
	cmd.Dir = s.dir
	cmd.Env = []string{"PATH=" + s.bin + ":/usr/bin:/bin", "LC_ALL=C", "TZ=UTC"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.who, Pdeathsig: syscall.SIGQUIT, Setpgid: true} // Ctrl-C is for who started it
	return cmd
}

func (s *Server) initdb() error {
	out, err := s.command("initdb", "-D", s.data(), "-U", "latchkey", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync").CombinedOutput()
	if err != nil {
		return fmt.Errorf("initdb: %w\n%s", err, out)
	}
	return nil
}

// Run starts the server of a cluster that is stopped, and returns when it takes connections.
func (s *Server) Run() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	args := []string{"-D", s.data(), "-k", s.dir, "-c", "listen_addresses=", "-c", "max_connections=200", "-c", "shared_buffers=64MB",
		"-c", "autovacuum=off", "-c", "jit=off", "-c", "wal_level=minimal", "-c", "max_wal_senders=0",
		"-c", "dynamic_shared_memory_type=mmap"} // below the directory: a server that crashed for good leaves nothing elsewhere
	for _, setting := range s.settings {
		args = append(args, "-c", setting)
	}
	cmd := s.command("postgres", args...)
	log, err := cmd.StderrPipe()
	if err != nil {
		return err
	}
	started, ended := make(chan error), make(chan struct{})
	go func() {
		// The signal at our death comes when the thread ends that started the server; this one lives as long as it.
		runtime.LockOSThread()
		defer close(ended)
		err := cmd.Start()
		started <- err
		if err == nil {
			_, _ = cmd.Process.Wait()
		}
	}()
	if err := <-started; err != nil {
		return err
	}
	if err := ready(log); err != nil {
		<-ended
		return err
	}
	s.process, s.ended = cmd.Process, ended
	return nil
}

// ready reads the server's log until it takes connections, and then lets the rest go by.
func ready(log io.Reader) error {
	var said strings.Builder
	lines := bufio.NewScanner(log)
	for lines.Scan() {
		said.WriteString(lines.Text() + "\n")
		if strings.Contains(lines.Text(), "database system is ready to accept connections") ||
			strings.Contains(lines.Text(), "database system is ready to accept read-only connections") {
			go func() { _, _ = io.Copy(io.Discard, log) }()
			return nil
		}
	}
	return fmt.Errorf("the server did not start:\n%s", &said)
}

// Done is closed when the server that Run started has ended, by us or by itself.
func (s *Server) Done() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ended
}

// PID of the server's first process; 0 if it was ended.
func (s *Server) PID() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process == nil {
		return 0
	}
	return s.process.Pid
}

// Kill ends the server at once: its processes get no time to write anything, but they may say goodbye to their clients. Run starts it
// again, and recovers.
func (s *Server) Kill() error { return s.end(syscall.SIGQUIT) }

func (s *Server) end(signal syscall.Signal) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process == nil {
		return nil
	}
	err := s.process.Signal(signal)
	<-s.ended
	s.process = nil
	return err
}

// Stop ends the server and removes the cluster.
func (s *Server) Stop() error {
	return errors.Join(s.end(syscall.SIGQUIT), os.RemoveAll(s.dir), s.lock.Close())
}

// Address is the address of a database of the server.
func (s *Server) Address(database string) string {
	return (&url.URL{Scheme: "postgres", User: url.User("latchkey"), Path: "/" + database, RawQuery: url.Values{"host": {s.dir}}.Encode()}).String()
}

// Psql runs SQL in a database, for what tests prepare.
func (s *Server) Psql(ctx context.Context, database, sql string) error {
	_, err := s.Ask(ctx, database, sql)
	return err
}

// Ask runs SQL and returns what psql prints of the answer: a line for each row, with | between its columns.
func (s *Server) Ask(ctx context.Context, database, sql string) (string, error) {
	cmd := s.command("psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", s.dir, "-U", "latchkey", "-d", database, "-c", sql)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("psql: %w\n%s", err, out)
	}
	return strings.TrimSpace(string(out)), ctx.Err()
}
