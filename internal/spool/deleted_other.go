//go:build !unix

package spool

import "os"

// deleted: no open file is deleted here.
func deleted(*os.File) bool { return false }

// syncFolder: a folder cannot be synced here.
func syncFolder(string) error { return nil }
