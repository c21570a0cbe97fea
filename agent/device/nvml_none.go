//go:build !(cgo && linux)

package device

import "io"

// NVMLMain is the body of the hidden verb nvml-probe in a program that was built without
// cgo: it answers that there is no driver. It returns the process's exit code.
func NVMLMain(in io.Reader, out io.Writer) int {
	return serveChild(in, out, func(question) answer { return answer{Absent: true} })
}
