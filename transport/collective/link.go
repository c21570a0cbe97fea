package collective

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"time"
)

// keepAlive finds a host that vanished without a word within about 20 seconds.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 10 * time.Second, Interval: 5 * time.Second, Count: 3}

// link is the connection to one other rank. Reading and writing may go on side by side; each
// has one user at a time.
type link struct {
	rank int
	conn *tls.Conn
	raw  net.Conn // below conn, to end one direction
	head [headerBytes]byte
	in   []byte // payload of the frame read last
	out  []byte // frame being written
}

func newLink(raw net.Conn, conn *tls.Conn) *link { return &link{conn: conn, raw: raw, rank: -1} }

// send writes one frame of bytes.
func (l *link) send(h header, payload []byte) error {
	h.length = uint32(len(payload))
	l.out = append(h.append(l.out[:0]), payload...)
	_, err := l.conn.Write(l.out)
	return err
}

// encodeFloats makes the frame of float32 values that flush writes.
func (l *link) encodeFloats(h header, v []float32) {
	h.length = uint32(4 * len(v))
	l.out = appendFloats(h.append(l.out[:0]), v)
}

// flush writes the frame that was encoded last.
func (l *link) flush() error {
	_, err := l.conn.Write(l.out)
	return err
}

// receive reads one frame. The payload is valid until the next call.
func (l *link) receive() (header, []byte, error) {
	if _, err := io.ReadFull(l.conn, l.head[:]); err != nil {
		return header{}, nil, err
	}
	h, err := decodeHeader(l.head[:])
	if err != nil {
		return header{}, nil, err
	}
	if cap(l.in) < int(h.length) {
		l.in = make([]byte, h.length)
	}
	l.in = l.in[:h.length]
	if _, err := io.ReadFull(l.conn, l.in); err != nil {
		return header{}, nil, err
	}
	return h, l.in, nil
}

func (l *link) sendJSON(k kind, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode a frame: %w", err)
	}
	if len(body) > payloadMax {
		return fmt.Errorf("a frame of %d bytes, at most %d", len(body), payloadMax)
	}
	return l.send(header{kind: k}, body)
}

// closeGently ends this side of the connection, waits until the other side has ended its
// own or the deadline has passed, and closes. Closing at once, with unread bytes in the
// kernel, would reset the connection and could take from the other side what was sent last.
func (l *link) closeGently(deadline time.Time) {
	l.conn.SetDeadline(deadline)
	l.conn.CloseWrite()
	if half, ok := l.raw.(interface{ CloseWrite() error }); ok {
		half.CloseWrite()
	}
	io.Copy(io.Discard, io.LimitReader(l.raw, drainBytesMax))
	l.raw.Close()
}

// drainBytesMax bounds what closeGently reads and throws away.
const drainBytesMax = 1 << 30

// hello is the first frame of the side that dialled.
type hello struct {
	Job   string `json:"job"`
	Epoch uint64 `json:"epoch"`
	Rank  int    `json:"rank"`
	World int    `json:"world"`
	Addr  string `json:"addr,omitempty"` // to rank 0: where this rank listens for the higher ranks
}

// welcome is the answer to a hello that fits.
type welcome struct {
	Rank  int      `json:"rank"`
	Addrs []string `json:"addrs,omitempty"` // from rank 0: where each rank listens; that of rank 0 is empty
}

// refusal is the answer to a hello that does not.
type refusal struct {
	Epoch uint64 `json:"epoch"` // of the side that refuses
	Text  string `json:"text"`
}

