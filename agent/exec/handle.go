package exec

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Handle is the agent's hold on one task. Losing it never touches the task.
type Handle struct {
	dir     string
	updates chan Status // capacity 1: the newest
	cancel  context.CancelFunc
	done    chan struct{}

	mu   sync.Mutex
	conn *net.UnixConn // nil: between connections, or ended
	want order         // the strongest order given; repeated on a new connection
	err  error
}

// Updates gives the newest status of the task; older ones that were not read are gone. It
// is closed after the status with the end, or without one when Err is not nil.
func (h *Handle) Updates() <-chan Status { return h.updates }

// Err says, once Updates is closed, why there is no record of the end: ErrDied,
// ErrNotStarted (the shim refused), or that the Handle was let go.
func (h *Handle) Err() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.err
}

// Stop asks the task to end: stop signal, grace, kill. It returns at once.
func (h *Handle) Stop() { h.send(order{Op: opStop}) }

// Kill kills the task's whole tree. It returns at once.
func (h *Handle) Kill() { h.send(order{Op: opKill}) }

// End kills the task's whole tree for what it did: unless it had been asked to stop, its
// end is Failed with this reason. It returns at once.
func (h *Handle) End(reason string) { h.send(order{Op: opEnd, Reason: reason}) }

// Detach lets go of the task and joins the Handle's goroutine.
func (h *Handle) Detach() {
	h.cancel()
	h.mu.Lock()
	if h.conn != nil {
		h.conn.Close()
	}
	h.mu.Unlock()
	<-h.done
}

func (h *Handle) send(o order) {
	defer wake(h.dir)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.want.Op != opKill && h.want.Op != opEnd { // both kill; the first one's words stay
		h.want = o
	}
	h.sendWanted()
}

// wake lets the shim of dir go on, should somebody have suspended it: it could not obey.
func wake(dir string) {
	var c claim
	if found, err := readJSON(dir, claimFile, &c); err != nil || !found || c.Void || c.BootID != BootID() {
		return
	}
	signalVerified(c.PID, unix.SIGCONT, func() bool {
		stat, err := readStat(c.PID)
		return err == nil && stat.ticks == c.Ticks
	})
}

// sendWanted repeats the order; the caller holds the lock.
func (h *Handle) sendWanted() {
	if h.conn == nil || h.want.Op == "" {
		return
	}
	line, err := json.Marshal(h.want)
	if err != nil {
		return
	}
	_ = h.conn.SetWriteDeadline(time.Now().Add(hangupTimeout))
	_, _ = h.conn.Write(append(line, '\n')) // a broken connection is seen by the reader
}

func (h *Handle) show(s Status) {
	for {
		select {
		case h.updates <- s:
			return
		default:
		}
		select {
		case <-h.updates:
		default:
		}
	}
}

// endedHandle is a Handle of a task that has ended.
func endedHandle(dir string, e Exit) *Handle {
	h := &Handle{dir: dir, updates: make(chan Status, 1), cancel: func() {}, done: make(chan struct{})}
	h.show(Status{Exit: &e})
	close(h.updates)
	close(h.done)
	return h
}

// follow makes the Handle of a live task.
func (d *Driver) follow(dir string, conn *net.UnixConn) *Handle {
	ctx, cancel := context.WithCancel(context.Background())
	h := &Handle{dir: dir, updates: make(chan Status, 1), cancel: cancel, done: make(chan struct{}), conn: conn}
	go func() {
		defer close(h.done)
		defer close(h.updates)
		defer cancel()
		err := d.listen(ctx, h, conn)
		h.mu.Lock()
		h.err = err
		h.mu.Unlock()
	}()
	return h
}

// listen reads statuses, over as many connections as it takes, until the end is known.
func (d *Driver) listen(ctx context.Context, h *Handle, conn *net.UnixConn) error {
	for conn != nil {
		last, ended := h.read(conn)
		if ended {
			return nil
		}
		next, err := d.reconnect(ctx, h.dir, last.Refused)
		if err != nil {
			return err
		}
		if next == nil {
			exit, err := ReadExit(h.dir)
			if err != nil {
				return err
			}
			h.show(Status{Identity: last.Identity, Progress: last.Progress, Told: last.Told, Exit: exit})
		}
		h.mu.Lock()
		conn, h.conn = next, next
		h.sendWanted()
		h.mu.Unlock()
		if ctx.Err() != nil && conn != nil {
			conn.Close() // Detach may have looked before there was a connection
		}
	}
	return nil
}

// reconnect finds out what a broken connection means. nil, nil: the task has ended and its
// record is there. A refusal is final unless another shim has the task.
func (d *Driver) reconnect(ctx context.Context, dir, refused string) (*net.UnixConn, error) {
	for {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		conn, err := d.reach(ctx, dir)
		if err == nil || errors.Is(err, ErrDied) {
			return conn, err
		}
		pause := reachPause
		if !errors.Is(err, errShimBetween) {
			if refused != "" {
				return nil, fmt.Errorf("%w: %s", ErrNotStarted, refused)
			}
			if errors.Is(err, ErrNotStarted) {
				return nil, err
			}
			d.cfg.Log.Warn("the end of a task is not known yet", "dir", dir, "error", err)
			pause = reachRetry
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

// read shows what one connection says, until its end.
func (h *Handle) read(conn *net.UnixConn) (last Status, ended bool) {
	lines := bufio.NewScanner(conn)
	lines.Buffer(make([]byte, 0, 4096), statusBytesMax)
	for lines.Scan() {
		var s Status
		if json.Unmarshal(lines.Bytes(), &s) != nil {
			break
		}
		last = s
		if s.Refused != "" {
			break
		}
		h.show(s)
		if s.Exit != nil {
			ended = true
			break
		}
	}
	h.mu.Lock()
	h.conn = nil
	h.mu.Unlock()
	conn.Close()
	return last, ended
}
