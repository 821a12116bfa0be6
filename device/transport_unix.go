//go:build !windows

package device

import (
	"errors"

	"github.com/google/go-tpm/tpm2/transport"
	"github.com/google/go-tpm/tpm2/transport/linuxtpm"
)

// DefaultTPM is the spec of the machine's own TPM: on Linux the device file
// behind which the kernel's resource manager lets programs share the chip.
const DefaultTPM = "/dev/tpmrm0"

func openDeviceFile(path string) (transport.TPMCloser, error) { return linuxtpm.Open(path) }

func openTBS() (transport.TPMCloser, error) {
	return nil, errors.New("TPM Base Services are a part of Windows: name a device file such as " + DefaultTPM)
}
