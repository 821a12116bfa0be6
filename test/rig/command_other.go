//go:build !linux

package rig

import "os/exec"

// dieWithParent has no equivalent here: an interrupted test leaves its processes.
func dieWithParent(*exec.Cmd) {}
