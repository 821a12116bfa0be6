package device

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"

	"github.com/google/go-tpm/tpm2/transport"
)

// Codes of the Microsoft simulator's framing (TpmTcpProtocol.h of the
// reference code).
const (
	microsoftPowerOn    = 1
	microsoftSend       = 8
	microsoftNVOn       = 11
	microsoftSessionEnd = 20
)

// errNoPower is the answer of a simulator that is switched off.
var errNoPower = errors.New("the simulator gave an empty response; is it switched on?")

// microsoft is a simulator's command port. go-tpm has a client for it too, but
// that one takes a response that arrives in two pieces for a failure.
type microsoft struct {
	conn net.Conn
}

func openMicrosoft(address string) (transport.TPMCloser, error) {
	conn, err := net.DialTimeout("tcp", address, dialTimeout)
	if err != nil {
		return nil, err
	}
	m := &microsoft{conn}
	err = startup(m)
	if errors.Is(err, errNoPower) {
		if err = powerOn(address); err == nil {
			err = startup(m)
		}
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return m, nil
}

// powerOn signals to the platform port, which is the one after the command port.
func powerOn(commandAddress string) error {
	host, port, err := net.SplitHostPort(commandAddress)
	if err != nil {
		return err
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		return fmt.Errorf("port %q: %w", port, err)
	}
	conn, err := net.DialTimeout("tcp", net.JoinHostPort(host, strconv.Itoa(number+1)), dialTimeout)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(commandTimeout)); err != nil {
		return err
	}
	for _, signal := range []uint32{microsoftPowerOn, microsoftNVOn} {
		if err := platformSignal(conn, signal); err != nil {
			return err
		}
	}
	_, err = conn.Write(binary.BigEndian.AppendUint32(nil, microsoftSessionEnd))
	return err
}

func platformSignal(conn io.ReadWriter, signal uint32) error {
	if _, err := conn.Write(binary.BigEndian.AppendUint32(nil, signal)); err != nil {
		return err
	}
	result, err := readUint32(conn)
	if err != nil {
		return err
	}
	if result != 0 {
		return fmt.Errorf("the simulator answered %d to platform signal %d", result, signal)
	}
	return nil
}

// Send frames a command with code, locality 0 and size. The response comes with
// its size before it and a zero behind it.
func (m *microsoft) Send(command []byte) ([]byte, error) {
	if err := m.conn.SetDeadline(time.Now().Add(commandTimeout)); err != nil {
		return nil, err
	}
	frame := binary.BigEndian.AppendUint32(nil, microsoftSend)
	frame = append(frame, 0)
	frame = binary.BigEndian.AppendUint32(frame, uint32(len(command)))
	if _, err := m.conn.Write(append(frame, command...)); err != nil {
		return nil, err
	}
	size, err := readUint32(m.conn)
	if err != nil {
		return nil, fmt.Errorf("read response: %w", err)
	}
	if size > maxResponse {
		return nil, fmt.Errorf("response of %d bytes", size)
	}
	response := make([]byte, size)
	if _, err := io.ReadFull(m.conn, response); err != nil {
		return nil, fmt.Errorf("read response: %w", err)
	}
	if result, err := readUint32(m.conn); err != nil || result != 0 {
		return nil, fmt.Errorf("the simulator ended its response with %d: %w", result, errors.Join(err, errFraming))
	}
	if size == 0 {
		return nil, errNoPower
	}
	return response, nil
}

var errFraming = errors.New("unexpected framing")

// Close says goodbye first: the Microsoft simulator serves one client at a time
// and should know that it may serve the next.
func (m *microsoft) Close() error {
	m.conn.SetDeadline(time.Now().Add(time.Second))
	m.conn.Write(binary.BigEndian.AppendUint32(nil, microsoftSessionEnd))
	return m.conn.Close()
}

func readUint32(r io.Reader) (uint32, error) {
	var b [4]byte
	_, err := io.ReadFull(r, b[:])
	return binary.BigEndian.Uint32(b[:]), err
}
