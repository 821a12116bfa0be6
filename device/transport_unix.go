//go:build !windows

package device

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/google/go-tpm/tpm2/transport"
	"golang.org/x/sys/unix"
)

// DefaultTPM is the spec of the machine's own TPM: on Linux the device file
// behind which the kernel's resource manager lets programs share the chip.
const DefaultTPM = "/dev/tpmrm0"

func openTBS() (transport.TPMCloser, error) {
	return nil, errors.New("TPM Base Services are a part of Windows: name a device file such as " + DefaultTPM)
}

// deviceFile is a TPM behind a device of the kernel, which takes a command with
// one write and gives the whole response with one read.
//
// go-tpm's own (transport/linuxtpm) is not used: a signal in the wrong moment
// makes its command fail, with Go's runtime sending some, and a TPM that is busy
// for long gives neither response nor error.
type deviceFile struct {
	file *os.File
	raw  syscall.RawConn
}

func openDeviceFile(path string) (transport.TPMCloser, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Mode()&os.ModeDevice == 0 {
		return nil, fmt.Errorf("%s is no device file", path)
	}
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	return newDeviceFile(file)
}

func newDeviceFile(file *os.File) (*deviceFile, error) {
	raw, err := file.SyscallConn()
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return &deviceFile{file, raw}, nil
}

// Send runs one command.
func (d *deviceFile) Send(command []byte) ([]byte, error) {
	if _, err := d.file.Write(command); err != nil {
		return nil, err
	}
	if err := d.waitReadable(commandTimeout); err != nil {
		return nil, err
	}
	response := make([]byte, maxResponse)
	n, err := d.file.Read(response)
	if err != nil {
		return nil, fmt.Errorf("read response: %w", err)
	}
	return response[:n], nil
}

// waitReadable is needed where the kernel runs commands in the background: a
// read that comes too early gives nothing. The file cannot be closed meanwhile,
// so its number is not another file's.
func (d *deviceFile) waitReadable(limit time.Duration) error {
	var err error
	closed := d.raw.Control(func(fd uintptr) { err = pollReadable(int32(fd), time.Now().Add(limit)) })
	return errors.Join(closed, err)
}

func pollReadable(fd int32, deadline time.Time) error {
	for {
		left := time.Until(deadline)
		if left <= 0 {
			return fmt.Errorf("read response: %w", os.ErrDeadlineExceeded)
		}
		fds := []unix.PollFd{{Fd: fd, Events: unix.POLLIN}}
		n, err := unix.Poll(fds, int(left.Milliseconds())+1)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return fmt.Errorf("wait for response: %w", err)
		case n > 0 && fds[0].Revents&(unix.POLLIN|unix.POLLHUP) != 0: // the read tells what a hang-up is
			return nil
		case n > 0:
			return fmt.Errorf("wait for response: the device reports 0x%x", fds[0].Revents)
		}
	}
}

// Close closes the file; the kernel removes what was left behind in the TPM if
// the file is a resource manager's.
func (d *deviceFile) Close() error { return d.file.Close() }
