package main

import (
	"context"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
)

// processFlags are those that servers and agents share.
type processFlags struct {
	dataDir   string
	listen    string
	advertise string
	join      []string
	token     string
	name      string
	logFormat string
	logLevel  string
}

func (p *processFlags) flags(cmd *cobra.Command, listen string) {
	f := cmd.Flags()
	f.StringVar(&p.dataDir, "data-dir", "", "`FOLDER` for everything it keeps (default /var/lib/llmos/"+cmd.Name()+", or ~/.local/share/llmos/"+cmd.Name()+" when not root)")
	f.StringVar(&p.listen, "listen", listen, "address of its one port, `HOST:PORT`, TCP and UDP")
	f.StringVar(&p.advertise, "advertise", "", "`ADDRESS` that others reach it at, host:port or host (default: that of --listen, or this machine's)")
	f.StringSliceVar(&p.join, "join", nil, "servers to join through, `HOST:PORT`,...")
	f.StringVar(&p.token, "token", "", "join `TOKEN`; used at the first start alone")
	f.StringVar(&p.name, "name", "", "`NAME` that people call it by (default: the host's)")
	f.StringVar(&p.logFormat, "log-format", "text", "`FORMAT`: text or json")
	f.StringVar(&p.logLevel, "log-level", "info", "`LEVEL`: debug, info, warn or error")
	for _, name := range []string{"data-dir", "listen", "advertise", "join", "token", "name", "log-format", "log-level"} {
		envFlag(f, name, "LLMOS_"+strings.ToUpper(strings.ReplaceAll(name, "-", "_")))
	}
}

// folder gives the data directory as an absolute path.
func (p *processFlags) folder(a *app, what string) (string, error) {
	if p.dataDir != "" {
		return a.absolute(p.dataDir)
	}
	if os.Geteuid() == 0 {
		return filepath.Join("/var/lib/llmos", what), nil
	}
	home, err := a.dataHome()
	if err != nil {
		return "", err
	}
	return a.absolute(filepath.Join(home, what))
}

func (p *processFlags) logger(w io.Writer) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(p.logLevel)); err != nil {
		return nil, invalid("--log-level %q is none of debug, info, warn, error", p.logLevel)
	}
	options := &slog.HandlerOptions{Level: level}
	switch p.logFormat {
	case "text":
		return slog.New(slog.NewTextHandler(w, options)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, options)), nil
	}
	return nil, invalid("--log-format %q is neither text nor json", p.logFormat)
}

// running is a server or an agent that has been started.
type running interface {
	Run(ctx context.Context) error
	Ready() <-chan struct{}
}

// serve runs a process until ctx ends and tells the service manager of its states.
func (a *app) serve(ctx context.Context, r running, whenReady func()) error {
	stop := make(chan struct{})
	told := make(chan struct{})
	go func() {
		defer close(told)
		select {
		case <-r.Ready():
			a.notifySystemd("READY=1")
			whenReady()
		case <-stop:
			return
		}
		select {
		case <-ctx.Done():
			a.notifySystemd("STOPPING=1")
		case <-stop:
		}
	}()
	err := r.Run(ctx)
	close(stop)
	<-told
	return err
}

// portRange reads --port-range: 20000-29999.
func portRange(text string) (low, high int, err error) {
	a, b, both := strings.Cut(text, "-")
	low, errLow := strconv.Atoi(strings.TrimSpace(a))
	high, errHigh := strconv.Atoi(strings.TrimSpace(b))
	if !both || errLow != nil || errHigh != nil || low < 1 || high > 65535 || low > high {
		return 0, 0, invalid("--port-range %q is not a range of ports", text).Hint("write it as 20000-29999")
	}
	return low, high, nil
}

// labels reads --label k=v.
func labels(given []string) (map[string]string, error) {
	out := make(map[string]string, len(given))
	for _, l := range given {
		name, value, assigned := strings.Cut(l, "=")
		if !assigned || name == "" {
			return nil, invalid("--label %q is not NAME=VALUE", l)
		}
		out[name] = value
	}
	return out, nil
}
