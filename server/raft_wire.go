package server

import (
	"context"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// wire is Raft's transport over the port's llmos-raft listener. It ignores the heartbeat
// fast path: heartbeats handled beside the main loop race with it and logs can diverge
// (hashicorp/raft#695). They arrive on the consumer channel like every other call, behind
// the disk, which the timing presets allow for. The network transport's other methods,
// RequestPreVote among them, are kept.
type wire struct {
	*raft.NetworkTransport
	stream *streamLayer
	reach  *reach
}

// SetHeartbeatHandler ignores the handler, as raft.Transport allows; see wire.
func (w *wire) SetHeartbeatHandler(func(raft.RPC)) {}

var (
	_ raft.Transport   = (*wire)(nil)
	_ raft.WithPreVote = (*wire)(nil)
	_ raft.WithClose   = (*wire)(nil)
)

func newWire(c consensusConfig, logger hclog.Logger, leads func(term uint64) bool) *wire {
	stream := &streamLayer{Listener: c.listener, advertise: c.advertise, dial: c.dial, open: map[*raftConn]struct{}{}}
	matters := func(id string, term uint64) bool {
		_, known := c.locate(id)
		return known && leads(term)
	}
	return &wire{stream: stream, reach: newReach(matters), NetworkTransport: raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		ServerAddressProvider: locator{self: c.id, addr: c.advertise, locate: c.locate},
		Logger:                logger,
		Stream:                stream,
		MaxPool:               raftConnectionsMax,
		Timeout:               raftIOTimeout,
	})}
}

// sever ends every call to another server, now and later: one that waits for a server
// which does not answer would otherwise hold Raft's end up for raftIOTimeout.
func (w *wire) sever() {
	w.reach.stop()
	w.stream.sever()
}

// locator gives Raft the newest address of a server, which may be newer than the one in
// the configuration: a majority that moved could not commit its new addresses otherwise.
// The address names the server too, for streamLayer.Dial.
type locator struct {
	self, addr string
	locate     func(id string) (string, bool)
}

// ServerAddr gives ID@host:port of another server, and host:port of this one, which Raft
// asks for only to tell it to others.
func (l locator) ServerAddr(id raft.ServerID) (raft.ServerAddress, error) {
	if string(id) == l.self {
		return raft.ServerAddress(l.addr), nil
	}
	if addr, ok := l.locate(string(id)); ok {
		return raft.ServerAddress(string(id) + memberMark + addr), nil
	}
	return "", fmt.Errorf("no address of server %s is known", id)
}

// memberMark stands between ID and address; neither holds it.
const memberMark = "@"

// streamLayer makes and accepts Raft's connections: mutual TLS, role server at both ends.
type streamLayer struct {
	net.Listener
	advertise string
	dial      func(ctx context.Context, addr, id string) (net.Conn, error)

	mu      sync.Mutex
	severed bool
	open    map[*raftConn]struct{} // dialled from here
}

// Addr gives the address that the other servers use.
func (s *streamLayer) Addr() net.Addr { return advertised(s.advertise) }

// Dial connects to ID@host:port, and to no other server than that: an address may have
// gone to another one, whose answers Raft would count as the first one's as well, and so
// take two votes or two copies of an entry where there is one.
func (s *streamLayer) Dial(to raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	id, addr, ok := strings.Cut(string(to), memberMark)
	if !ok {
		return nil, fmt.Errorf("no server is known at %s", to)
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	conn, err := s.dial(ctx, addr, id)
	if err != nil {
		return nil, err
	}
	c := &raftConn{Conn: conn, stream: s}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.severed {
		_ = conn.Close()
		return nil, net.ErrClosed
	}
	s.open[c] = struct{}{}
	return c, nil
}

func (s *streamLayer) sever() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.severed = true
	for c := range s.open {
		_ = c.SetDeadline(time.Unix(1, 0)) // Raft closes it; a Close here would wait for TLS
	}
}

// raftConn is a dialled connection that can be severed.
type raftConn struct {
	net.Conn
	stream *streamLayer
}

// Close closes the connection.
func (c *raftConn) Close() error {
	c.stream.mu.Lock()
	delete(c.stream.open, c)
	c.stream.mu.Unlock()
	return c.Conn.Close()
}

type advertised string

// Network names the network of the address.
func (advertised) Network() string { return "tcp" }

// String gives host:port.
func (a advertised) String() string { return string(a) }

