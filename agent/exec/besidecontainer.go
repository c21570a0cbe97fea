package exec

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"llmos/agent/exec/engine"
)

// A command beside a task in a container is started by the engine, and the shim carries its
// input and output between the engine and the caller's descriptors.

// resizeEvery is how often the size of the caller's terminal is looked at: the shim is told
// of no change, for the terminal is not its own.
const resizeEvery = 250 * time.Millisecond

// beside runs one command beside the container to its end.
func (k *contained) beside(c *net.UnixConn, request besideRequest, files []*os.File) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if len(request.Command) == 0 || request.Command[0] == "" {
		answer(c, besideAnswer{Error: "there is no command", Code: ExitCannotStart})
		return
	}
	env := append(append([]string{}, k.shim.spec.Env...), request.Env...)
	e := engine.Exec{AttachStdin: true, AttachStdout: true, AttachStderr: true, Tty: request.Terminal, Cmd: request.Command, Env: env, User: k.user}
	if size, err := unix.IoctlGetWinsize(int(files[0].Fd()), unix.TIOCGWINSZ); request.Terminal && err == nil {
		e.ConsoleSize = &[2]uint16{size.Row, size.Col}
	}
	id, err := k.engine.Exec(ctx, k.id, e)
	var stream *engine.Stream
	if err == nil {
		stream, err = k.engine.StartExec(ctx, id, request.Terminal)
	}
	if err != nil {
		spec := k.shim.spec
		spec.Command = request.Command
		fault := containerFault(err, spec)
		if engine.Conflict(err) || engine.NotFound(err) {
			fault = cannot(ExitCannotStart, "%v", ErrNoTask)
		}
		answer(c, besideAnswer{Error: fault.reason, Code: fault.code})
		return
	}
	defer stream.Close()
	answer(c, besideAnswer{Started: true})
	gone := make(chan struct{})
	go hungUp(c, gone)
	go k.endBeside(ctx, gone, id, stream)
	if request.Terminal {
		err = k.carryTerminal(ctx, id, stream, files[0])
	} else {
		err = carryPipes(stream, files)
	}
	code := ExitCannotStart
	if state, ierr := k.engine.InspectExec(context.Background(), id); ierr == nil {
		code = state.ExitCode
	} else {
		err = errors.Join(err, ierr)
	}
	if err != nil {
		k.shim.warn("carry a command beside the container", err)
	}
	answer(c, besideAnswer{Ended: true, Code: code})
}

// endBeside ends the command of a caller that has gone, as a terminal does that hangs up.
func (k *contained) endBeside(ctx context.Context, gone <-chan struct{}, id string, stream *engine.Stream) {
	select {
	case <-ctx.Done():
		return
	case <-gone:
	}
	for _, sig := range []unix.Signal{unix.SIGHUP, unix.SIGKILL} {
		if state, err := k.engine.InspectExec(ctx, id); err == nil && state.Running && state.PID > 0 {
			signalVerified(state.PID, sig, func() bool {
				now, err := k.engine.InspectExec(ctx, id)
				return err == nil && now.Running && now.PID == state.PID
			})
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(besideHangup):
		}
	}
	stream.Close() // whatever is left cannot be reached
}

// carryPipes carries until the command's output has ended.
func carryPipes(stream *engine.Stream, files []*os.File) error {
	go func() {
		_, _ = io.Copy(stream, files[0])
		_ = stream.CloseWrite()
	}()
	return stream.Split(files[1], files[2])
}

// carryTerminal carries between the terminal that the engine made and the caller's, which
// passes on every byte as it is.
func (k *contained) carryTerminal(ctx context.Context, id string, stream *engine.Stream, terminal *os.File) error {
	if err := makeRaw(terminal); err != nil {
		return err
	}
	go func() { _, _ = io.Copy(stream, terminal) }()
	go k.followSize(ctx, id, terminal)
	_, err := io.Copy(terminal, stream)
	return err
}

// followSize tells the engine how large the caller's terminal is.
func (k *contained) followSize(ctx context.Context, id string, terminal *os.File) {
	tick := time.NewTicker(resizeEvery)
	defer tick.Stop()
	var told unix.Winsize
	for {
		if size, err := unix.IoctlGetWinsize(int(terminal.Fd()), unix.TIOCGWINSZ); err == nil && *size != told {
			if k.engine.ResizeExec(ctx, id, size.Row, size.Col) == nil {
				told = *size
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// makeRaw lets a terminal pass on bytes without a meaning of their own.
func makeRaw(terminal *os.File) error {
	t, err := unix.IoctlGetTermios(int(terminal.Fd()), unix.TCGETS)
	if err != nil {
		return err
	}
	t.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
	t.Oflag &^= unix.OPOST
	t.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
	t.Cflag = t.Cflag&^(unix.CSIZE|unix.PARENB) | unix.CS8
	t.Cc[unix.VMIN], t.Cc[unix.VTIME] = 1, 0
	return unix.IoctlSetTermios(int(terminal.Fd()), unix.TCSETS, t)
}
