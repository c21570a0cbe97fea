// Package fault is the one shape of an error that a person or a program may see: a kind
// from the table in types.proto, a sentence, a hint, and the field and line it is about.
// It maps kinds to gRPC codes and back, losing nothing on the way. It decides nothing
// about retries: proto/client does.
package fault

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "llmos/proto/llmos/v1"
)

// Error is a fault as a Go error. The zero value is not useful; see New.
type Error struct {
	Fault *pb.Fault
	cause error
}

// New makes a fault of the given kind; the format follows fmt.Errorf, and an operand of
// %w becomes its cause.
func New(kind pb.ErrorKind, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Fault: &pb.Fault{Kind: kind, Message: err.Error()}, cause: errors.Unwrap(err)}
}

// Of wraps a fault that arrived in a message; nil gives nil.
func Of(f *pb.Fault) error {
	if f == nil {
		return nil
	}
	return &Error{Fault: f}
}

// Hint adds what the reader should do about it and returns the same error.
func (e *Error) Hint(format string, args ...any) *Error {
	e.Fault.Hint = fmt.Sprintf(format, args...)
	return e
}

// At adds the field and the line (0: none) that the fault is about and returns the same error.
func (e *Error) At(field string, line int) *Error {
	e.Fault.Field, e.Fault.Line = field, int32(line)
	return e
}

// Error gives the sentence, with the line and field first and the hint last.
func (e *Error) Error() string {
	var b strings.Builder
	if e.Fault.Line > 0 {
		fmt.Fprintf(&b, "line %d: ", e.Fault.Line)
	}
	if e.Fault.Field != "" {
		fmt.Fprintf(&b, "%s: ", e.Fault.Field)
	}
	b.WriteString(e.Fault.Message)
	if e.Fault.Hint != "" {
		fmt.Fprintf(&b, " (hint: %s)", e.Fault.Hint)
	}
	return b.String()
}

// Unwrap gives the cause, for errors.Is.
func (e *Error) Unwrap() error { return e.cause }

// grpcCodes is the table of kinds and the gRPC codes they travel as.
var grpcCodes = map[pb.ErrorKind]codes.Code{
	pb.ErrorKind_ERROR_KIND_INVALID:     codes.InvalidArgument,
	pb.ErrorKind_ERROR_KIND_NOT_FOUND:   codes.NotFound,
	pb.ErrorKind_ERROR_KIND_CONFLICT:    codes.AlreadyExists,
	pb.ErrorKind_ERROR_KIND_STALE_EPOCH: codes.Aborted,
	pb.ErrorKind_ERROR_KIND_NO_CAPACITY: codes.OutOfRange,
	pb.ErrorKind_ERROR_KIND_DENIED:      codes.PermissionDenied,
	pb.ErrorKind_ERROR_KIND_NOT_LEADER:  codes.FailedPrecondition,
	pb.ErrorKind_ERROR_KIND_UNAVAILABLE: codes.Unavailable,
	pb.ErrorKind_ERROR_KIND_UNKNOWN:     codes.Unknown,
	pb.ErrorKind_ERROR_KIND_TIMEOUT:     codes.DeadlineExceeded,
	pb.ErrorKind_ERROR_KIND_LIMIT:       codes.ResourceExhausted,
	pb.ErrorKind_ERROR_KIND_INTERNAL:    codes.Internal,
}

// GRPCStatus lets grpc send the fault: the code from the table, the fault as a detail.
func (e *Error) GRPCStatus() *status.Status {
	code, ok := grpcCodes[e.Fault.Kind]
	if !ok {
		code = codes.Internal
	}
	s := status.New(code, e.Error())
	if detailed, err := s.WithDetails(e.Fault); err == nil {
		return detailed
	}
	return s
}

// From turns any error into a fault: one that is a fault already, one that crossed gRPC,
// a context's end, or else INTERNAL. nil gives nil.
func From(err error) *Error {
	if err == nil {
		return nil
	}
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	if s, ok := status.FromError(err); ok {
		return fromStatus(s, err)
	}
	kind := pb.ErrorKind_ERROR_KIND_INTERNAL
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		kind = pb.ErrorKind_ERROR_KIND_TIMEOUT
	}
	return &Error{Fault: &pb.Fault{Kind: kind, Message: err.Error()}, cause: err}
}

func fromStatus(s *status.Status, err error) *Error {
	for _, d := range s.Details() {
		if f, ok := d.(*pb.Fault); ok {
			return &Error{Fault: f, cause: err}
		}
	}
	kind := pb.ErrorKind_ERROR_KIND_INTERNAL
	for k, c := range grpcCodes {
		if c == s.Code() {
			kind = k
		}
	}
	if s.Code() == codes.Canceled {
		kind = pb.ErrorKind_ERROR_KIND_TIMEOUT
	}
	return &Error{Fault: &pb.Fault{Kind: kind, Message: s.Message()}, cause: err}
}

// Kind gives the kind of any error; UNSPECIFIED for nil.
func Kind(err error) pb.ErrorKind {
	if err == nil {
		return pb.ErrorKind_ERROR_KIND_UNSPECIFIED
	}
	return From(err).Fault.Kind
}

// Crossed turns the error of a call that crossed the network into a fault. One that the
// other side sent is taken whole. When the connection itself failed, nobody knows whether
// a write was applied: it is UNKNOWN; a read is UNAVAILABLE. nil gives nil.
func Crossed(err error, write bool) error {
	if err == nil {
		return nil
	}
	f := From(err)
	if !bare(err) {
		return f
	}
	switch status.Code(err) {
	case codes.Unauthenticated:
		f.Fault.Kind = pb.ErrorKind_ERROR_KIND_DENIED
	case codes.Unavailable, codes.Unknown, codes.Internal, codes.Aborted:
		f.Fault.Kind = pb.ErrorKind_ERROR_KIND_UNAVAILABLE
		if write {
			f.Fault.Kind = pb.ErrorKind_ERROR_KIND_UNKNOWN
		}
	}
	return f
}

// bare says whether err is a gRPC status that no side of ours made.
func bare(err error) bool {
	var e *Error
	if errors.As(err, &e) {
		return false
	}
	s, ok := status.FromError(err)
	if !ok {
		return false
	}
	for _, d := range s.Details() {
		if _, ok := d.(*pb.Fault); ok {
			return false
		}
	}
	return true
}
