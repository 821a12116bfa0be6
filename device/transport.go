package device

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
)

const (
	responseHeader = 10   // tag, size, code: TPM 2.0 Part 1, 18
	maxResponse    = 8192 // twice what TPMs are known to send

	dialTimeout    = 10 * time.Second
	commandTimeout = 2 * time.Minute // an RSA key pair takes long on some chips
)

// tbs is the spec of the one TPM that Windows offers.
const tbs = "tbs"

// OpenTPM opens the TPM that spec names:
//
//	/dev/tpmrm0        a TPM's device file, or the unix socket of a swtpm
//	tbs                the TPM of a Windows machine, by TPM Base Services
//	unix:PATH          the unix socket of a swtpm
//	swtpm:HOST:PORT    the TCP port of a swtpm
//	tcp:HOST:PORT      a simulator with Microsoft's framing; HOST:PORT is its
//	                   command port, the platform port is the next one
//
// Simulators are switched on and started up if need be. Device files need the
// rights to read and write; on most Linux systems the group tss has them.
func OpenTPM(spec string) (transport.TPMCloser, error) {
	if kind, address, found := strings.Cut(spec, ":"); found {
		switch kind {
		case "unix":
			return openStream("unix", address)
		case "swtpm":
			return openStream("tcp", address)
		case "tcp":
			return openMicrosoft(address)
		}
	}
	if spec == tbs {
		return openTBS()
	}
	if !strings.HasPrefix(spec, "/") {
		return nil, fmt.Errorf("unknown TPM %q: want a device file such as /dev/tpmrm0, tbs (on Windows), unix:PATH, swtpm:HOST:PORT or tcp:HOST:PORT", spec)
	}
	if info, err := os.Stat(spec); err == nil && info.Mode()&os.ModeSocket != 0 {
		return openStream("unix", spec)
	}
	return openDeviceFile(spec)
}

// stream is a TPM behind a connection that carries bare commands, as swtpm
// serves. It holds the connection, and with it swtpm, until it is closed.
type stream struct {
	conn net.Conn
}

func openStream(network, address string) (transport.TPMCloser, error) {
	conn, err := net.DialTimeout(network, address, dialTimeout)
	if err != nil {
		return nil, err
	}
	s := &stream{conn}
	if err := startup(s); err != nil {
		conn.Close()
		return nil, err
	}
	return s, nil
}

// Send runs one command; the response's length stands in its header.
func (s *stream) Send(command []byte) ([]byte, error) {
	if err := s.conn.SetDeadline(time.Now().Add(commandTimeout)); err != nil {
		return nil, err
	}
	if _, err := s.conn.Write(command); err != nil {
		return nil, err
	}
	var header [responseHeader]byte
	if _, err := io.ReadFull(s.conn, header[:]); err != nil {
		return nil, fmt.Errorf("read response: %w", err)
	}
	size := binary.BigEndian.Uint32(header[2:])
	if size < responseHeader || size > maxResponse {
		return nil, fmt.Errorf("response of %d bytes", size)
	}
	response := make([]byte, size)
	copy(response, header[:])
	if _, err := io.ReadFull(s.conn, response[responseHeader:]); err != nil {
		return nil, fmt.Errorf("read response: %w", err)
	}
	return response, nil
}

func (s *stream) Close() error { return s.conn.Close() }

// startup starts a simulator up. A real TPM is started by its firmware.
func startup(tpm transport.TPM) error {
	_, err := tpm2.Startup{StartupType: tpm2.TPMSUClear}.Execute(tpm)
	if errors.Is(err, tpm2.TPMRCInitialize) { // it runs already
		return nil
	}
	return tpmError("TPM2_Startup", err)
}
