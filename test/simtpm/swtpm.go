package simtpm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/google/go-tpm/tpm2"
)

// Time limits for the other process. A key pair on a loaded machine takes
// seconds, starting and stopping takes milliseconds.
const (
	swtpmStartLimit   = 20 * time.Second
	swtpmStopLimit    = 10 * time.Second
	swtpmCommandLimit = 60 * time.Second
	swtpmPortTries    = 5
)

// ErrNoSwtpm says that there is no swtpm program on this machine.
var ErrNoSwtpm = errors.New("simtpm: no swtpm program found; install it with: apt-get install swtpm")

// SwtpmConfig says where a swtpm lives.
type SwtpmConfig struct {
	// Dir keeps the TPM's state: the same Dir is the same TPM. Empty: a
	// directory that goes away with Close.
	Dir string

	// TCP makes it listen on a free port of 127.0.0.1; else it listens on a
	// unix socket. One swtpm has one of the two.
	TCP bool
}

// Swtpm is a running swtpm process. Its methods may be called from several
// goroutines.
//
// Send connects anew for each command, since swtpm serves one connection at a
// time: so other programs can use the same TPM in between. Nothing separates
// their handles from ours.
type Swtpm struct {
	network string
	address string
	state   string
	scratch string // ours, removed on Close

	mu      sync.Mutex
	process *swtpmProcess // nil once closed
}

// StartSwtpm starts the swtpm of Debian's package of that name and waits until
// it answers. The TPM is started up. ErrNoSwtpm tells that it is not there.
func StartSwtpm(config SwtpmConfig) (*Swtpm, error) {
	if _, err := exec.LookPath("swtpm"); err != nil {
		return nil, ErrNoSwtpm
	}
	// Socket paths are limited to some 100 bytes, test directories are not:
	// the socket gets a short place of its own.
	scratch, err := os.MkdirTemp("", "swtpm")
	if err != nil {
		return nil, fmt.Errorf("simtpm: %w", err)
	}
	s := &Swtpm{network: "unix", address: filepath.Join(scratch, "sock"), state: config.Dir, scratch: scratch}
	if config.TCP {
		s.network = "tcp"
	}
	if err := s.startFirst(); err != nil {
		os.RemoveAll(scratch)
		return nil, err
	}
	return s, nil
}

// startFirst starts the process, on TCP with another port if somebody took
// the chosen one between our looking and swtpm's binding.
func (s *Swtpm) startFirst() error {
	if s.state == "" {
		s.state = s.scratch
	}
	if err := os.MkdirAll(s.state, 0o700); err != nil {
		return fmt.Errorf("simtpm: %w", err)
	}
	if s.network == "unix" {
		return s.start()
	}
	var err error
	for range swtpmPortTries {
		if s.address, err = freeAddress(); err != nil {
			return err
		}
		if err = s.start(); err == nil {
			return nil
		}
	}
	return err
}

func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("simtpm: %w", err)
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// Spec names the TPM as device.Open and the agent's --tpm flag take it:
// "unix:PATH" or "swtpm:HOST:PORT".
func (s *Swtpm) Spec() string {
	if s.network == "tcp" {
		return "swtpm:" + s.address
	}
	return "unix:" + s.address
}

// Network and address to dial; swtpm speaks bare TPM commands there.
func (s *Swtpm) Dial() (net.Conn, error) {
	return net.Dial(s.network, s.address)
}

// Send runs one TPM command (transport.TPM) over a connection of its own.
func (s *Swtpm) Send(command []byte) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process == nil {
		return nil, errors.New("simtpm: swtpm is closed")
	}
	return s.sendLocked(command)
}

func (s *Swtpm) sendLocked(command []byte) ([]byte, error) {
	conn, err := s.Dial()
	if err != nil {
		return nil, fmt.Errorf("simtpm: %w%s", err, s.process.lastWords())
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(swtpmCommandLimit)); err != nil {
		return nil, fmt.Errorf("simtpm: %w", err)
	}
	if _, err := conn.Write(command); err != nil {
		return nil, fmt.Errorf("simtpm: write to swtpm: %w", err)
	}
	response, err := readFrame(conn)
	if err != nil {
		return nil, fmt.Errorf("simtpm: read from swtpm: %w%s", err, s.process.lastWords())
	}
	return response, nil
}

