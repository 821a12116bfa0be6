//go:build !linux

package simtpm

import "os/exec"

// dieWithParent has no equivalent here: an interrupted test leaves its swtpm.
func dieWithParent(*exec.Cmd) {}
