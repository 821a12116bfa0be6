//go:build !windows

package device

import (
	"bytes"
	"errors"
	"io"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// pair is a device file and what is behind it: whole messages, as of a TPM.
func pair(t *testing.T) (*deviceFile, *os.File) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET, 0)
	if err != nil {
		t.Fatal(err)
	}
	device, err := newDeviceFile(os.NewFile(uintptr(fds[0]), "device"))
	if err != nil {
		t.Fatal(err)
	}
	chip := os.NewFile(uintptr(fds[1]), "chip")
	t.Cleanup(func() {
		device.Close()
		chip.Close()
	})
	return device, chip
}

// Signals arrive all the time while the TPM works; Go's runtime sends some.
func TestDeviceFileGivesOneResponseForOneCommand(t *testing.T) {
	device, chip := pair(t)
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		for {
			select {
			case <-stop:
				return
			default:
				unix.Kill(unix.Getpid(), unix.SIGURG)
			}
		}
	}()
	go func() {
		command := make([]byte, 100)
		for {
			n, err := chip.Read(command)
			if err != nil || n == 0 {
				return
			}
			chip.Write(append(command[:n], bytes.Repeat([]byte("r"), 4000)...))
		}
	}()
	for range 200 {
		response, err := device.Send([]byte("command"))
		if err != nil || len(response) != 4007 || !bytes.HasPrefix(response, []byte("commandrr")) {
			t.Fatalf("%d bytes, %v", len(response), err)
		}
	}
}

func TestDeviceFileOfATPMThatIsSilentOrGone(t *testing.T) {
	device, chip := pair(t)
	if err := device.waitReadable(20 * time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("silent: %v", err)
	}
	go func() {
		chip.Read(make([]byte, 10))
		chip.Close()
	}()
	if _, err := device.Send([]byte("c")); !errors.Is(err, io.EOF) && !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("unplugged: %v", err)
	}
	if _, err := device.Send([]byte("c")); err == nil {
		t.Error("a TPM that is gone answers")
	}
}
