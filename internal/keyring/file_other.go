//go:build !unix

package keyring

import "os"

// checkMode accepts every file: mode bits say nothing here, and the directory's
// access list has to keep others out.
func checkMode(*os.File, string) error { return nil }

// syncDir does nothing: directories cannot be synced here.
func syncDir(string) error { return nil }

// BUG: here two processes that change a ring at the same time are not kept
// apart, and the change of one can be lost.
func lockDir(string) (unlock func(), err error) { return func() {}, nil }
