package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"golang.org/x/term"
)

const (
	widthMax     = 100 // columns of a table on a terminal
	widthDefault = 80  // of a terminal that does not tell
	widthMin     = 40
)

// app is what the verbs know of the world: streams, environment and clock. Tests replace it.
type app struct {
	in       io.Reader
	out      io.Writer // results
	errOut   io.Writer // everything else
	outTTY   bool
	errTTY   bool
	columns  func() int // of the terminal
	getenv   func(string) (string, bool)
	getwd    func() (string, error)
	now      func() time.Time
	location *time.Location
}

func newApp() *app {
	return &app{
		in: os.Stdin, out: os.Stdout, errOut: os.Stderr,
		outTTY: term.IsTerminal(int(os.Stdout.Fd())), errTTY: term.IsTerminal(int(os.Stderr.Fd())),
		columns: func() int {
			for _, f := range []*os.File{os.Stderr, os.Stdout} {
				if w, _, err := term.GetSize(int(f.Fd())); err == nil && w > 0 {
					return max(w, widthMin)
				}
			}
			return widthDefault
		},
		getenv: os.LookupEnv, getwd: os.Getwd, now: time.Now, location: time.Local,
	}
}

// interruptible gives a context that the first interrupt ends; the second ends the process.
func interruptible() (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		first := <-signals
		cancel(interrupted{first})
		<-signals
		os.Exit(exitInterrupted)
	}()
	return ctx, func() { signal.Stop(signals) }
}

// interrupted is the cause of a context that a signal has ended.
type interrupted struct{ signal os.Signal }

func (i interrupted) Error() string { return "stopped by " + i.signal.String() }

// env gives a variable, or "" when it is not set.
func (a *app) env(name string) string {
	v, _ := a.getenv(name)
	return v
}

func (a *app) printf(format string, args ...any) { fmt.Fprintf(a.out, format, args...) }
func (a *app) note(format string, args ...any)   { fmt.Fprintf(a.errOut, format, args...) }

// tint colours text for people: only on a terminal, and not when NO_COLOR asks for none.
type tint bool

func (a *app) outTint() tint {
	return tint(a.outTTY && a.env("NO_COLOR") == "" && a.env("TERM") != "dumb")
}
func (a *app) errTint() tint {
	return tint(a.errTTY && a.env("NO_COLOR") == "" && a.env("TERM") != "dumb")
}

// ANSI codes of the colours in use.
const (
	red    = "31"
	green  = "32"
	yellow = "33"
	blue   = "34"
	faint  = "2"
	bold   = "1"
)

func (t tint) paint(code, text string) string {
	if !t || code == "" || text == "" {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

// stateColour gives the colour of a job's, task's or node's state.
func stateColour(state string) string {
	switch strings.TrimSpace(state) {
	case "running", "ready", "live":
		return green
	case "failed", "lost":
		return red
	case "pending", "stopping", "silent", "assigned", "ending":
		return yellow
	case "succeeded", "scheduled":
		return blue
	case "cancelled", "stopped", "ended":
		return faint
	}
	return ""
}
