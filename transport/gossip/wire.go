package gossip

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"

	pb "llmos/proto/llmos/v1"
	"llmos/transport"
)

const (
	packetReadMax  = 64 << 10         // bytes of one received UDP packet
	readPauseMax   = time.Second      // pause after an error of the socket
	readPauseMin   = time.Millisecond // first such pause
	resolveTimeout = 2 * time.Second  // to look up a host name
)

// wire is memberlist's transport over a Port.
type wire struct {
	port      *transport.Port
	creds     *transport.Credentials
	advertise string
	log       *slog.Logger
	udp       net.PacketConn
	streams   net.Listener
	packets   chan *memberlist.Packet
	conns     chan net.Conn
	done      chan struct{}
	once      sync.Once
	readers   sync.WaitGroup
}

var _ memberlist.NodeAwareTransport = (*wire)(nil)

func newWire(port *transport.Port, creds *transport.Credentials, advertise string, log *slog.Logger) *wire {
	w := &wire{port: port, creds: creds, advertise: advertise, log: log, udp: port.PacketConn(),
		streams: port.Listener(transport.ProtoGossip), packets: make(chan *memberlist.Packet),
		conns: make(chan net.Conn), done: make(chan struct{})}
	_ = w.udp.SetReadDeadline(time.Time{}) // an earlier user of the socket may have left one
	w.readers.Add(2)
	go w.readPackets()
	go w.acceptStreams()
	return w
}

func (w *wire) readPackets() {
	defer w.readers.Done()
	buf := make([]byte, packetReadMax)
	pause := readPauseMin
	for {
		n, from, err := w.udp.ReadFrom(buf)
		now := time.Now()
		if err != nil {
			if w.ended(err) {
				return
			}
			w.log.Debug("gossip packet not read", "error", err)
			select {
			case <-w.done:
				return
			case <-time.After(pause):
			}
			pause = min(2*pause, readPauseMax)
			continue
		}
		pause = readPauseMin
		if n == 0 {
			continue
		}
		p := &memberlist.Packet{Buf: append([]byte(nil), buf[:n]...), From: from, Timestamp: now}
		select {
		case w.packets <- p:
		case <-w.done:
			return
		}
	}
}

func (w *wire) acceptStreams() {
	defer w.readers.Done()
	for {
		c, err := w.streams.Accept()
		if err != nil {
			return // the listener gives no error but its end
		}
		select {
		case w.conns <- c:
		case <-w.done:
			_ = c.Close()
			return
		}
	}
}

func (w *wire) ended(err error) bool {
	select {
	case <-w.done:
		return true
	default:
		return errors.Is(err, net.ErrClosed)
	}
}

// FinalAdvertiseAddr gives the IP address and port that others reach this port at.
func (w *wire) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	addr := w.port.Addr()
	host, port := w.advertise, addr.Port
	if h, p, err := net.SplitHostPort(w.advertise); err == nil {
		n, err := strconv.ParseUint(p, 10, 16)
		if err != nil {
			return nil, 0, fmt.Errorf("advertise %q: %w", w.advertise, err)
		}
		host = h
		if n != 0 {
			port = int(n)
		}
	}
	ip, err := advertiseIP(host, addr.IP)
	if err != nil {
		return nil, 0, err
	}
	if v4 := ip.To4(); v4 != nil {
		ip = v4
	}
	return ip, port, nil
}

func advertiseIP(host string, bound net.IP) (net.IP, error) {
	if host == "" {
		if !bound.IsUnspecified() {
			return bound, nil
		}
		return hostIP()
	}
	if ip := net.ParseIP(host); ip != nil {
		if ip.IsUnspecified() {
			return hostIP()
		}
		return ip, nil
	}
	ips, err := resolve(host)
	if err != nil {
		return nil, fmt.Errorf("advertise %q: %w", host, err)
	}
	return ips[0], nil
}

func resolve(host string) ([]net.IP, error) {
	ctx, cancel := context.WithTimeout(context.Background(), resolveTimeout)
	defer cancel()
	return net.DefaultResolver.LookupIP(ctx, "ip", host)
}

// lookup turns host:port into IP:port, one for each of the host's addresses.
func lookup(addr string) ([]string, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("address %q: %w", addr, err)
	}
	ips, err := resolve(host)
	if err != nil {
		return nil, fmt.Errorf("address %q: %w", addr, err)
	}
	out := make([]string, 0, len(ips))
	for _, ip := range ips {
		out = append(out, net.JoinHostPort(ip.String(), port))
	}
	return out, nil
}

// hostIP gives this host's first address that others may reach, or loopback when there is none.
func hostIP() (net.IP, error) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("find an address to advertise: %w", err)
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && n.IP.To4() != nil && n.IP.IsGlobalUnicast() {
			return n.IP, nil
		}
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && n.IP.IsGlobalUnicast() {
			return n.IP, nil
		}
	}
	return net.IPv4(127, 0, 0, 1), nil
}

// WriteTo sends one packet.
func (w *wire) WriteTo(b []byte, addr string) (time.Time, error) {
	return w.WriteToAddress(b, memberlist.Address{Addr: addr})
}

// WriteToAddress sends one packet.
func (w *wire) WriteToAddress(b []byte, addr memberlist.Address) (time.Time, error) {
	select {
	case <-w.done:
		return time.Time{}, net.ErrClosed
	default:
	}
	to, err := net.ResolveUDPAddr("udp", addr.Addr)
	if err != nil {
		return time.Time{}, fmt.Errorf("gossip to %s: %w", addr.Addr, err)
	}
	_, err = w.udp.WriteTo(b, to)
	return time.Now(), err
}

// DialTimeout opens a stream to a member.
func (w *wire) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	return w.DialAddressTimeout(memberlist.Address{Addr: addr}, timeout)
}

// DialAddressTimeout opens a stream and, when the member's ID is known, verifies it.
func (w *wire) DialAddressTimeout(addr memberlist.Address, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	go func() {
		select {
		case <-w.done:
			cancel()
		case <-ctx.Done():
		}
	}()
	return transport.DialMember(ctx, addr.Addr, transport.ProtoGossip, w.creds, pb.MemberRole_MEMBER_ROLE_UNSPECIFIED, addr.Name)
}

// PacketCh gives the received packets.
func (w *wire) PacketCh() <-chan *memberlist.Packet { return w.packets }

// StreamCh gives the accepted streams.
func (w *wire) StreamCh() <-chan net.Conn { return w.conns }

// Shutdown ends the readers and waits for them. The port and its socket stay open.
func (w *wire) Shutdown() error {
	w.once.Do(func() {
		close(w.done)
		_ = w.streams.Close()
		// The socket belongs to the port: a deadline in the past wakes the reader.
		if err := w.udp.SetReadDeadline(time.Unix(1, 0)); err != nil && !errors.Is(err, os.ErrClosed) && !errors.Is(err, net.ErrClosed) {
			w.log.Warn("gossip socket not stopped", "error", err)
		}
	})
	w.readers.Wait()
	return nil
}