// check compares a hello with the attempt that this rank belongs to.
func (c Config) checkHello(h hello) error {
	switch {
	case h.Job != c.Job:
		return fmt.Errorf("rank %d of job %.100q knocked at %s", h.Rank, h.Job, c.attempt())
	case h.Epoch < c.Epoch:
		return fmt.Errorf("rank %d of job %s has epoch %d, which has been replaced by epoch %d", h.Rank, h.Job, h.Epoch, c.Epoch)
	case h.Epoch > c.Epoch:
		return fmt.Errorf("rank %d of job %s has epoch %d, and knocked at epoch %d, which it has replaced", h.Rank, h.Job, h.Epoch, c.Epoch)
	case h.World != c.World:
		return fmt.Errorf("rank %d says the world has %d ranks, rank %d says %d", h.Rank, h.World, c.Rank, c.World)
	case h.Rank <= c.Rank || h.Rank >= c.World:
		return fmt.Errorf("rank %d dialled rank %d: only higher ranks of the %d do", h.Rank, c.Rank, c.World)
	}
	return nil
}

// accept makes the server's half of a link and reads its hello. A hello that does not fit is
// refused with its reason, which is also returned.
func accept(ctx context.Context, c Config, conf *tls.Config, raw net.Conn) (*link, hello, error) {
	conn := tls.Server(raw, conf)
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, hello{}, fmt.Errorf("connection from %s: %w", raw.RemoteAddr(), err)
	}
	l := newLink(raw, conn)
	head, body, err := l.receive()
	if err != nil {
		return nil, hello{}, fmt.Errorf("hello from %s: %w", raw.RemoteAddr(), err)
	}
	var h hello
	if head.kind != kindHello {
		return nil, hello{}, fmt.Errorf("connection from %s does not begin with a hello", raw.RemoteAddr())
	}
	if err := json.Unmarshal(body, &h); err != nil {
		return nil, hello{}, fmt.Errorf("hello from %s: %w", raw.RemoteAddr(), err)
	}
	if err := c.checkHello(h); err != nil {
		if l.sendJSON(kindRefuse, refusal{Epoch: c.Epoch, Text: err.Error()}) == nil {
			l.closeGently(time.Now().Add(lingerMax))
		}
		return nil, hello{}, err
	}
	l.rank = h.Rank
	return l, h, nil
}

// RefusedError says that another rank did not let this one in.
type RefusedError struct {
	By     int    // the rank that refused
	Epoch  uint64 // of the rank that refused
	Mine   uint64
	Reason string
}

// Error names both epochs.
func (e *RefusedError) Error() string {
	return fmt.Sprintf("rank %d (epoch %d) refused this rank (epoch %d): %s", e.By, e.Epoch, e.Mine, e.Reason)
}

// dial makes the client's half of a link: it says hello and waits for the welcome.
func dial(ctx context.Context, c Config, conf *tls.Config, raw net.Conn, rank int, h hello) (*link, welcome, error) {
	stop := context.AfterFunc(ctx, func() { raw.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	conn := tls.Client(raw, conf)
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, welcome{}, err
	}
	l := newLink(raw, conn)
	if err := l.sendJSON(kindHello, h); err != nil {
		return nil, welcome{}, err
	}
	head, body, err := l.receive()
	if err != nil {
		return nil, welcome{}, err
	}
	switch head.kind {
	case kindRefuse:
		var r refusal
		if err := json.Unmarshal(body, &r); err != nil {
			return nil, welcome{}, fmt.Errorf("refusal: %w", err)
		}
		return nil, welcome{}, &RefusedError{By: rank, Epoch: r.Epoch, Mine: c.Epoch, Reason: r.Text}
	case kindWelcome:
		var w welcome
		if err := json.Unmarshal(body, &w); err != nil {
			return nil, welcome{}, fmt.Errorf("welcome: %w", err)
		}
		if w.Rank != rank {
			return nil, welcome{}, fmt.Errorf("rank %d answers where rank %d should", w.Rank, rank)
		}
		if !stop() {
			return nil, welcome{}, context.Cause(ctx) // the deadline is spoilt, or about to be
		}
		l.rank = rank
		return l, w, nil
	}
	return nil, welcome{}, fmt.Errorf("a frame of kind %d in place of a welcome", head.kind)
}
