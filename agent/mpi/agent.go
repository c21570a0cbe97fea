package mpi

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"time"

	"llmos/transport/collective"
)

// runAgent stands in for ssh: it has a command line run in the task of another rank, stays
// until that has ended and gives its exit code.
func runAgent(host, command string) (int, error) {
	p, err := readPlace()
	if err != nil {
		return exitSetup, err
	}
	rank, err := rankOf(host, p.World)
	if err != nil {
		return exitSetup, err
	}
	conf, err := collective.TLS(p.Config)
	if err != nil {
		return exitSetup, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), dialWithin)
	defer cancel()
	conn, err := dial(ctx, conf, p.peers[rank])
	if err != nil {
		return exitSetup, fmt.Errorf("rank %d at %s cannot be told to start: %w", rank, p.peers[rank], err)
	}
	defer conn.Close()
	if err := json.NewEncoder(conn).Encode(order{Command: command}); err != nil {
		return exitSetup, fmt.Errorf("tell rank %d to start: %w", rank, err)
	}
	var a answer
	if err := json.NewDecoder(conn).Decode(&a); err != nil {
		return 1, fmt.Errorf("the task of rank %d has gone: %w", rank, err)
	}
	return a.Code, nil
}

// dial connects, again and again until ctx ends: the other task may not have started yet, or
// one of an attempt before this may still hold its port.
func dial(ctx context.Context, conf *tls.Config, addr string) (net.Conn, error) {
	var last error
	for {
		raw, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
		if err == nil {
			conn := tls.Client(raw, conf)
			within, cancel := context.WithTimeout(ctx, handshakeWithin)
			err = conn.HandshakeContext(within)
			cancel()
			if err == nil {
				return conn, nil
			}
			raw.Close()
		}
		if last == nil || ctx.Err() == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(last, ctx.Err())
		case <-time.After(dialRetry):
		}
	}
}
