package simtpm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"

	"github.com/google/go-tpm/tpm2/transport"
)

// Codes of the Microsoft simulator's framing (TpmTcpProtocol.h).
const (
	frontSendCommand = 8
	frontHandshake   = 15
	frontSessionEnd  = 20
	frontStop        = 21

	platformPowerOn  = 1
	platformPowerOff = 2
	platformReset    = 17
	platformRestart  = 18

	serverVersion = 1
	// What the server says of itself in the handshake: platform port there,
	// physical presence signals understood, bare TPM commands.
	endPointInfo = 1 | 4 | 8

	portPairTries = 50
)

// Front offers a TPM to programs that speak the Microsoft simulator's framing
// over TCP: tss.js, go-tpm's transport/tcp, tpm2-tools (mssim) and the device
// agent ("tcp:HOST:PORT").
//
// Unlike that simulator it serves any number of connections; commands run one
// after another, and all see the same handles. A client's STOP ends its own
// connection only: one client must not end the others' TPM.
type Front struct {
	tpm        transport.TPM
	powerCycle func() error
	command    net.Listener
	platform   net.Listener
	wait       sync.WaitGroup

	mu    sync.Mutex // one TPM command or power signal at a time
	off   bool
	conns map[net.Conn]struct{}
	ended bool
}

// ServeFront listens on address for commands and on the next port number for
// platform signals; port 0 picks a free pair. powerCycle is called when a
// client switches the power off and on, or resets; nil ignores that. Close
// ends the front, not the TPM.
func ServeFront(address string, tpm transport.TPM, powerCycle func() error) (*Front, error) {
	command, platform, err := listenPair(address)
	if err != nil {
		return nil, fmt.Errorf("simtpm: %w", err)
	}
	f := &Front{tpm: tpm, powerCycle: powerCycle, command: command, platform: platform,
		conns: make(map[net.Conn]struct{})}
	f.wait.Add(2)
	go f.accept(command, f.serveCommands)
	go f.accept(platform, f.servePlatform)
	return f, nil
}

// listenPair finds two neighbouring ports, since clients compute the second.
func listenPair(address string) (command, platform net.Listener, err error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, nil, err
	}
	tries := 1
	if port == "0" {
		tries = portPairTries
	}
	for range tries {
		if command, err = net.Listen("tcp", address); err != nil {
			return nil, nil, err
		}
		next := command.Addr().(*net.TCPAddr).Port + 1
		if platform, err = net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(next))); err == nil {
			return command, platform, nil
		}
		command.Close()
	}
	return nil, nil, err
}

// CommandAddr is the command port's host:port.
func (f *Front) CommandAddr() string { return f.command.Addr().String() }

// PlatformAddr is the platform port's host:port, one port number above.
func (f *Front) PlatformAddr() string { return f.platform.Addr().String() }

// Spec names the TPM as device.Open and the agent's --tpm flag take it.
func (f *Front) Spec() string { return "tcp:" + f.CommandAddr() }

// Close ends all connections and waits until no command runs any more.
func (f *Front) Close() error {
	err := errors.Join(f.command.Close(), f.platform.Close())
	f.mu.Lock()
	f.ended = true
	for conn := range f.conns {
		conn.Close()
	}
	f.mu.Unlock()
	f.wait.Wait()
	return err
}

func (f *Front) accept(l net.Listener, serve func(net.Conn) error) {
	defer f.wait.Done()
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		if !f.adopt(conn) {
			conn.Close()
			return
		}
		go func() {
			defer f.wait.Done()
			defer f.release(conn)
			serve(conn) // a client that breaks the framing just loses its connection
		}()
	}
}

func (f *Front) adopt(conn net.Conn) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ended {
		return false
	}
	f.conns[conn] = struct{}{}
	f.wait.Add(1)
	return true
}

func (f *Front) release(conn net.Conn) {
	conn.Close()
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.conns, conn)
}

func (f *Front) serveCommands(conn net.Conn) error {
	for {
		code, err := readUint32(conn)
		if err != nil {
			return err
		}
		switch code {
		case frontSendCommand:
			err = f.answerCommand(conn)
		case frontHandshake:
			err = answerHandshake(conn)
		case frontSessionEnd, frontStop:
			return nil
		default:
			return fmt.Errorf("simtpm: unknown code %d on the command port", code)
		}
		if err != nil {
			return err
		}
	}
}

// answerCommand reads locality, size and command; it answers size, response
// and a zero, in one write: go-tpm's client reads the response with one Read.
func (f *Front) answerCommand(conn net.Conn) error {
	command, err := readCommand(conn)
	if err != nil {
		return err
	}
	response, err := f.run(command)
	if err != nil {
		return err
	}
	answer := binary.BigEndian.AppendUint32(nil, uint32(len(response)))
	answer = append(answer, response...)
	answer = binary.BigEndian.AppendUint32(answer, 0)
	_, err = conn.Write(answer)
	return err
}

func readCommand(r io.Reader) ([]byte, error) {
	var head [5]byte // locality, size
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	size := binary.BigEndian.Uint32(head[1:])
	if size > maxFrame {
		return nil, fmt.Errorf("simtpm: command of %d bytes", size)
	}
	command := make([]byte, size)
	_, err := io.ReadFull(r, command)
	return command, err
}

// run answers nothing while the power is off, as the Microsoft simulator does.
func (f *Front) run(command []byte) ([]byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.off || len(command) < headerSize {
		return nil, nil
	}
	return f.tpm.Send(command)
}

func answerHandshake(conn net.Conn) error {
	if _, err := readUint32(conn); err != nil { // the client's version
		return err
	}
	answer := binary.BigEndian.AppendUint32(nil, serverVersion)
	answer = binary.BigEndian.AppendUint32(answer, endPointInfo)
	answer = binary.BigEndian.AppendUint32(answer, 0)
	_, err := conn.Write(answer)
	return err
}

// servePlatform answers every signal with a zero. Signals that a software TPM
// does not care about (NV on, physical presence, cancel) do nothing.
func (f *Front) servePlatform(conn net.Conn) error {
	for {
		code, err := readUint32(conn)
		if err != nil {
			return err
		}
		if code == frontSessionEnd || code == frontStop {
			return nil
		}
		if code == frontHandshake {
			err = answerHandshake(conn)
		} else if err = f.signal(code); err == nil {
			_, err = conn.Write(make([]byte, 4))
		}
		if err != nil {
			return err
		}
	}
}

func (f *Front) signal(code uint32) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch code {
	case platformPowerOff:
		f.off = true
	case platformPowerOn:
		if f.off {
			f.off = false
			return f.cycleLocked()
		}
	case platformReset, platformRestart:
		if !f.off {
			return f.cycleLocked()
		}
	}
	return nil
}

func (f *Front) cycleLocked() error {
	if f.powerCycle == nil {
		return nil
	}
	return f.powerCycle()
}

func readUint32(r io.Reader) (uint32, error) {
	var b [4]byte
	_, err := io.ReadFull(r, b[:])
	return binary.BigEndian.Uint32(b[:]), err
}
