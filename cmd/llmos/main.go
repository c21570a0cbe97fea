// Command llmos is the server, the agent and the command line of llmos in one program. It
// reads flags, calls the rooms that do the work and prints what they say; it holds no logic
// of the cluster. People, scripts and systemd call it.
package main

import (
	"os"

	"llmos/agent/device"
	"llmos/agent/exec"
	"llmos/agent/mpi"
)

// version is set by the linker; see the Makefile.
var version string

func main() {
	// The hidden verbs run beside every task and every driver call: they start before
	// anything else is built.
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "shim":
			os.Exit(exec.ShimMain(os.Args[2:]))
		case "nvml-probe":
			os.Exit(device.NVMLMain(os.Stdin, os.Stdout))
		case mpi.TaskVerb, mpi.AgentVerb, mpi.RankVerb:
			os.Exit(mpi.Main(os.Args[1], os.Args[2:]))
		}
	}
	ctx, stop := interruptible()
	code := newApp().run(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}
