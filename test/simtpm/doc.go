// Package simtpm gives tests and the demo program software TPMs to play with:
// the reference code inside the process, swtpm as a process of its own, and a
// TCP front that lets programs of others use either of them.
//
// The two TPMs are independent implementations of TPM 2.0, which is the point:
// what works on both is unlikely to lean on one's accidents. Neither protects
// a secret, so nothing in the service or the device agent may import this
// package. It needs cgo and the OpenSSL headers for the reference code.
//
// The front speaks the framing of Microsoft's simulator (TpmTcpProtocol.h of
// the reference code): one port for TPM commands and, at the next port number,
// one for power and other platform signals.
package simtpm

import "github.com/google/go-tpm/tpm2/transport"

// TPM is a software TPM that a test can switch off and on.
type TPM interface {
	transport.TPMCloser

	// PowerCycle restarts the TPM as a reboot of its computer would: transient
	// objects and sessions are gone, persistent objects and seeds remain. The
	// TPM is started up (TPM2_Startup) when it returns.
	PowerCycle() error
}
