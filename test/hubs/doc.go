// Package hubs holds tests of hubs that a provisioning service gives devices to, with real processes: a second Latchkey that is a hub alone is linked as the
// kind azure, and a device with a TPM goes from one to the other.
package hubs
