package exec

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// A command beside a task is started by the task's shim, so that it is one of the task's
// processes: in its group, under its user, ended with it. Each has a connection to a socket of
// its own. The agent sends the command and three descriptors; the shim answers when it has been
// started and when it has ended. The connection's end is the command's.

const besideSocket = "beside.sock"

// Bounds of commands beside one task.
const (
	besideMax      = 16
	besideHangup   = 2 * time.Second // between SIGHUP and SIGKILL once the caller has gone
	besideBytesMax = 1 << 20         // of a request
)

// besideRequest is the one message of the agent. Its descriptors are stdin, stdout and stderr.
type besideRequest struct {
	Command  []string `json:"command"`
	Env      []string `json:"env"`      // beside the task's own
	Terminal bool     `json:"terminal"` // descriptor 0 is one, and becomes the controlling one
}

// besideAnswer is what the shim says: Started or Error, then Ended.
type besideAnswer struct {
	Started bool   `json:"started,omitempty"`
	Error   string `json:"error,omitempty"` // why it was not started, and
	Code    int    `json:"code,omitempty"`  // its exit code, or that of the start that failed
	Ended   bool   `json:"ended,omitempty"`
}

// besides are the commands that run beside the shim's task.
type besides struct {
	mu      sync.Mutex
	count   int
	closing bool
	wait    sync.WaitGroup
}

// enter counts one more; false when there are enough, or the task is ending.
func (b *besides) enter() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closing || b.count >= besideMax {
		return false
	}
	b.count++
	b.wait.Add(1)
	return true
}

func (b *besides) leave() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.count--
	b.wait.Done()
}

// close refuses more, and waits for what there is.
func (b *besides) close() {
	b.mu.Lock()
	b.closing = true
	b.mu.Unlock()
	b.wait.Wait()
}

// serveBeside takes requests until the listener is closed.
func (s *shim) serveBeside(l *net.UnixListener) {
	for {
		c, err := l.AcceptUnix()
		if err != nil {
			return
		}
		if !peerAllowed(c) || !s.besides.enter() {
			answer(c, besideAnswer{Error: fmt.Sprintf("a task has at most %d commands beside it, and none once it ends", besideMax), Code: ExitCannotStart})
			c.Close()
			continue
		}
		go func() {
			defer s.besides.leave()
			defer c.Close()
			s.beside(c)
		}()
	}
}

func answer(c *net.UnixConn, a besideAnswer) {
	line, err := json.Marshal(a)
	if err != nil {
		return
	}
	_ = c.SetWriteDeadline(time.Now().Add(hangupTimeout))
	_, _ = c.Write(append(line, '\n'))
}

// beside runs one command to its end.
func (s *shim) beside(c *net.UnixConn) {
	_ = c.SetReadDeadline(time.Now().Add(hangupTimeout))
	request, files, err := readBeside(c)
	defer func() {
		for _, f := range files {
			f.Close()
		}
	}()
	if err != nil {
		answer(c, besideAnswer{Error: err.Error(), Code: ExitCannotStart})
		return
	}
	if k := s.container.Load(); k != nil {
		k.beside(c, request, files)
		return
	}
	spec := s.spec
	spec.Command, spec.Env, spec.Owned = request.Command, append(append([]string{}, s.spec.Env...), request.Env...), nil
	l, fault := prepare(s.dir, spec)
	if fault != nil {
		answer(c, besideAnswer{Error: fault.reason, Code: fault.code})
		return
	}
	ended := make(chan unix.WaitStatus, 1)
	pid, err := s.tree.startBeside(ended, func() (int, error) { return s.forker.startBeside(l, files, request.Terminal) })
	if err != nil {
		fault := forkFault(err, spec, l)
		answer(c, besideAnswer{Error: fault.reason, Code: fault.code})
		return
	}
	answer(c, besideAnswer{Started: true})
	status := s.awaitBeside(c, pid, ended)
	code := status.ExitStatus()
	if status.Signaled() {
		code = 128 + int(status.Signal())
	}
	answer(c, besideAnswer{Ended: true, Code: code})
}

// awaitBeside waits for the end. A caller that has gone is a terminal that has hung up.
func (s *shim) awaitBeside(c *net.UnixConn, pid int, ended <-chan unix.WaitStatus) unix.WaitStatus {
	gone := make(chan struct{})
	go hungUp(c, gone)
	select {
	case status := <-ended:
		return status
	case <-gone:
	}
	s.tree.signalBeside(pid, unix.SIGHUP)
	select {
	case status := <-ended:
		return status
	case <-time.After(besideHangup):
	}
	s.tree.signalBeside(pid, unix.SIGKILL)
	return <-ended
}

// hungUp closes gone once the caller has.
func hungUp(c *net.UnixConn, gone chan<- struct{}) {
	defer close(gone)
	_ = c.SetReadDeadline(time.Time{})
	for buf := make([]byte, 64); ; {
		if _, err := c.Read(buf); err != nil {
			return
		}
	}
}

// readBeside takes the request with its three descriptors, which the caller closes.
func readBeside(c *net.UnixConn) (besideRequest, []*os.File, error) {
	var request besideRequest
	buf, oob := make([]byte, besideBytesMax), make([]byte, unix.CmsgSpace(3*4))
	n, oobn, flags, _, err := c.ReadMsgUnix(buf, oob)
	if err != nil {
		return request, nil, fmt.Errorf("the request could not be read: %w", err)
	}
	files := received(oob[:oobn])
	if flags&unix.MSG_CTRUNC != 0 || len(files) != 3 {
		return request, files, fmt.Errorf("the request came with %d descriptors instead of 3", len(files))
	}
	if err := json.Unmarshal(buf[:n], &request); err != nil {
		return request, files, fmt.Errorf("the request is damaged: %w", err)
	}
	return request, files, nil
}

// received gives the descriptors of a control message.
func received(oob []byte) (files []*os.File) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil
	}
	for i := range messages {
		fds, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			continue
		}
		for _, fd := range fds {
			unix.CloseOnExec(fd)
			files = append(files, os.NewFile(uintptr(fd), "beside"))
		}
	}
	return files
}
