package agent

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"llmos/agent/exec"
	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
)

// Bounds of what people do inside tasks.
const (
	interactiveMax   = 64              // commands and connections of one node at a time
	interactiveBytes = 32 << 10        // of one message
	interactiveDrain = 2 * time.Second // for output after the command has ended
)

// loginShell is what runs when no command was named: bash where it is, else the plain shell.
var loginShell = []string{"/bin/sh", "-c", `exec "$(command -v bash || echo /bin/sh)" -i`}

// visit checks who calls, finds the task that is to be visited, and counts one more command or
// connection until done is called.
func (s *agentService) visit(stream grpc.ServerStream, taskID string) (dir string, done func(), err error) {
	if id, ok := s.peer(stream); !ok || id.Role != pb.MemberRole_MEMBER_ROLE_SERVER {
		return "", nil, fault.New(pb.ErrorKind_ERROR_KIND_DENIED, "tasks are entered by servers alone").Hint("ask a server: llmos exec JOB -- COMMAND")
	}
	dir, ok := s.site.taskDirOf(taskID)
	if !ok {
		return "", nil, s.notRunning(taskID)
	}
	done = func() { s.busy.Add(-1) }
	if s.busy.Add(1) > interactiveMax {
		done()
		return "", nil, fault.New(pb.ErrorKind_ERROR_KIND_LIMIT, "node %s has %d commands and connections of people already", s.site.nodeName, interactiveMax).
			Hint("close one of them")
	}
	return dir, done, nil
}

func (s *agentService) notRunning(taskID string) error {
	return fault.New(pb.ErrorKind_ERROR_KIND_NOT_FOUND, "task %s does not run on node %s", taskID, s.site.nodeName).
		Hint("llmos ps shows where the job is")
}

// Exec runs a command beside a task for a caller, who is on the other side of a server.
func (s *agentService) Exec(stream grpc.BidiStreamingServer[pb.ExecInput, pb.ExecOutput]) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	start := first.GetStart()
	if start == nil {
		return fault.New(pb.ErrorKind_ERROR_KIND_INVALID, "the first message of a command must say what to run")
	}
	dir, done, err := s.visit(stream, start.TaskId)
	if err != nil {
		return err
	}
	defer done()
	session, err := exec.Enter(dir, besideOf(start))
	switch code, known := exec.StartCode(err); {
	case known:
		return s.end(stream, code, err.Error())
	case errors.Is(err, exec.ErrNoTask):
		return s.notRunning(start.TaskId)
	case err != nil:
		return fault.New(pb.ErrorKind_ERROR_KIND_INTERNAL, "start a command beside task %s: %w", start.TaskId, err)
	}
	defer session.Close()
	started := &pb.ExecStarted{TaskId: start.TaskId, NodeName: s.site.nodeName}
	if err := stream.Send(&pb.ExecOutput{Output: &pb.ExecOutput_Started{Started: started}}); err != nil {
		return err
	}
	r := &beside{stream: stream, session: session, used: func() { s.visits.note(start.TaskId) }}
	r.used()
	go r.feed()
	return r.show()
}

func (s *agentService) end(stream grpc.BidiStreamingServer[pb.ExecInput, pb.ExecOutput], code int, reason string) error {
	return stream.Send(&pb.ExecOutput{Output: &pb.ExecOutput_End{End: &pb.ExecEnd{ExitCode: int32(code), Reason: reason}}})
}

func besideOf(start *pb.ExecStart) exec.Beside {
	b := exec.Beside{Command: start.Command, Terminal: start.Terminal, Rows: uint16(min(start.Size.GetRows(), 1<<15)), Cols: uint16(min(start.Size.GetColumns(), 1<<15))}
	if len(b.Command) == 0 {
		b.Command = loginShell
	}
	if start.Terminal && start.Term != "" {
		b.Env = append(b.Env, "TERM="+start.Term)
	}
	return b
}

// beside joins a command to its caller.
type beside struct {
	stream  grpc.BidiStreamingServer[pb.ExecInput, pb.ExecOutput]
	session *exec.Session
	used    func() // somebody has typed or read

	sending sync.Mutex
	gone    atomic.Bool // the caller
}

// feed passes on what the caller sends until the stream ends, and then ends the command.
func (b *beside) feed() {
	for {
		in, err := b.stream.Recv()
		if err != nil {
			b.gone.Store(true)
			b.session.Close()
			return
		}
		switch in := in.GetInput().(type) {
		case *pb.ExecInput_Stdin:
			b.used()
			if _, err := b.session.Stdin.Write(in.Stdin); err != nil {
				continue // nobody reads it any more; the end comes by itself
			}
		case *pb.ExecInput_StdinEnd:
			_ = b.session.EndInput()
		case *pb.ExecInput_Size:
			_ = b.session.Resize(uint16(min(in.Size.GetRows(), 1<<15)), uint16(min(in.Size.GetColumns(), 1<<15)))
		}
	}
}

// show sends what the command writes, and how it ended.
func (b *beside) show() error {
	var copies sync.WaitGroup
	copies.Go(func() {
		b.copy(b.session.Stdout, func(p []byte) *pb.ExecOutput { return &pb.ExecOutput{Output: &pb.ExecOutput_Stdout{Stdout: p}} })
	})
	if b.session.Stderr != nil {
		copies.Go(func() {
			b.copy(b.session.Stderr, func(p []byte) *pb.ExecOutput { return &pb.ExecOutput{Output: &pb.ExecOutput_Stderr{Stderr: p}} })
		})
	}
	code, err := b.session.Wait()
	if b.gone.Load() {
		copies.Wait()
		return nil
	}
	end := &pb.ExecEnd{ExitCode: int32(code)}
	if err != nil {
		end.ExitCode, end.Reason = 128+9, "the task has ended"
	}
	b.drain(&copies)
	return b.send(&pb.ExecOutput{Output: &pb.ExecOutput_End{End: end}})
}

// drain waits for the output of a command that has ended, but not for as long as a child that
// it left behind keeps it open.
func (b *beside) drain(copies *sync.WaitGroup) {
	limit := time.AfterFunc(interactiveDrain, b.session.Close)
	defer limit.Stop()
	copies.Wait()
}

func (b *beside) copy(from io.Reader, as func([]byte) *pb.ExecOutput) {
	for buf := make([]byte, interactiveBytes); ; {
		n, err := from.Read(buf)
		if n > 0 {
			b.used()
			if b.send(as(append([]byte(nil), buf[:n]...))) != nil {
				b.session.Close()
				return
			}
		}
		if err != nil {
			return
		}
	}
}

func (b *beside) send(m *pb.ExecOutput) error {
	b.sending.Lock()
	defer b.sending.Unlock()
	if err := b.stream.Send(m); err != nil {
		return fmt.Errorf("send to the caller: %w", err)
	}
	return nil
}
