package rig

import (
	"cmp"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// DefaultHost is the service's name when Config names none. It needs a dot.
const DefaultHost = "latchkey.test"

// Time limits for the service's process. All of it takes milliseconds on an
// idle machine; the limits are for loaded ones.
const (
	startLimit = 60 * time.Second
	stopLimit  = 30 * time.Second
)

// Config says what service to run.
type Config struct {
	Programs Programs  // zero: those of Build
	Dir      string    // for all of the service's files; empty: one that goes away with Close
	Host     string    // its DNS name; empty: DefaultHost
	Store    string    // postgres:// address of a database without an installation; empty: the embedded store
	Listen   Addresses // of its listeners; empty ones: a free port, another at each Run
	NoHub    bool      // leave the embedded hub to another node: there is no MQTT listener
	Proxy    string    // address of the load balancer that all HTTPS and MQTT connections come from; empty: none
	Log      io.Writer // where a copy of its log goes, as it comes; nil: nowhere
	Flags    []string  // more flags for `latchkey serve`
	Env      []string  // more environment for it, NAME=value
}

// Addresses of a service's listeners, host:port.
type Addresses struct{ HTTPS, MQTT, Metrics string }

// Service is a service that runs, or ran, as a process of its own. Its methods
// are for one goroutine, except Log. HTTPS and MQTT of its Access are those of
// the listeners of this run.
type Service struct {
	Access
	DataDir string // of `latchkey --data`
	Metrics string // address of that listener of this run, plain HTTP

	config  Config
	scratch string // ours, removed by Close
	log     *serviceLog
	process *process // nil: not running
}

// Start makes a new service (latchkey init), runs it (latchkey serve) and
// returns when it is ready. On an error nothing is left running.
func Start(config Config) (*Service, error) {
	if config.Programs == (Programs{}) {
		var err error
		if config.Programs, err = Build(); err != nil {
			return nil, err
		}
	}
	if config.Host == "" {
		config.Host = DefaultHost
	}
	s := &Service{Access: Access{Host: config.Host, programs: config.Programs}, config: config, log: newServiceLog()}
	return s.begin(s.initialize)
}

// begin prepares a directory and runs the service on it.
func (s *Service) begin(prepare func() error) (*Service, error) {
	err := s.makeDir()
	for _, step := range []func() error{prepare, s.Run} {
		if err == nil {
			err = step()
		}
	}
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *Service) makeDir() (err error) {
	dir := s.config.Dir
	if dir == "" {
		if dir, err = os.MkdirTemp("", "latchkey-rig"); err != nil {
			return fmt.Errorf("rig: %w", err)
		}
		s.scratch = dir
	}
	s.DataDir, err = filepath.Abs(filepath.Join(dir, "data"))
	return err
}

func (s *Service) initialize() error {
	ctx, cancel := context.WithTimeout(context.Background(), startLimit)
	defer cancel()
	result, err := Run(ctx, Command{Path: s.config.Programs.Service,
		Args: []string{"init", "--data", s.DataDir, "--host", s.Host, "--store", s.config.Store, "--json"}})
	if err != nil {
		return err
	}
	var said struct{ IDScope, ConnectionString, CAFile string }
	if err := json.Unmarshal([]byte(result.Stdout), &said); err != nil {
		return fmt.Errorf("rig: what init printed is not JSON: %w", err)
	}
	if said.IDScope == "" || said.ConnectionString == "" || said.CAFile == "" {
		return errors.New("rig: init printed no idScope, connectionString or caFile")
	}
	s.IDScope, s.ConnectionString, s.CAFile = said.IDScope, said.ConnectionString, said.CAFile
	return s.readCAs()
}

func (s *Service) readCAs() error {
	pem, err := os.ReadFile(s.CAFile)
	if err != nil {
		return fmt.Errorf("rig: %w", err)
	}
	s.CAs = x509.NewCertPool()
	if !s.CAs.AppendCertsFromPEM(pem) {
		return errors.New("rig: no certificate in init's caFile")
	}
	return nil
}

// Run starts the process on its data directory and returns when it is ready.
// After Stop or Kill it starts it again, on other ports unless Config has some.
func (s *Service) Run() error {
	if err := s.Begin(); err != nil {
		return err
	}
	if err := s.waitReady(); err != nil {
		return errors.Join(err, s.Kill())
	}
	return nil
}

// Begin starts the process and does not wait for it: for those who Kill it
// before it is ready. Its addresses are not read.
func (s *Service) Begin() error {
	if s.Running() {
		return errors.New("rig: the service runs already")
	}
	cmd := exec.Command(s.config.Programs.Service, s.arguments()...)
	cmd.Env = append(environment(), s.config.Env...)
	var log io.Writer = s.log
	if s.config.Log != nil {
		log = io.MultiWriter(s.log, s.config.Log)
	}
	cmd.Stdout, cmd.Stderr = log, log
	s.log.forget()
	p, err := start(cmd)
	if err != nil {
		return fmt.Errorf("rig: %w", err)
	}
	s.process = p
	return nil
}

func (s *Service) arguments() []string {
	free := func(address string) string { return cmp.Or(address, "127.0.0.1:0") }
	listen := s.config.Listen
	arguments := []string{"serve", "--data", s.DataDir, "--https", free(listen.HTTPS), "--mqtt", free(listen.MQTT), "--metrics", free(listen.Metrics),
		"--log-format", "json"}
	if s.config.Proxy != "" {
		arguments = append(arguments, "--proxy-from", s.config.Proxy)
	}
	if s.config.NoHub {
		arguments = append(arguments, "--hub-serve=false")
	}
	return append(arguments, s.config.Flags...)
}

func (s *Service) waitReady() error {
	ctx, cancel := context.WithTimeout(context.Background(), startLimit)
	defer cancel()
	for _, listener := range []struct {
		what string
		to   *string
	}{{"https", &s.HTTPS}, {"mqtt", &s.MQTT}, {"metrics", &s.Metrics}} {
		if listener.what == "mqtt" && s.config.NoHub {
			continue
		}
		address, err := s.waitAddress(ctx, listener.what)
		if err != nil {
			return err
		}
		*listener.to = address
	}
	return s.pollReady(ctx)
}

func (s *Service) waitAddress(ctx context.Context, what string) (string, error) {
	for {
		next := s.log.next()
		if address := s.log.address(what); address != "" {
			return address, nil
		}
		select {
		case <-next:
		case <-s.process.done:
			return "", fmt.Errorf("rig: the service ended at once (%w); its log ends with:\n%s", s.process.err, lastLines(s.Log(), 20))
		case <-ctx.Done():
			return "", fmt.Errorf("rig: the service has logged no %s listener within %v; its log ends with:\n%s", what, startLimit, lastLines(s.Log(), 20))
		}
	}
}

// Running tells whether the process is there: started, and not ended by us or
// by itself.
func (s *Service) Running() bool {
	if s.process == nil {
		return false
	}
	select {
	case <-s.process.done:
		return false
	default:
		return true
	}
}

// Done is closed when the process that Run started has ended, by us or by
// itself.
func (s *Service) Done() <-chan struct{} { return s.process.done }

// PID of the process that runs; 0 if none does.
func (s *Service) PID() int {
	if !s.Running() {
		return 0
	}
	return s.process.cmd.Process.Pid
}

// Stop ends the service as an operator does (SIGTERM). An exit code other than
// 0, an end before our asking and no end within 30 s are errors.
func (s *Service) Stop() error {
	p := s.process
	if p == nil {
		return errors.New("rig: the service does not run")
	}
	s.process = nil
	p.cmd.Process.Signal(syscall.SIGTERM) // an ended process shows below
	limit := time.NewTimer(stopLimit)
	defer limit.Stop()
	select {
	case <-p.done:
		if p.err != nil {
			return fmt.Errorf("rig: the service stopped badly: %w; its log ends with:\n%s", p.err, lastLines(s.Log(), 20))
		}
		return nil
	case <-limit.C:
		p.cmd.Process.Kill()
		<-p.done
		return fmt.Errorf("rig: the service did not stop within %v and was killed", stopLimit)
	}
}

// Kill ends the service without warning (SIGKILL) and returns when it is gone.
func (s *Service) Kill() error {
	p := s.process
	if p == nil {
		return errors.New("rig: the service does not run")
	}
	s.process = nil
	err := p.cmd.Process.Kill()
	<-p.done
	if errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("rig: the service had ended by itself: %w", p.err)
	}
	return err
}

// Close stops the service if it runs and removes its files if they are ours.
func (s *Service) Close() error {
	var err error
	if s.process != nil {
		err = s.Stop()
	}
	if s.scratch != "" {
		err = errors.Join(err, os.RemoveAll(s.scratch))
	}
	return err
}

// Log is what the service has written so far, of all its runs: the last 16 MB at
// least.
func (s *Service) Log() string { return s.log.String() }

// LogEnd is the last lines of it.
func (s *Service) LogEnd(lines int) string { return lastLines(s.Log(), lines) }