// PowerCycle ends the process in an orderly way and starts it on the same
// state and address.
func (s *Swtpm) PowerCycle() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process == nil {
		return errors.New("simtpm: swtpm is closed")
	}
	if err := s.shutdownLocked(); err != nil {
		return err
	}
	if err := s.process.stop(); err != nil {
		return err
	}
	return s.start()
}

// shutdownLocked tells the TPM that power will go, else it counts the next
// start as one after a crash (and raises its dictionary attack counter).
func (s *Swtpm) shutdownLocked() error {
	_, err := tpm2.Shutdown{ShutdownType: tpm2.TPMSUClear}.Execute(lockedSwtpm{s})
	return err
}

// lockedSwtpm is the transport for callers that hold the lock.
type lockedSwtpm struct{ s *Swtpm }

func (l lockedSwtpm) Send(command []byte) ([]byte, error) { return l.s.sendLocked(command) }

// Close ends the process. A second call does nothing.
func (s *Swtpm) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process == nil {
		return nil
	}
	err := s.process.stop()
	s.process = nil
	return errors.Join(err, os.RemoveAll(s.scratch))
}

func (s *Swtpm) start() error {
	process, err := launch(s.arguments())
	if err != nil {
		return fmt.Errorf("simtpm: start swtpm: %w", err)
	}
	s.process = process
	if err := s.waitReady(); err != nil {
		process.stop()
		s.process = nil
		return err
	}
	return nil
}

// arguments: no --terminate, so that it outlives its clients; startup-clear
// sends TPM2_Startup and not-need-init spares the control channel.
func (s *Swtpm) arguments() []string {
	server := "type=unixio,path=" + s.address
	if s.network == "tcp" {
		host, port, _ := net.SplitHostPort(s.address)
		server = "type=tcp,port=" + port + ",bindaddr=" + host
	}
	return []string{"socket", "--tpm2", "--tpmstate", "dir=" + s.state,
		"--server", server, "--flags", "not-need-init,startup-clear"}
}

// waitReady asks until an answer comes, the process ends or time is up.
func (s *Swtpm) waitReady() error {
	ctx, cancel := context.WithTimeout(context.Background(), swtpmStartLimit)
	defer cancel()
	retry := time.NewTicker(5 * time.Millisecond)
	defer retry.Stop()
	for {
		_, err := tpm2.GetRandom{BytesRequested: 8}.Execute(lockedSwtpm{s})
		if err == nil {
			return nil
		}
		select {
		case <-retry.C:
		case <-s.process.done:
			return fmt.Errorf("simtpm: swtpm ended at once%s", s.process.lastWords())
		case <-ctx.Done():
			return fmt.Errorf("simtpm: swtpm did not answer within %v: %w", swtpmStartLimit, err)
		}
	}
}

// swtpmProcess is one run of the program.
type swtpmProcess struct {
	cmd    *exec.Cmd
	output bytes.Buffer  // safe to read once done is closed
	done   chan struct{} // closed when the process has ended
}

// launch starts swtpm so that it dies with us, however we die. Linux ties that
// to the thread that started it, so one goroutine keeps its thread for as long
// as the process lives.
func launch(arguments []string) (*swtpmProcess, error) {
	p := &swtpmProcess{cmd: exec.Command("swtpm", arguments...), done: make(chan struct{})}
	p.cmd.Stdout = &p.output
	p.cmd.Stderr = &p.output
	dieWithParent(p.cmd)
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := p.cmd.Start()
		started <- err
		if err == nil {
			p.cmd.Wait() // how it ended does not matter, its output does
		}
		close(p.done)
	}()
	return p, <-started
}

func (p *swtpmProcess) stop() error {
	p.cmd.Process.Signal(syscall.SIGTERM)
	limit := time.NewTimer(swtpmStopLimit)
	defer limit.Stop()
	select {
	case <-p.done:
		return nil
	case <-limit.C:
		p.cmd.Process.Kill()
		<-p.done
		return fmt.Errorf("simtpm: swtpm had to be killed%s", p.lastWords())
	}
}

// lastWords is what the process said, once it has ended.
func (p *swtpmProcess) lastWords() string {
	select {
	case <-p.done:
		return fmt.Sprintf(" (swtpm: %s, it said: %q)", p.cmd.ProcessState, bytes.TrimSpace(p.output.Bytes()))
	default:
		return ""
	}
}
