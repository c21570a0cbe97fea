package jobspec

import (
	"fmt"
	"strings"

	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
)

// Faults are all faults of a job file or a spec, in the order of the lines or the fields.
// Every one has the kind INVALID.
type Faults []*fault.Error

// Error gives one line a fault.
func (f Faults) Error() string {
	lines := make([]string, len(f))
	for i, e := range f {
		lines[i] = e.Error()
	}
	return strings.Join(lines, "\n")
}

// As lets errors.As, and with it fault.From, see all faults as one: the single one, or one
// that names them all and points at the first.
func (f Faults) As(target any) bool {
	out, ok := target.(**fault.Error)
	if !ok || len(f) == 0 {
		return false
	}
	if len(f) == 1 {
		*out = f[0]
		return true
	}
	sentences := make([]string, len(f))
	for i, e := range f {
		sentences[i] = e.Fault.Message
		if i > 0 && e.Fault.Field != "" {
			sentences[i] = e.Fault.Field + ": " + sentences[i]
		}
	}
	all := fault.New(pb.ErrorKind_ERROR_KIND_INVALID, "%s", strings.Join(sentences, "; "))
	all.Fault.Field, all.Fault.Line, all.Fault.Hint = f[0].Fault.Field, f[0].Fault.Line, f[0].Fault.Hint
	*out = all
	return true
}

// err gives the faults as an error, nil when there are none, and bounds their number.
func (f Faults) err() error {
	if len(f) == 0 {
		return nil
	}
	if len(f) > faultsMax {
		rest := fault.New(pb.ErrorKind_ERROR_KIND_INVALID, "%d more faults are not shown", len(f)-faultsMax)
		return append(f[:faultsMax:faultsMax], rest)
	}
	return f
}

func invalid(format string, args ...any) *fault.Error {
	return fault.New(pb.ErrorKind_ERROR_KIND_INVALID, format, args...)
}

// quoted shows a value that a user wrote, shortened.
func quoted(text string) string {
	if len(text) > quotedBytesMax {
		return fmt.Sprintf("%q (%d bytes)", text[:quotedBytesMax]+"...", len(text))
	}
	return fmt.Sprintf("%q", text)
}
