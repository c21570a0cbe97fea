package client_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"llmos/proto/client"
	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
)

// testTime bounds every test that could wait for ever.
const testTime = 10 * time.Second

// fake is one scripted server. A nil script refuses with UNAVAILABLE.
type fake struct {
	pb.UnimplementedClusterServiceServer
	addr   string
	submit func(*pb.SubmitJobRequest) (*pb.SubmitJobResponse, error)
	get    func(context.Context, *pb.GetJobRequest) (*pb.JobView, error)
	stop   func(*pb.StopJobRequest) (*pb.StopJobResponse, error)
	token  func() (*pb.CreateJoinTokenResponse, error)
	watch  func(*pb.WatchJobRequest, grpc.ServerStreamingServer[pb.JobView]) error
	logs   func(*pb.ReadLogsRequest, grpc.ServerStreamingServer[pb.LogChunk]) error

	mu    sync.Mutex
	calls []string // methods, in order
}

func (f *fake) note(method string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, method)
}

func (f *fake) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.calls)
}

func scripted() error { return fault.New(pb.ErrorKind_ERROR_KIND_UNAVAILABLE, "not scripted") }

func (f *fake) SubmitJob(_ context.Context, r *pb.SubmitJobRequest) (*pb.SubmitJobResponse, error) {
	f.note("SubmitJob")
	if f.submit == nil {
		return nil, scripted()
	}
	return f.submit(r)
}

func (f *fake) GetJob(ctx context.Context, r *pb.GetJobRequest) (*pb.JobView, error) {
	f.note("GetJob")
	if f.get == nil {
		return nil, scripted()
	}
	return f.get(ctx, r)
}

func (f *fake) StopJob(_ context.Context, r *pb.StopJobRequest) (*pb.StopJobResponse, error) {
	f.note("StopJob")
	if f.stop == nil {
		return nil, scripted()
	}
	return f.stop(r)
}

func (f *fake) CreateJoinToken(context.Context, *pb.CreateJoinTokenRequest) (*pb.CreateJoinTokenResponse, error) {
	f.note("CreateJoinToken")
	if f.token == nil {
		return nil, scripted()
	}
	return f.token()
}

func (f *fake) WatchJob(r *pb.WatchJobRequest, s grpc.ServerStreamingServer[pb.JobView]) error {
	f.note("WatchJob")
	if f.watch == nil {
		return scripted()
	}
	return f.watch(r, s)
}

func (f *fake) ReadLogs(r *pb.ReadLogsRequest, s grpc.ServerStreamingServer[pb.LogChunk]) error {
	f.note("ReadLogs")
	if f.logs == nil {
		return scripted()
	}
	return f.logs(r, s)
}

// rig runs fakes on in-memory listeners, each under its name as the address. Only
// addresses with a fake answer.
type rig struct {
	t  *testing.T
	mu sync.Mutex
	ln map[string]*bufconn.Listener

	conns []net.Conn // the clients' ends
}

// cut breaks every connection there is.
func (r *rig) cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.conns {
		c.Close()
	}
	r.conns = nil
}

func newRig(t *testing.T, fakes ...*fake) *rig {
	r := &rig{t: t, ln: make(map[string]*bufconn.Listener)}
	for i, f := range fakes {
		if f.addr == "" {
			f.addr = fmt.Sprintf("server-%d", i)
		}
		r.start(f)
	}
	return r
}

// start serves a fake until the returned function, or the end of the test.
func (r *rig) start(f *fake) (stop func()) {
	ln := bufconn.Listen(1 << 16)
	s := grpc.NewServer()
	pb.RegisterClusterServiceServer(s, f)
	go s.Serve(ln)
	r.mu.Lock()
	r.ln[f.addr] = ln
	r.mu.Unlock()
	r.t.Cleanup(s.Stop)
	return func() {
		r.mu.Lock()
		delete(r.ln, f.addr)
		r.mu.Unlock()
		s.Stop()
	}
}

func (r *rig) dial(addr string) (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
			r.mu.Lock()
			ln := r.ln[addr]
			r.mu.Unlock()
			if ln == nil {
				return nil, errors.New("connection refused")
			}
			conn, err := ln.DialContext(ctx)
			if err == nil {
				r.mu.Lock()
				r.conns = append(r.conns, conn)
				r.mu.Unlock()
			}
			return conn, err
		}))
}

// client makes a client whose backoffs take no time and are counted, and whose IDs count up.
func (r *rig) client(addrs ...string) (*client.Client, *int) {
	var mu sync.Mutex
	ids, waits := 0, new(int)
	c := client.New(addrs, r.dial,
		client.WithRequestIDs(func() string {
			mu.Lock()
			defer mu.Unlock()
			ids++
			return fmt.Sprintf("request-%d", ids)
		}),
		client.WithJitter(func() float64 { return 0 }),
		client.WithSleep(func(context.Context, time.Duration) {
			mu.Lock()
			defer mu.Unlock()
			*waits++
		}),
		client.WithLimits(2*time.Second, 5*time.Second))
	r.t.Cleanup(func() { c.Close() })
	return c, waits
}

func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), testTime)
	t.Cleanup(cancel)
	return ctx
}

func kinded(kind pb.ErrorKind) error { return fault.New(kind, "scripted %v", kind).Hint("a hint") }
