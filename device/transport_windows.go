package device

import (
	"github.com/google/go-tpm/tpm2/transport"
	"github.com/google/go-tpm/tpm2/transport/windowstpm"
)

// openDeviceFile opens the one TPM that Windows offers, whatever the path.
func openDeviceFile(string) (transport.TPMCloser, error) { return windowstpm.Open() }
