package server

import (
	"errors"
	"sync"

	"google.golang.org/grpc"

	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
	"llmos/transport"
)

// connsMax bounds the connections kept to other members; the one used longest ago is closed first.
const connsMax = 1024

// conns keeps one gRPC connection to each member that this server calls.
type conns struct {
	creds *transport.Credentials

	mu     sync.Mutex
	open   map[connKey]*conn
	uses   uint64
	closed bool
}

type connKey struct {
	addr, id string
	role     pb.MemberRole
}

type conn struct {
	*grpc.ClientConn
	used uint64
}

func newConns(creds *transport.Credentials) *conns {
	return &conns{creds: creds, open: map[connKey]*conn{}}
}

// server gives a connection to the server with that ID, and to no other at that address.
func (c *conns) server(addr, id string) (*grpc.ClientConn, error) {
	return c.get(connKey{addr: addr, id: id, role: pb.MemberRole_MEMBER_ROLE_SERVER})
}

// agent gives a connection to the agent at addr.
func (c *conns) agent(addr string) (*grpc.ClientConn, error) {
	return c.get(connKey{addr: addr, role: pb.MemberRole_MEMBER_ROLE_AGENT})
}

func (c *conns) get(key connKey) (*grpc.ClientConn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, stoppingFault()
	}
	c.uses++
	if have, ok := c.open[key]; ok {
		have.used = c.uses
		return have.ClientConn, nil
	}
	if len(c.open) >= connsMax {
		c.evict()
	}
	cc, err := transport.NewMemberClient(key.addr, c.creds, key.role, key.id)
	if err != nil {
		return nil, fault.New(pb.ErrorKind_ERROR_KIND_UNAVAILABLE, "connect to %s: %w", key.addr, err)
	}
	c.open[key] = &conn{ClientConn: cc, used: c.uses}
	return cc, nil
}

func (c *conns) evict() {
	var oldest connKey
	least := ^uint64(0)
	for key, have := range c.open {
		if have.used < least {
			oldest, least = key, have.used
		}
	}
	_ = c.open[oldest].Close()
	delete(c.open, oldest)
}

// Close closes every connection.
func (c *conns) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	var errs []error
	for key, have := range c.open {
		errs = append(errs, have.Close())
		delete(c.open, key)
	}
	return errors.Join(errs...)
}
