// Package packaging tests what installs the service on a machine: the Debian package, the systemd unit in it and the container image. Its tests work on
// what `make` builds, in directories of their own; nothing is installed on the machine that runs them. Where root is needed they pretend with
// fakeroot, unless they are root.
package packaging
