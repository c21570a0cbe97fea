package device

import (
	"fmt"
	"io"
	"os"
	"testing"
	"time"
)

// childModeVar makes the test program play an NVML child. Its value says which kind.
const childModeVar = "LLMOS_DEVICE_TEST_CHILD"

// flagVar names a file whose presence changes what some of the children do.
const flagVar = "LLMOS_DEVICE_TEST_FLAG"

func TestMain(m *testing.M) {
	if mode := os.Getenv(childModeVar); mode != "" {
		os.Exit(playChild(mode))
	}
	os.Exit(m.Run())
}

func flagSet() bool {
	_, err := os.Stat(os.Getenv(flagVar))
	return err == nil
}

func playChild(mode string) int {
	one := answer{Driver: "550.1", Devices: []childDevice{{UUID: "GPU-1", Name: "NVIDIA H100 80GB HBM3", MemoryBytes: 80 << 30, NUMANode: -1, Minor: -1}}}
	switch mode {
	case "sim":
		return playSimulation()
	case "used":
		return serveChild(os.Stdin, os.Stdout, func(q question) answer {
			switch {
			case !q.Use:
				return one
			case flagSet():
				return answer{Error: "the driver is busy"}
			}
			return answer{Uses: []childUse{{UUID: "GPU-1", PID: 42, Bytes: 5 << 30}}, Figures: []childFigure{{UUID: "GPU-1", Percent: 70}}}
		})
	case "used-nonsense":
		return serveChild(os.Stdin, os.Stdout, func(q question) answer {
			if !q.Use {
				return one
			}
			return answer{Uses: []childUse{{UUID: "GPU-1", PID: 42}, {UUID: "GPU-1", PID: 42}}}
		})
	case "used-hang":
		return serveChild(os.Stdin, os.Stdout, func(q question) answer {
			if q.Use {
				time.Sleep(time.Hour)
			}
			return one
		})
	case "good":
		return serveChild(os.Stdin, os.Stdout, func(question) answer { return one })
	case "late": // no driver until the file is there
		return serveChild(os.Stdin, os.Stdout, func(question) answer {
			if flagSet() {
				return one
			}
			return answer{Absent: true}
		})
	case "crash": // as the loader does when a symbol is missing, while the file is there
		return serveChild(os.Stdin, os.Stdout, func(question) answer {
			if flagSet() {
				fmt.Fprintln(os.Stderr, "llmos: symbol lookup error: undefined symbol: nvmlDeviceGetCount_v2")
				os.Exit(127)
			}
			return one
		})
	case "hang": // while the file is there
		return serveChild(os.Stdin, os.Stdout, func(question) answer {
			if flagSet() {
				time.Sleep(time.Hour)
			}
			return one
		})
	case "error":
		return serveChild(os.Stdin, os.Stdout, func(question) answer {
			if flagSet() {
				return answer{Error: "count the devices: Unknown Error"}
			}
			return one
		})
	case "garbage":
		fmt.Print("Failed to initialise, please see the manual. ")
		io.Copy(io.Discard, os.Stdin)
		return 0
	case "twice": // the same device two times
		return serveChild(os.Stdin, os.Stdout, func(question) answer {
			return answer{Devices: append(one.Devices, one.Devices...)}
		})
	}
	fmt.Fprintf(os.Stderr, "no child %q\n", mode)
	return 99
}
