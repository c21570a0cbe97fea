package server

import (
	"context"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
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
}

// SetHeartbeatHandler ignores the handler, as raft.Transport allows; see wire.
func (w *wire) SetHeartbeatHandler(func(raft.RPC)) {}

var (
	_ raft.Transport   = (*wire)(nil)
	_ raft.WithPreVote = (*wire)(nil)
	_ raft.WithClose   = (*wire)(nil)
)

func newWire(c consensusConfig, logger hclog.Logger) *wire {
	return &wire{raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		ServerAddressProvider: locator(c.locate),
		Logger:                logger,
		Stream:                &streamLayer{Listener: c.listener, advertise: c.advertise, dial: c.dial},
		MaxPool:               raftConnectionsMax,
		Timeout:               raftIOTimeout,
	})}
}

// locator gives Raft the newest address of a server, which may be newer than the one in
// the configuration: a majority that moved could not commit its new addresses otherwise.
type locator func(id string) (string, bool)

// ServerAddr gives the address of a server.
func (l locator) ServerAddr(id raft.ServerID) (raft.ServerAddress, error) {
	if addr, ok := l(string(id)); ok {
		return raft.ServerAddress(addr), nil
	}
	return "", fmt.Errorf("server %s has not been seen by gossip", id)
}

// streamLayer makes and accepts Raft's connections: mutual TLS, role server at both ends.
type streamLayer struct {
	net.Listener
	advertise string
	dial      func(ctx context.Context, addr string) (net.Conn, error)
}

// Addr gives the address that the other servers use.
func (s *streamLayer) Addr() net.Addr { return advertised(s.advertise) }

// Dial connects to another server's port.
func (s *streamLayer) Dial(addr raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return s.dial(ctx, string(addr))
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
