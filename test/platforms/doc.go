// Package platforms tests what a device may run on: the agent is built for every machine that `make release-device` names, as a release is built,
// and the pure packages run on a 32-bit machine, which every amd64 Linux is too.
package platforms
