package gossip

import (
	"bytes"
	"context"
	"log"
	"log/slog"
	"strings"
)

// newLogger gives memberlist a logger that ends in slog. What memberlist calls an error is
// mostly a peer that does not answer or a packet with a wrong key: news, not a defect.
func newLogger(to *slog.Logger) *log.Logger { return log.New(logWriter{to}, "", 0) }

type logWriter struct{ to *slog.Logger }

var logLevels = []struct {
	mark  string
	level slog.Level
}{
	{"[DEBUG] ", slog.LevelDebug},
	{"[INFO] ", slog.LevelDebug},
	{"[WARN] ", slog.LevelInfo},
	{"[ERR] ", slog.LevelInfo},
	{"[ERROR] ", slog.LevelInfo},
}

// Write takes one line as memberlist writes it, "[LEVEL] memberlist: text".
func (w logWriter) Write(line []byte) (int, error) {
	text := string(bytes.TrimSpace(line))
	level := slog.LevelDebug
	for _, l := range logLevels {
		if rest, ok := strings.CutPrefix(text, l.mark); ok {
			level, text = l.level, rest
			break
		}
	}
	if w.to.Enabled(context.Background(), level) {
		w.to.Log(context.Background(), level, "gossip: "+strings.TrimPrefix(text, "memberlist: "))
	}
	return len(line), nil
}
