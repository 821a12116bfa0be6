//go:build !unix

package daemon

import "os"

// lockInstallation does nothing here: the system has no lock that ends with its process.
func lockInstallation(string) (*os.File, error) { return nil, nil }
