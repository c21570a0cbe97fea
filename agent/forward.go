package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"

	"llmos/agent/exec"
	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
)

// connectTimeout bounds the connection to a port of this host.
const connectTimeout = 5 * time.Second

// Forward joins a caller, who is on the other side of a server, to a port on which a process
// of the task listens. What else listens on this host is not reached by it.
func (s *agentService) Forward(stream grpc.BidiStreamingServer[pb.ForwardInput, pb.ForwardOutput]) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	start := first.GetStart()
	if start == nil || start.Port < 1 || start.Port > 65535 {
		return fault.New(pb.ErrorKind_ERROR_KIND_INVALID, "a connection needs a port, 1 to 65535").At("port", 0)
	}
	dir, done, err := s.visit(stream, start.TaskId)
	if err != nil {
		return err
	}
	defer done()
	addr, err := exec.Listens(dir, int(start.Port))
	if err != nil {
		return fault.New(pb.ErrorKind_ERROR_KIND_UNAVAILABLE, "no process of task %s listens on port %d of node %s: %w", start.TaskId, start.Port, s.site.nodeName, err).
			Hint("start the program first, or look at its log: llmos logs %s", jobOfTask(start.TaskId))
	}
	dialer := net.Dialer{Timeout: connectTimeout}
	conn, err := dialer.DialContext(stream.Context(), "tcp", net.JoinHostPort(addr, strconv.Itoa(int(start.Port))))
	if err != nil {
		return fault.New(pb.ErrorKind_ERROR_KIND_UNAVAILABLE, "connect to port %d of task %s: %w", start.Port, start.TaskId, err)
	}
	defer conn.Close()
	if err := stream.Send(&pb.ForwardOutput{Output: &pb.ForwardOutput_Connected{Connected: true}}); err != nil {
		return err
	}
	return joinPort(stream, conn.(*net.TCPConn), func() { s.visits.note(start.TaskId) })
}

// jobOfTask reads the job off a task ID, <job>.e<epoch>.r<rank>.
func jobOfTask(taskID string) string {
	if at := strings.LastIndex(taskID, ".e"); at > 0 {
		return taskID[:at]
	}
	return taskID
}

// joinPort copies both ways until both ends have closed, or one has gone.
func joinPort(stream grpc.BidiStreamingServer[pb.ForwardInput, pb.ForwardOutput], conn *net.TCPConn, used func()) error {
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	var inward sync.WaitGroup
	inward.Go(func() {
		for {
			in, err := stream.Recv()
			switch {
			case err != nil || in.GetDataEnd():
				if errors.Is(err, io.EOF) || err == nil {
					_ = conn.CloseWrite()
				} else {
					cancel()
				}
				return
			default:
				used()
				if _, err := conn.Write(in.GetData()); err != nil {
					return // the other direction says that it has gone
				}
			}
		}
	})
	err := sendPort(stream, conn, used)
	inward.Wait()
	return err
}

func sendPort(stream grpc.BidiStreamingServer[pb.ForwardInput, pb.ForwardOutput], conn net.Conn, used func()) error {
	for buf := make([]byte, interactiveBytes); ; {
		n, err := conn.Read(buf)
		if n > 0 {
			used()
			if err := stream.Send(&pb.ForwardOutput{Output: &pb.ForwardOutput_Data{Data: append([]byte(nil), buf[:n]...)}}); err != nil {
				return fmt.Errorf("send to the caller: %w", err)
			}
		}
		if err != nil {
			return stream.Send(&pb.ForwardOutput{Output: &pb.ForwardOutput_DataEnd{DataEnd: true}})
		}
	}
}
