package transport

import (
	"net"
	"sync"
	"time"
)

// listener is the net.Listener of one protocol of a port.
type listener struct {
	port  *Port
	alpn  string
	queue chan *Conn
	once  sync.Once
	done  chan struct{}
}

// Accept waits for the next connection; after Close it gives net.ErrClosed.
func (l *listener) Accept() (net.Conn, error) {
	select {
	case <-l.done:
		return nil, &net.OpError{Op: "accept", Net: l.alpn, Addr: l.Addr(), Err: net.ErrClosed}
	default:
	}
	select {
	case c := <-l.queue:
		return c, nil
	case <-l.done:
		return nil, &net.OpError{Op: "accept", Net: l.alpn, Addr: l.Addr(), Err: net.ErrClosed}
	}
}

// Addr gives the port's address.
func (l *listener) Addr() net.Addr { return l.port.tcp.Addr() }

// Close ends the protocol on this port and closes the connections nobody has accepted.
func (l *listener) Close() error {
	p := l.port
	p.mu.Lock()
	if p.listeners[l.alpn] == l {
		delete(p.listeners, l.alpn)
		p.offer()
	}
	p.mu.Unlock()
	l.stop()
	// Nothing is queued any more: route finds no listener under mu.
	for {
		select {
		case c := <-l.queue:
			_ = c.Close()
		default:
			return nil
		}
	}
}

// stop wakes Accept. The port's Close, which closes the queued connections itself, calls it.
func (l *listener) stop() { l.once.Do(func() { close(l.done) }) }

// refusalsEvery is the shortest time between two log lines about refused connections, so
// that whoever causes them cannot fill the log.
const refusalsEvery = time.Second

// refusals counts refused connections between log lines. The zero value is ready.
type refusals struct {
	mu   sync.Mutex
	last time.Time
	held int
}

// next says whether a line may be written now and how many were held back since the last.
func (r *refusals) next(now time.Time) (held int, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.last.IsZero() && now.Sub(r.last) < refusalsEvery {
		r.held++
		return 0, false
	}
	held, r.held, r.last = r.held, 0, now
	return held, true
}
