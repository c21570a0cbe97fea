// Package transport is how llmos processes reach each other: one TCP port per process,
// TLS 1.3 on every connection, routed by ALPN to gRPC (h2), Raft and gossip, with a UDP
// socket on the same number for gossip packets. It also holds what trust rests on: the
// identity in a certificate, the credentials of a process, the join token, joining and
// renewal, and the gRPC settings that both ends must share.
//
// A peer is known by the cluster's certificate authority and the spiffe URI in its
// certificate (cluster, role, member ID), never by the name or address it was dialled at:
// addresses change. A client without a certificate is admitted on h2 alone, in small
// numbers and for a short time, so that it can join; which methods it may then call is
// decided in server/api.
//
// The package does not decide who may call which method, issues no certificates
// (server/ca does), speaks neither Raft nor the gossip protocol and carries no bulk data.
// Servers, agents and the command line call it.
package transport

import "time"

// The protocols that share a port, as ALPN names.
const (
	ProtoGRPC   = "h2"
	ProtoRaft   = "llmos-raft/1"
	ProtoGossip = "llmos-gossip/1"
)

// Limits of a port. All but connectionsMax hold before anything is known about the peer.
const (
	handshakeTimeout        = 5 * time.Second        // for one TLS handshake, either end
	handshakesMax           = 256                    // handshakes in progress on one port
	handshakesPerAddressMax = 128                    // of them, from one remote IP address
	acceptQueueMax          = 256                    // connections that wait for one protocol's Accept
	connectionsMax          = 16384                  // open connections of one port
	anonymousMax            = 64                     // open connections without a certificate
	anonymousLife           = 30 * time.Second       // after which such a connection is closed
	anonymousBytesMax       = 256 << 10              // bytes read from such a connection
	lingerTime              = 500 * time.Millisecond // for a refused client to read why
	lingerBytesMax          = 64 << 10
	acceptDelayMin          = 5 * time.Millisecond
	acceptDelayMax          = time.Second // pause after accept errors, such as too many open files
	bindAttempts            = 20          // tries to find a number that is free for TCP and UDP
	udpBufferBytes          = 2 << 20     // asked of the kernel for the UDP socket
)
