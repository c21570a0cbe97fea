package client

import (
	"errors"
	"testing"
	"time"

	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
)

// TestEveryMethodHasAPolicy walks the service's descriptor.
func TestEveryMethodHasAPolicy(t *testing.T) {
	for _, m := range pb.ClusterService_ServiceDesc.Methods {
		if _, ok := policies["/"+pb.ClusterService_ServiceDesc.ServiceName+"/"+m.MethodName]; !ok {
			t.Errorf("%s has no policy", m.MethodName)
		}
	}
	for _, m := range pb.ClusterService_ServiceDesc.Streams {
		if _, ok := policies["/"+pb.ClusterService_ServiceDesc.ServiceName+"/"+m.StreamName]; !ok {
			t.Errorf("%s has no policy", m.StreamName)
		}
	}
	for method, p := range policies {
		if !p.write && !p.again {
			t.Errorf("%s is a read and may be repeated", method)
		}
	}
}

func TestBackoffIsBounded(t *testing.T) {
	for _, jitter := range []float64{0, 0.999} {
		tune := tuning{jitter: func() float64 { return jitter }}
		last := time.Duration(0)
		for n := 1; n < 100; n++ {
			d := tune.backoff(n)
			if d < last || d > backoffMost || d < backoffFirst/2 {
				t.Fatalf("backoff %d is %v after %v", n, d, last)
			}
			last = d
		}
	}
}

func TestCertificateTrouble(t *testing.T) {
	for reason, want := range map[string]pb.ErrorKind{
		`connection error: desc = "transport: Error while dialing: dial tcp 127.0.0.1:1: connect: connection refused"`:                              pb.ErrorKind_ERROR_KIND_UNAVAILABLE,
		`connection error: desc = "transport: authentication handshake failed: x509: signed by unknown authority"`:                                  pb.ErrorKind_ERROR_KIND_DENIED,
		`connection error: desc = "transport: authentication handshake failed: EOF"`:                                                                pb.ErrorKind_ERROR_KIND_UNAVAILABLE,
		`connection error: desc = "error reading server preface: remote error: tls: bad certificate"`:                                               pb.ErrorKind_ERROR_KIND_DENIED,
		`connection error: desc = "transport: authentication handshake failed: read tcp 10.0.0.1:1: connection reset by peer"`:                      pb.ErrorKind_ERROR_KIND_UNAVAILABLE,
		`connection error: desc = "transport: Error while dialing: handshake with a:1: the peer is server s-1 of cluster c-1, this is cluster c-2"`: pb.ErrorKind_ERROR_KIND_DENIED,
	} {
		if got := fault.Kind(unreachable("a:1", errors.New(reason))); got != want {
			t.Errorf("%s: %v, want %v", reason, got, want)
		}
	}
}
