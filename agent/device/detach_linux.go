package device

import (
	"os/exec"
	"syscall"
)

// detach puts the child in its own process group, so that a terminal's signals do not reach
// it, and has the kernel end it when this process dies while the child hangs.
func detach(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
