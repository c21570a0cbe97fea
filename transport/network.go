package transport

import (
	"context"
	"net"
)

// Network stands between a process and the host's network. There is one implementation
// in the product, the host itself; tests put another in its place to cut processes of one
// test apart. It carries no trust: TLS is spoken above it.
type Network interface {
	// DialContext opens a TCP connection, as net.Dialer does.
	DialContext(ctx context.Context, network, addr string) (net.Conn, error)
	// Packets gives what gossip uses in place of the port's UDP socket.
	Packets(udp net.PacketConn) net.PacketConn
}

// host is the host's own network.
type host struct{ net.Dialer }

// Packets gives the socket itself.
func (*host) Packets(udp net.PacketConn) net.PacketConn { return udp }

// Over makes every later connection and port with these credentials use the network. It is
// called before the credentials are shared, if at all.
func (c *Credentials) Over(n Network) { c.network = n }
