package api

import (
	"sync"

	"google.golang.org/grpc"

	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
	"llmos/transport"
)

// fakeAgent serves the output of tasks as an agent does, on a real port.
type fakeAgent struct {
	pb.UnimplementedAgentServiceServer
	addr string
	stop func()

	mu      sync.Mutex
	changed chan struct{}
	output  map[string]*taskOutput
	hung    bool // answers nothing
	cuts    int  // streams that break after their next chunk
	streams int
	asked   string // what an operator had it do last
}

type taskOutput struct {
	text  string
	ended bool
}

func (r *rig) agent(id string) *fakeAgent {
	r.t.Helper()
	a := &fakeAgent{changed: make(chan struct{}), output: make(map[string]*taskOutput)}
	port, err := transport.Listen("127.0.0.1:0", r.credentials(roleAgent, id), r.log)
	if err != nil {
		r.t.Fatal(err)
	}
	a.addr = port.Addr().String()
	s := grpc.NewServer(transport.ServerOptions()...)
	pb.RegisterAgentServiceServer(s, a)
	go port.Serve()
	go s.Serve(port.Listener(transport.ProtoGRPC))
	a.stop = sync.OnceFunc(func() { s.Stop(); port.Close() })
	r.t.Cleanup(a.stop)
	return a
}

// update changes the agent and wakes its followers.
func (a *fakeAgent) update(change func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	change()
	close(a.changed)
	a.changed = make(chan struct{})
}

// write adds to a task's output, which makes the task known.
func (a *fakeAgent) write(task, text string) {
	a.update(func() {
		if a.output[task] == nil {
			a.output[task] = &taskOutput{}
		}
		a.output[task].text += text
	})
}

func (a *fakeAgent) end(task string) {
	a.write(task, "")
	a.update(func() { a.output[task].ended = true })
}

func (a *fakeAgent) ReadLogs(req *pb.ReadLogsRequest, s grpc.ServerStreamingServer[pb.LogChunk]) error {
	a.mu.Lock()
	a.streams++
	a.mu.Unlock()
	next := req.Offset
	for {
		a.mu.Lock()
		changed, out, hung := a.changed, a.output[req.TaskId], a.hung
		chunk := &pb.LogChunk{TaskId: req.TaskId, Offset: next}
		cut := false
		if out != nil && !hung {
			chunk.Data = []byte(out.text[min(next, int64(len(out.text))):])
			next, chunk.End = next+int64(len(chunk.Data)), out.ended
			if len(chunk.Data) > 0 && a.cuts > 0 {
				a.cuts--
				cut, chunk.End = true, false
			}
		}
		a.mu.Unlock()
		if out == nil && !hung {
			return fault.New(pb.ErrorKind_ERROR_KIND_NOT_FOUND, "no task %s", req.TaskId)
		}
		if len(chunk.Data) > 0 || chunk.End {
			if err := s.Send(chunk); err != nil {
				return err
			}
		}
		if cut {
			return fault.New(pb.ErrorKind_ERROR_KIND_UNAVAILABLE, "the agent is restarting")
		}
		if !hung && (chunk.End || !req.Follow) {
			return nil
		}
		select {
		case <-changed:
		case <-s.Context().Done():
			return s.Context().Err()
		}
	}
}
