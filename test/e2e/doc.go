// Package e2e holds the tests of the built programs together: the service, the
// operator's commands and the device agent, each a process of its own, with the
// reference TPM and with swtpm. What they promise each other is the wire, so the
// tests look only at what goes over it and at the files that users read.
package e2e
