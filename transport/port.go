package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sort"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
)

// Port is a process's one TCP port, routed by ALPN, and a UDP socket on the same number.
// Only protocols with a Listener are offered to clients.
type Port struct {
	log   *slog.Logger
	creds *Credentials
	tcp   *net.TCPListener
	udp   *net.UDPConn

	accept  func() (*net.TCPConn, error) // tcp's, but for tests of its failures
	closed  chan struct{}
	serving sync.WaitGroup // handshakes in progress
	config  atomic.Pointer[tls.Config]
	refused refusals

	mu         sync.Mutex
	listeners  map[string]*listener
	conns      map[net.Conn]struct{} // open, raw: in handshake or handed out
	anonymous  int
	handshakes int
	byAddress  map[string]int // handshakes in progress by remote IP
}

// Listen binds addr (host:port) for TCP and UDP; port 0 picks a number that is free for
// both. Connections are accepted once Serve runs. A failure to bind is a fault.
func Listen(addr string, creds *Credentials, log *slog.Logger) (*Port, error) {
	tcp, udp, err := bind(addr)
	if err != nil {
		return nil, err
	}
	// The kernel may grant less; bursts then cost packets, which gossip tolerates.
	_ = udp.SetReadBuffer(udpBufferBytes)
	p := &Port{log: log, creds: creds, tcp: tcp, udp: udp, accept: tcp.AcceptTCP, closed: make(chan struct{}),
		listeners: map[string]*listener{}, conns: map[net.Conn]struct{}{}, byAddress: map[string]int{}}
	p.offer()
	return p, nil
}

// Probe tells, with the same fault, whether Listen could bind addr now. It is for those who
// must not begin what a taken port would leave half done, such as using up a join token.
func Probe(addr string) error {
	tcp, udp, err := bind(addr)
	if err != nil {
		return err
	}
	return errors.Join(tcp.Close(), udp.Close())
}

func bind(addr string) (*net.TCPListener, *net.UDPConn, error) {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, nil, fault.New(pb.ErrorKind_ERROR_KIND_INVALID, "listen on %q: %w", addr, err).
			Hint("give host:port, such as 0.0.0.0:7300")
	}
	var last error
	for range bindAttempts {
		tcp, udp, err := bindBoth(addr)
		if err == nil {
			return tcp, udp, nil
		}
		last = err
		if port != "0" && port != "" {
			break
		}
	}
	if errors.Is(last, syscall.EADDRINUSE) {
		return nil, nil, fault.New(pb.ErrorKind_ERROR_KIND_CONFLICT, "listen on %s: %w", addr, last).
			Hint("another program uses the port; stop it or choose another one")
	}
	return nil, nil, fault.New(pb.ErrorKind_ERROR_KIND_INVALID, "listen on %s: %w", addr, last).
		Hint("give an address of this host and a port that it may use")
}

func bindBoth(addr string) (*net.TCPListener, *net.UDPConn, error) {
	ta, err := net.ResolveTCPAddr("tcp", addr)
	if err != nil {
		return nil, nil, err
	}
	tcp, err := net.ListenTCP("tcp", ta)
	if err != nil {
		return nil, nil, err
	}
	udp, err := net.ListenUDP("udp", &net.UDPAddr{IP: ta.IP, Zone: ta.Zone, Port: tcp.Addr().(*net.TCPAddr).Port})
	if err != nil {
		_ = tcp.Close()
		return nil, nil, err
	}
	return tcp, udp, nil
}

// Addr gives the bound address, with the number that was picked.
func (p *Port) Addr() *net.TCPAddr { return p.tcp.Addr().(*net.TCPAddr) }

// PacketConn gives the UDP socket. It has one user, gossip; Close of the port closes it.
func (p *Port) PacketConn() net.PacketConn { return p.creds.network.Packets(p.udp) }

// Listener gives the listener of one protocol, made at the first call. Its connections
// are *Conn, verified. Closing it stops the protocol alone; a later call makes a new one.
func (p *Port) Listener(alpn string) net.Listener {
	p.mu.Lock()
	defer p.mu.Unlock()
	if l, ok := p.listeners[alpn]; ok {
		return l
	}
	l := &listener{port: p, alpn: alpn, queue: make(chan *Conn, acceptQueueMax), done: make(chan struct{})}
	select {
	case <-p.closed:
		l.stop()
	default:
		p.listeners[alpn] = l
		p.offer()
	}
	return l
}

// offer rebuilds what new handshakes are offered; the caller holds mu, or nobody else has p.
func (p *Port) offer() {
	protos := make([]string, 0, len(p.listeners))
	for alpn := range p.listeners {
		protos = append(protos, alpn)
	}
	sort.Strings(protos)
	p.config.Store(serverConfig(p.creds, protos))
}

// Serve accepts connections until Close, and then returns nil. Errors of accept, such as
// too many open files, are logged and waited out.
func (p *Port) Serve() error {
	delay := acceptDelayMin
	for {
		raw, err := p.accept()
		if err == nil {
			delay = acceptDelayMin
			p.admit(raw)
			continue
		}
		select {
		case <-p.closed:
			return nil
		default:
		}
		if errors.Is(err, net.ErrClosed) {
			return fmt.Errorf("accept on %s: %w", p.tcp.Addr(), err)
		}
		p.log.Warn("accept failed; trying again", "error", err, "wait", delay)
		select {
		case <-p.closed:
			return nil
		case <-time.After(delay):
		}
		delay = min(2*delay, acceptDelayMax)
	}
}

