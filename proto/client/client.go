// Package client speaks the public API: it finds a live server among many, follows the
// leader's address where one is given, and retries what is idempotent until the caller's
// context ends. It is handed its connections, so it imports the proto room alone.
//
// It does not hold credentials, choose timeouts for its callers, or print. The command
// line, tests and benchmarks call it.
package client

import (
	"sync"

	"google.golang.org/grpc"

	pb "llmos/proto/llmos/v1"
)

// Client makes calls to whichever server answers. It is safe for concurrent use. Errors
// are *fault.Error.
type Client struct {
	pb.ClusterServiceClient // each call goes through Invoke: retried when it is idempotent

	dial    func(addr string) (*grpc.ClientConn, error)
	tune    tuning
	mu      sync.Mutex
	servers []*server // in the order in which they are tried
	closed  bool
}

// New makes a client of the cluster's servers (host:port). dial makes a connection and
// must not wait for it; it is called at most once for each address at a time. Nothing is
// dialled before the first call.
func New(servers []string, dial func(addr string) (*grpc.ClientConn, error), opts ...Option) *Client {
	c := &Client{dial: dial, tune: defaultTuning()}
	for _, addr := range servers {
		c.addServer(addr)
	}
	for _, opt := range opts {
		opt(&c.tune)
	}
	c.ClusterServiceClient = pb.NewClusterServiceClient(c)
	return c
}
