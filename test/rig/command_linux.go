package rig

import (
	"os/exec"
	"syscall"
)

func dieWithParent(cmd *exec.Cmd) {
	// A group of its own: Ctrl-C is for us, who then end it in good order.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
}
