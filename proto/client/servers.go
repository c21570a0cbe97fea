package client

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"

	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
)

// server is one address and its connection, made at first use.
type server struct {
	addr string
	conn *grpc.ClientConn
}

// addServer remembers an address once. The caller holds mu, or is New.
func (c *Client) addServer(addr string) *server {
	for _, s := range c.servers {
		if s.addr == addr {
			return s
		}
	}
	if addr == "" || len(c.servers) >= maxServers {
		return nil
	}
	s := &server{addr: addr}
	c.servers = append(c.servers, s)
	return s
}

// Servers gives the addresses known, the one that answered last first.
func (c *Client) Servers() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	addrs := make([]string, 0, len(c.servers))
	for _, s := range c.servers {
		addrs = append(addrs, s.addr)
	}
	return addrs
}

// Close closes every connection. Calls in flight fail.
func (c *Client) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	for _, s := range c.servers {
		if s.conn != nil {
			s.conn.Close() // the only error is that it was closed already
			s.conn = nil
		}
	}
	return nil
}

// prefer moves a server to the front or to the back of the order.
func (c *Client) prefer(s *server, first bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	i := slices.Index(c.servers, s)
	if i < 0 || first && i == 0 {
		return
	}
	c.servers = slices.Delete(c.servers, i, i+1)
	if first {
		c.servers = slices.Insert(c.servers, 0, s)
	} else {
		c.servers = append(c.servers, s)
	}
}

// learn finds or adds the server of a leader's address; nil when it says nothing new.
func (c *Client) learn(addr string) *server {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.addServer(addr)
}

// snapshot gives the servers in the order to try them in.
func (c *Client) snapshot() []*server {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.servers)
}

// connOf gives the server's connection, dialling it at the first call and after it has
// failed: gRPC paces its own tries, which would keep a server that has come back unused,
// and does not say when the next one has failed. The client's backoff paces them instead.
func (c *Client) connOf(s *server) (*grpc.ClientConn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, fault.New(pb.ErrorKind_ERROR_KIND_INVALID, "this client has been closed")
	}
	if s.conn != nil && s.conn.GetState() == connectivity.TransientFailure {
		s.conn.Close() // no call is in flight on it
		s.conn = nil
	}
	if s.conn == nil {
		conn, err := c.dial(s.addr)
		if err != nil {
			return nil, fault.New(pb.ErrorKind_ERROR_KIND_INVALID, "server address %q cannot be used: %w", s.addr, err)
		}
		s.conn = conn
	}
	return s.conn, nil
}

// reach gives a connection to the server that is ready for calls, or says why there is
// none; an error here means that nothing was sent.
func (c *Client) reach(ctx context.Context, s *server) (*grpc.ClientConn, error) {
	ctx, cancel := context.WithTimeout(ctx, c.tune.connect)
	defer cancel()
	for {
		conn, err := c.connOf(s)
		if err != nil {
			return nil, err
		}
		for state := conn.GetState(); state != connectivity.Shutdown; state = conn.GetState() {
			switch state {
			case connectivity.Ready:
				return conn, nil
			case connectivity.TransientFailure:
				return nil, refusal(ctx, s.addr, conn)
			case connectivity.Idle:
				conn.Connect()
			}
			if !conn.WaitForStateChange(ctx, state) {
				return nil, unreachable(s.addr, fmt.Errorf("no connection within %v", c.tune.connect))
			}
		}
		if ctx.Err() != nil { // another call has replaced the connection, again and again
			return nil, unreachable(s.addr, ctx.Err())
		}
	}
}

// refusal finds out why a connection could not be made: gRPC tells that only to a call.
func refusal(ctx context.Context, addr string, conn *grpc.ClientConn) error {
	_, err := pb.NewClusterServiceClient(conn).GetStatus(ctx, &pb.GetStatusRequest{Local: true})
	if err == nil {
		err = fmt.Errorf("its connection broke and came back")
	}
	return unreachable(addr, err)
}

func unreachable(addr string, err error) error {
	reason := fault.From(err).Fault.Message
	if i := strings.LastIndex(reason, "desc = "); i >= 0 {
		reason = strings.Trim(reason[i+len("desc = "):], `"`)
	}
	kind := pb.ErrorKind_ERROR_KIND_UNAVAILABLE
	if certificateTrouble(reason) {
		kind = pb.ErrorKind_ERROR_KIND_DENIED
	}
	return fault.New(kind, "server %s cannot be reached: %s", addr, reason)
}

// certificateTrouble tells a handshake that was refused, which no retry mends, from one
// that was cut off.
func certificateTrouble(reason string) bool {
	if strings.Contains(reason, "remote error: tls") {
		return true
	}
	if !strings.Contains(reason, "handshake") {
		return false
	}
	for _, cut := range []string{"EOF", "reset", "broken pipe", "timeout", "deadline", "canceled", "closed"} {
		if strings.Contains(reason, cut) {
			return false
		}
	}
	return true
}
