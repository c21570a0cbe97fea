package cluster

import (
	"context"
	"fmt"
	"net"
	"sync"

	"llmos/transport"
)

// Switchboard is the network between the servers of a cluster, by the addresses they serve
// on. A server that is cut off reaches nobody and nobody reaches it: connections between it
// and the others end, new ones are refused and packets vanish. Clients and agents do not
// pass through it, so they still reach a server that is cut off.
type Switchboard struct {
	mu    sync.Mutex
	cut   map[string]bool
	conns map[*line]struct{}
}

func newSwitchboard() *Switchboard {
	return &Switchboard{cut: map[string]bool{}, conns: map[*line]struct{}{}}
}

// Cut cuts the server at the address off from the others.
func (b *Switchboard) Cut(addr string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.cut[addr] = true
	for l := range b.conns {
		if l.from == addr || l.to == addr {
			_ = l.Conn.Close()
		}
	}
}

// Mend connects the server at the address again.
func (b *Switchboard) Mend(addr string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.cut, addr)
}

// IsCut says whether the server at the address is cut off.
func (b *Switchboard) IsCut(addr string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.cut[addr]
}

// open says whether one address reaches another; the caller holds mu.
func (b *Switchboard) open(from, to string) bool { return from == to || !b.cut[from] && !b.cut[to] }

// socket is the network as the server at one address sees it.
type socket struct {
	board *Switchboard
	addr  string
}

var _ transport.Network = socket{}

// DialContext connects to another server unless one of the two is cut off.
func (s socket) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	var d net.Dialer
	raw, err := d.DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	s.board.mu.Lock()
	defer s.board.mu.Unlock()
	if !s.board.open(s.addr, addr) {
		_ = raw.Close()
		return nil, fmt.Errorf("dial %s: it is cut off from %s", addr, s.addr)
	}
	l := &line{Conn: raw, board: s.board, from: s.addr, to: addr}
	s.board.conns[l] = struct{}{}
	return l, nil
}

// Packets gives the socket with a filter on what it sends.
func (s socket) Packets(udp net.PacketConn) net.PacketConn {
	return &packets{PacketConn: udp, socket: s}
}

// line is a connection between two servers.
type line struct {
	net.Conn
	board    *Switchboard
	from, to string
}

// Close closes the connection.
func (l *line) Close() error {
	l.board.mu.Lock()
	delete(l.board.conns, l)
	l.board.mu.Unlock()
	return l.Conn.Close()
}

type packets struct {
	net.PacketConn
	socket socket
}

// WriteTo sends a packet, or loses it.
func (p *packets) WriteTo(b []byte, to net.Addr) (int, error) {
	board := p.socket.board
	board.mu.Lock()
	open := board.open(p.socket.addr, to.String())
	board.mu.Unlock()
	if !open {
		return len(b), nil
	}
	return p.PacketConn.WriteTo(b, to)
}
