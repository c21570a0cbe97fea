package device

import (
	"errors"
	"fmt"
	"io"
	"os"
)

// serveChild is the child's loop: it answers questions until the agent closes the pipe. It
// returns the exit code of the process.
func serveChild(in io.Reader, out io.Writer, reply func(question) answer) int {
	for {
		var q question
		if err := readFrame(in, &q); err != nil {
			if errors.Is(err, io.EOF) {
				return 0
			}
			fmt.Fprintf(os.Stderr, "nvml-probe: read a question: %v\n", err)
			return 1
		}
		a := reply(q)
		a.ID = q.ID
		if err := writeFrame(out, a); err != nil {
			fmt.Fprintf(os.Stderr, "nvml-probe: write an answer: %v\n", err)
			return 1
		}
	}
}
