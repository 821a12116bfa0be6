//go:build !windows

package device

import (
	"github.com/google/go-tpm/tpm2/transport"
	"github.com/google/go-tpm/tpm2/transport/linuxtpm"
)

func openDeviceFile(path string) (transport.TPMCloser, error) { return linuxtpm.Open(path) }