// admit starts the handshake of a connection, or closes it when there are too many.
func (p *Port) admit(raw *net.TCPConn) {
	from := remoteIP(raw)
	p.mu.Lock()
	reason := ""
	select {
	case <-p.closed:
		reason = "the port is closed"
	default:
		switch {
		case p.handshakes >= handshakesMax:
			reason = "too many handshakes in progress"
		case p.byAddress[from] >= handshakesPerAddressMax:
			reason = "too many handshakes in progress from this address"
		case len(p.conns) >= connectionsMax:
			reason = "too many open connections"
		}
	}
	if reason != "" {
		p.mu.Unlock()
		_ = raw.Close()
		p.refuse(raw, errors.New(reason))
		return
	}
	p.handshakes++
	p.byAddress[from]++
	p.conns[raw] = struct{}{}
	p.serving.Add(1)
	p.mu.Unlock()
	go p.handshake(raw, from)
}

func (p *Port) handshake(raw *net.TCPConn, from string) {
	defer p.serving.Done()
	defer func() {
		p.mu.Lock()
		p.handshakes--
		if p.byAddress[from]--; p.byAddress[from] == 0 {
			delete(p.byAddress, from)
		}
		p.mu.Unlock()
	}()
	ctx, cancel := context.WithTimeout(context.Background(), handshakeTimeout)
	defer cancel()
	conn := tls.Server(raw, p.config.Load())
	if err := conn.HandshakeContext(ctx); err != nil {
		linger(raw, err)
		_ = raw.Close()
		p.forget(raw)
		p.refuse(raw, err)
		return
	}
	c := newConn(conn)
	c.onClose = func() { p.forget(raw) }
	if err := p.route(c, raw); err != nil {
		_ = c.Close()
		p.refuse(raw, err)
	}
}

// linger lets the alert that says why a handshake failed reach the client: closing a
// socket with unread data resets the connection and takes the alert with it.
func linger(raw *net.TCPConn, err error) {
	if hungUp(err) || errors.Is(err, context.DeadlineExceeded) {
		return
	}
	_ = raw.CloseWrite()
	_ = raw.SetReadDeadline(time.Now().Add(lingerTime))
	_, _ = io.CopyN(io.Discard, raw, lingerBytesMax)
}

// route hands a connection to the listener of its protocol; on an error the caller closes it.
func (p *Port) route(c *Conn, raw net.Conn) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	alpn := c.ConnectionState().NegotiatedProtocol
	l, ok := p.listeners[alpn]
	if !ok {
		return fmt.Errorf("%s is not served here", alpn)
	}
	if !c.known {
		if p.anonymous >= anonymousMax {
			return fmt.Errorf("%d connections without a certificate are open", p.anonymous)
		}
		p.limitAnonymous(c, raw)
	}
	select {
	case l.queue <- c:
		return nil
	default:
		return fmt.Errorf("%d connections for %s wait to be accepted", acceptQueueMax, alpn)
	}
}

// limitAnonymous bounds what a peer without a certificate may use; the caller holds mu.
func (p *Port) limitAnonymous(c *Conn, raw net.Conn) {
	p.anonymous++
	c.budget = anonymousBytesMax
	timer := time.AfterFunc(anonymousLife, func() { _ = raw.Close() })
	var once sync.Once
	c.onClose = func() {
		once.Do(func() {
			timer.Stop()
			p.forget(raw)
			p.mu.Lock()
			p.anonymous--
			p.mu.Unlock()
		})
	}
}

func (p *Port) forget(raw net.Conn) {
	p.mu.Lock()
	delete(p.conns, raw)
	p.mu.Unlock()
}

// Close stops Serve, closes every listener, every connection that came through the port
// and the UDP socket, and waits for handshakes to end. It is safe to call again.
func (p *Port) Close() error {
	p.mu.Lock()
	select {
	case <-p.closed:
		p.mu.Unlock()
		p.serving.Wait()
		return nil
	default:
	}
	close(p.closed)
	err := errors.Join(p.tcp.Close(), p.udp.Close())
	for _, l := range p.listeners {
		l.stop()
	}
	for raw := range p.conns {
		_ = raw.Close()
	}
	clear(p.listeners)
	p.mu.Unlock()
	p.serving.Wait()
	return err
}

// refuse logs why a connection was not admitted; a peer that just hung up is no news.
func (p *Port) refuse(raw net.Conn, err error) {
	if hungUp(err) {
		p.log.Debug("connection ended before its handshake", "from", raw.RemoteAddr(), "error", err)
		return
	}
	if held, ok := p.refused.next(time.Now()); ok {
		p.log.Warn("connection refused", "from", raw.RemoteAddr(), "error", err, "more", held)
	}
}

func hungUp(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) || errors.Is(err, syscall.ECONNRESET)
}

func remoteIP(c net.Conn) string {
	if a, ok := c.RemoteAddr().(*net.TCPAddr); ok {
		return a.IP.String()
	}
	return ""
}
