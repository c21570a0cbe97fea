package exec

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// The control connection carries JSON lines: orders to the shim, statuses back. The first
// one is the socket the shim was born with; after a restart of the agent they come over a
// Unix socket in the task's directory. A connection's end means nothing to the task.

// order is what an agent asks of a shim.
type order struct {
	Op     string `json:"op"`               // "stop": signal, grace, kill. "kill": kill now. "end": kill now, as a failure
	Reason string `json:"reason,omitempty"` // of an end: what the task did
}

const (
	opStop = "stop"
	opKill = "kill"
	opEnd  = "end"
)

// progressEvery is the least time between two statuses that differ only in progress.
const progressEvery = 200 * time.Millisecond

// statusBytesMax bounds one line of the connection.
const statusBytesMax = 64 << 10

// withDirPath calls f with a short path of dir/name, since a socket's may have 107 bytes.
func withDirPath(dir, name string, f func(path string) error) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return f(fmt.Sprintf("/proc/self/fd/%d/%s", d.Fd(), name))
}

// listenIn makes a socket of dir, of streams ("unix") or of packets ("unixpacket").
func listenIn(dir, network, name string) (*net.UnixListener, error) {
	var l *net.UnixListener
	err := withDirPath(dir, name, func(path string) (err error) {
		l, err = net.ListenUnix(network, &net.UnixAddr{Name: path, Net: network})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("listen for the agent on %s: %w", name, err)
	}
	l.SetUnlinkOnClose(false) // the short path is no longer valid then
	return l, os.Chmod(filepath.Join(dir, name), 0o600)
}

// dialIn connects to a socket of dir.
func dialIn(dir, network, name string) (*net.UnixConn, error) {
	var c *net.UnixConn
	err := withDirPath(dir, name, func(path string) (err error) {
		c, err = net.DialUnix(network, nil, &net.UnixAddr{Name: path, Net: network})
		return err
	})
	return c, err
}

// peerAllowed reports whether the other end belongs to this user or root.
func peerAllowed(c *net.UnixConn) bool {
	raw, err := c.SyscallConn()
	if err != nil {
		return false
	}
	allowed := false
	err = raw.Control(func(fd uintptr) {
		cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
		allowed = err == nil && (cred.Uid == 0 || int(cred.Uid) == os.Geteuid())
	})
	return err == nil && allowed
}

// board holds the status of the task and wakes the connections that show it.
type board struct {
	mu      sync.Mutex
	status  Status
	changed chan struct{} // closed at the next change
	alarm   chan struct{} // closed at the next change that is more than progress
	closing bool
	wait    sync.WaitGroup // connections being shown
}

func newBoard() *board {
	return &board{changed: make(chan struct{}), alarm: make(chan struct{})}
}

// set changes the status; urgent changes are sent at once.
func (b *board) set(urgent bool, f func(*Status)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f(&b.status)
	b.wake(urgent)
}

func (b *board) wake(urgent bool) {
	close(b.changed)
	b.changed = make(chan struct{})
	if urgent {
		close(b.alarm)
		b.alarm = make(chan struct{})
	}
}

// close makes every connection send what is newest and end, and waits for them.
func (b *board) close() {
	b.mu.Lock()
	b.closing = true
	b.wake(true)
	b.mu.Unlock()
	b.wait.Wait()
}

// serve shows the board on the connection and passes its orders on, until the board is
// closed or the peer has gone.
func (b *board) serve(c net.Conn, obey func(order)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closing {
		c.Close()
		return
	}
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		lines := bufio.NewScanner(c)
		for lines.Scan() {
			var o order
			if json.Unmarshal(lines.Bytes(), &o) == nil {
				obey(o)
			}
		}
	}()
	b.wait.Go(func() {
		defer c.Close()
		b.show(c, gone)
	})
}

// show writes the status whenever it changes, progress not faster than progressEvery.
func (b *board) show(c net.Conn, gone <-chan struct{}) {
	for {
		b.mu.Lock()
		s, changed, alarm, closing := b.status, b.changed, b.alarm, b.closing
		b.mu.Unlock()
		line, err := json.Marshal(s)
		if err != nil {
			return
		}
		sent := time.Now()
		_ = c.SetWriteDeadline(sent.Add(hangupTimeout))
		if _, err := c.Write(append(line, '\n')); err != nil || closing {
			return
		}
		select {
		case <-gone:
			return
		case <-changed:
		}
		select {
		case <-gone:
			return
		case <-alarm:
		case <-time.After(time.Until(sent.Add(progressEvery))):
		}
	}
}
