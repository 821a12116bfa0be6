package device

import (
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2/transport"
	"github.com/google/go-tpm/tpm2/transport/windowstpm"
)

// DefaultTPM is the spec of the machine's own TPM. TPM Base Services share the
// chip among programs.
const DefaultTPM = tbs

func openTBS() (transport.TPMCloser, error) {
	tpm, err := windowstpm.Open()
	if err != nil { // what comes beside an error is no TPM
		return nil, fmt.Errorf("TPM Base Services: %w", err)
	}
	return tpm, nil
}

func openDeviceFile(string) (transport.TPMCloser, error) {
	return nil, errors.New("Windows has no device file of a TPM: use " + DefaultTPM)
}
