package state

import (
	"fmt"

	pb "llmos/proto/llmos/v1"
)

// Refuse makes the fault of a refused command; the format follows fmt.Sprintf. A hint of ""
// leaves the reader with the sentence alone.
func Refuse(kind pb.ErrorKind, hint, format string, args ...any) *pb.Fault {
	return &pb.Fault{Kind: kind, Message: fmt.Sprintf(format, args...), Hint: hint}
}

// defect is the fault of a change that only a defect of llmos can ask for.
func defect(format string, args ...any) *pb.Fault {
	return Refuse(pb.ErrorKind_ERROR_KIND_INTERNAL, "report this; nothing was changed", format, args...)
}
