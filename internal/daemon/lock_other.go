//go:build !unix

package daemon

import "os"

// lockInstallation does nothing here: the system has no lock that ends with its process.
func lockInstallation(string) (*os.File, error) { return nil, nil }

// lockFile does nothing here either.
func lockFile(path string) (*os.File, error) { return os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600) }
