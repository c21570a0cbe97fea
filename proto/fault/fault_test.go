package fault_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
)

// TestEveryKindTravelsWhole sends a fault of each kind through a gRPC status and back.
func TestEveryKindTravelsWhole(t *testing.T) {
	for number, name := range pb.ErrorKind_name {
		kind := pb.ErrorKind(number)
		if kind == pb.ErrorKind_ERROR_KIND_UNSPECIFIED {
			continue
		}
		sent := fault.New(kind, "stop job %q", "x-3").Hint("ask %s", "again").At("roles[0].count", 7)
		sent.Fault.LeaderAddr = "10.0.0.1:7300"
		arrived := status.FromProto(sent.GRPCStatus().Proto()).Err()
		for _, got := range []*fault.Error{fault.From(arrived), fault.From(fmt.Errorf("call: %w", arrived)), fault.From(fault.Crossed(arrived, true))} {
			if !proto.Equal(got.Fault, sent.Fault) {
				t.Errorf("%s: arrived as %v, sent %v", name, got.Fault, sent.Fault)
			}
		}
		if status.Code(arrived) == codes.Unknown && kind != pb.ErrorKind_ERROR_KIND_UNKNOWN {
			t.Errorf("%s has no gRPC code", name)
		}
	}
}

func TestCrossed(t *testing.T) {
	lost := status.Error(codes.Unavailable, "transport is closing")
	for _, c := range []struct {
		err         error
		read, write pb.ErrorKind
	}{
		{nil, pb.ErrorKind_ERROR_KIND_UNSPECIFIED, pb.ErrorKind_ERROR_KIND_UNSPECIFIED},
		{lost, pb.ErrorKind_ERROR_KIND_UNAVAILABLE, pb.ErrorKind_ERROR_KIND_UNKNOWN},
		{status.Error(codes.Internal, "stream reset"), pb.ErrorKind_ERROR_KIND_UNAVAILABLE, pb.ErrorKind_ERROR_KIND_UNKNOWN},
		{status.Error(codes.Unauthenticated, "who"), pb.ErrorKind_ERROR_KIND_DENIED, pb.ErrorKind_ERROR_KIND_DENIED},
		{status.Error(codes.DeadlineExceeded, "late"), pb.ErrorKind_ERROR_KIND_TIMEOUT, pb.ErrorKind_ERROR_KIND_TIMEOUT},
		{status.Error(codes.ResourceExhausted, "too large"), pb.ErrorKind_ERROR_KIND_LIMIT, pb.ErrorKind_ERROR_KIND_LIMIT},
		{context.DeadlineExceeded, pb.ErrorKind_ERROR_KIND_TIMEOUT, pb.ErrorKind_ERROR_KIND_TIMEOUT},
		{fault.New(pb.ErrorKind_ERROR_KIND_UNAVAILABLE, "full"), pb.ErrorKind_ERROR_KIND_UNAVAILABLE, pb.ErrorKind_ERROR_KIND_UNAVAILABLE},
	} {
		if got := fault.Kind(fault.Crossed(c.err, false)); got != c.read {
			t.Errorf("read, %v: %v, want %v", c.err, got, c.read)
		}
		if got := fault.Kind(fault.Crossed(c.err, true)); got != c.write {
			t.Errorf("write, %v: %v, want %v", c.err, got, c.write)
		}
	}
}

func TestCausesAreKept(t *testing.T) {
	err := error(fault.New(pb.ErrorKind_ERROR_KIND_TIMEOUT, "wait for a leader: %w", context.DeadlineExceeded))
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Error("the cause of a fault is lost")
	}
	if got, want := fault.New(pb.ErrorKind_ERROR_KIND_INVALID, "is negative").Hint("use 1").At("gpus", 3).Error(),
		"line 3: gpus: is negative (hint: use 1)"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