// raftLogger gives the library a logger that writes to ours. Its INFO lines are news to a
// developer, not to an operator, so they come as DEBUG.
// A complaint that repeats, such as about a server that is down, is told again only after
// complaintPause; in between it comes as DEBUG.
func raftLogger(l *slog.Logger) hclog.Logger {
	return &hclogAdapter{log: l.With("part", "raft"), told: &complaints{last: map[string]time.Time{}}}
}

const (
	complaintPause = 30 * time.Second
	complaintsMax  = 256 // remembered
)

type complaints struct {
	mu   sync.Mutex
	last map[string]time.Time
}

// again says whether the same was told a short time ago.
func (c *complaints) again(key string, now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if last, ok := c.last[key]; ok && now.Sub(last) < complaintPause {
		return true
	}
	if len(c.last) >= complaintsMax {
		clear(c.last)
	}
	c.last[key] = now
	return false
}

type hclogAdapter struct {
	log  *slog.Logger
	name string
	args []any
	told *complaints
}

var hclogLevels = map[hclog.Level]slog.Level{
	hclog.Trace: slog.LevelDebug - 4, hclog.Debug: slog.LevelDebug, hclog.Info: slog.LevelDebug,
	hclog.Warn: slog.LevelWarn, hclog.Error: slog.LevelError,
}

// Log writes one line.
func (a *hclogAdapter) Log(level hclog.Level, msg string, args ...any) {
	out, ok := hclogLevels[level]
	if !ok || !a.log.Enabled(context.Background(), out) {
		return
	}
	if out >= slog.LevelWarn {
		key := msg
		if len(args) > 1 {
			key += fmt.Sprint(args[1])
		}
		if a.told.again(key, time.Now()) {
			out = slog.LevelDebug
		}
	}
	for i := range args {
		if f, ok := args[i].(hclog.Format); ok && len(f) > 0 {
			args[i] = fmt.Sprintf(fmt.Sprint(f[0]), f[1:]...)
		}
	}
	a.log.Log(context.Background(), out, msg, args...)
}

func (a *hclogAdapter) enabled(l slog.Level) bool { return a.log.Enabled(context.Background(), l) }

// Trace and the methods below are hclog.Logger's.
func (a *hclogAdapter) Trace(msg string, args ...any) { a.Log(hclog.Trace, msg, args...) }
func (a *hclogAdapter) Debug(msg string, args ...any) { a.Log(hclog.Debug, msg, args...) }
func (a *hclogAdapter) Info(msg string, args ...any)  { a.Log(hclog.Info, msg, args...) }
func (a *hclogAdapter) Warn(msg string, args ...any)  { a.Log(hclog.Warn, msg, args...) }
func (a *hclogAdapter) Error(msg string, args ...any) { a.Log(hclog.Error, msg, args...) }
func (a *hclogAdapter) IsTrace() bool                 { return false }
func (a *hclogAdapter) IsDebug() bool                 { return a.enabled(slog.LevelDebug) }
func (a *hclogAdapter) IsInfo() bool                  { return a.enabled(slog.LevelDebug) }
func (a *hclogAdapter) IsWarn() bool                  { return a.enabled(slog.LevelWarn) }
func (a *hclogAdapter) IsError() bool                 { return a.enabled(slog.LevelError) }
func (a *hclogAdapter) ImpliedArgs() []any            { return a.args }
func (a *hclogAdapter) Name() string                  { return a.name }
func (a *hclogAdapter) Named(string) hclog.Logger     { return a }
func (a *hclogAdapter) SetLevel(hclog.Level)          {}
func (a *hclogAdapter) GetLevel() hclog.Level         { return hclog.Debug }

// ResetNamed changes nothing: the attribute part=raft says enough.
func (a *hclogAdapter) ResetNamed(string) hclog.Logger { return a }

// With adds attributes to every later line.
func (a *hclogAdapter) With(args ...any) hclog.Logger {
	return &hclogAdapter{log: a.log.With(args...), name: a.name, told: a.told, args: append(append([]any{}, a.args...), args...)}
}

// StandardLogger gives a logger of the standard library that writes at DEBUG.
func (a *hclogAdapter) StandardLogger(*hclog.StandardLoggerOptions) *log.Logger {
	return slog.NewLogLogger(a.log.Handler(), slog.LevelDebug)
}

// StandardWriter gives a writer whose lines come at DEBUG.
func (a *hclogAdapter) StandardWriter(*hclog.StandardLoggerOptions) io.Writer {
	return a.StandardLogger(nil).Writer()
}
