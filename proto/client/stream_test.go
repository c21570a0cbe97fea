package client_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"pgregory.net/rapid"

	"llmos/proto/client"
	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
)

// TestWatchResumes lets the stream break in every way and checks that the client goes on
// from the last index, under the job's ID, until the final state.
func TestWatchResumes(t *testing.T) {
	view := func(index uint64, s pb.JobState) *pb.JobView {
		return &pb.JobView{Index: index, Job: &pb.Job{Id: "x-1", State: s}}
	}
	const running, done = pb.JobState_JOB_STATE_RUNNING, pb.JobState_JOB_STATE_SUCCEEDED
	var asked []string
	f, r := &fake{}, newRig(t)
	f.addr = "a"
	f.watch = func(req *pb.WatchJobRequest, s grpc.ServerStreamingServer[pb.JobView]) error {
		asked = append(asked, fmt.Sprintf("%s after %d", req.JobId, req.AfterIndex))
		switch len(asked) {
		case 1:
			return errors.Join(s.Send(view(3, running)), s.Send(view(5, running)), kinded(notLeader))
		case 2:
			return nil // ends too early
		case 3:
			err := s.Send(view(9, running))
			<-s.Context().Done() // until the client's fn has cut the connection
			return err
		}
		return s.Send(view(12, done))
	}
	r.start(f)
	c, _ := r.client("a")
	var got []uint64
	err := c.WatchJob(testContext(t), "x", func(v *pb.JobView) error {
		if got = append(got, v.Index); v.Index == 9 {
			r.cut()
		}
		return nil
	})
	if err != nil || !slices.Equal(got, []uint64{3, 5, 9, 12}) {
		t.Errorf("got %v, %v", got, err)
	}
	if want := []string{"x after 0", "x-1 after 5", "x-1 after 5", "x-1 after 9"}; !slices.Equal(asked, want) {
		t.Errorf("asked %q, want %q", asked, want)
	}
}

func TestWatchEnds(t *testing.T) {
	mine := fault.New(unavailable, "fn has had enough")
	f := &fake{watch: func(_ *pb.WatchJobRequest, s grpc.ServerStreamingServer[pb.JobView]) error {
		return s.Send(&pb.JobView{Index: 1, Job: &pb.Job{Id: "x-1"}})
	}}
	c, _ := newRig(t, f).client("server-0")
	if err := c.WatchJob(testContext(t), "x", func(*pb.JobView) error { return mine }); err != error(mine) {
		t.Errorf("an error of fn came back as %v", err)
	}
	ctx, cancel := context.WithCancel(testContext(t))
	err := c.WatchJob(ctx, "x", func(*pb.JobView) error { cancel(); return nil })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	f.watch = func(*pb.WatchJobRequest, grpc.ServerStreamingServer[pb.JobView]) error {
		return kinded(pb.ErrorKind_ERROR_KIND_NOT_FOUND)
	}
	if err := c.WatchJob(testContext(t), "x", nil); fault.Kind(err) != pb.ErrorKind_ERROR_KIND_NOT_FOUND {
		t.Errorf("missing job: %v", err)
	}
}

// logStore is a job with the output of each rank in each of its attempts, served as the
// real servers do, but cut after some chunks.
type logStore struct {
	output [][]string // by attempt from 1, by rank
	chunk  int        // bytes
	cuts   []int      // chunks after which the 1st, 2nd, ... stream breaks; then none does

	mu       sync.Mutex
	streams  int
	requests []*pb.ReadLogsRequest
}

func (l *logStore) world() int32 { return int32(len(l.output[0])) }

func (l *logStore) get(context.Context, *pb.GetJobRequest) (*pb.JobView, error) {
	return &pb.JobView{Job: &pb.Job{Id: "x-1", Spec: &pb.JobSpec{Roles: []*pb.RoleSpec{{Count: l.world()}}}}}, nil
}

func (l *logStore) serve(req *pb.ReadLogsRequest, s grpc.ServerStreamingServer[pb.LogChunk]) error {
	l.mu.Lock()
	left := -1
	if l.streams < len(l.cuts) {
		left = l.cuts[l.streams]
	}
	l.streams++
	l.requests = append(l.requests, req)
	l.mu.Unlock()
	if req.JobId != "x-1" || req.Rank < 0 && req.Offset > 0 {
		return kinded(pb.ErrorKind_ERROR_KIND_INVALID)
	}
	epoch := max(1, int(req.Epoch))
	last := epoch
	if req.Follow {
		last = len(l.output)
	}
	offset := int(req.Offset)
	for ; epoch <= last; epoch++ {
		for rank, text := range l.output[epoch-1] {
			if req.Rank >= 0 && req.Rank != int32(rank) {
				continue
			}
			for at := min(offset, len(text)); at <= len(text); at += l.chunk {
				if left == 0 {
					return kinded(unavailable)
				}
				left--
				end := min(at+l.chunk, len(text))
				c := &pb.LogChunk{TaskId: fmt.Sprintf("x-1.e%d.r%d", epoch, rank), Rank: int32(rank),
					Data: []byte(text[at:end]), Offset: int64(at), End: end == len(text)}
				if err := s.Send(c); err != nil {
					return err
				}
			}
		}
		offset = 0
	}
	return nil
}

// TestLogsResumeExactly breaks the streams at arbitrary places: each rank's bytes must
// come once, in order, and with follow those of the later attempts too.
func TestLogsResumeExactly(t *testing.T) {
	f := &fake{}
	c, _ := newRig(t, f).client("server-0")
	rapid.Check(t, func(t *rapid.T) {
		world := rapid.IntRange(1, 5).Draw(t, "world")
		if rapid.IntRange(0, 9).Draw(t, "huge") == 0 {
			world = 70 // more than are resumed one by one
		}
		store := &logStore{chunk: rapid.IntRange(1, 7).Draw(t, "chunk"), cuts: rapid.SliceOfN(rapid.IntRange(0, 9), 0, 6).Draw(t, "cuts")}
		for range rapid.IntRange(1, 3).Draw(t, "attempts") {
			store.output = append(store.output, rapid.SliceOfN(rapid.StringMatching(`[a-z]{0,20}`), world, world).Draw(t, "output"))
		}
		follow, one := rapid.Bool().Draw(t, "follow"), rapid.Bool().Draw(t, "one rank")
		f.get, f.logs = store.get, store.serve
		req := &pb.ReadLogsRequest{JobId: "x", Rank: -1, Follow: follow}
		if one {
			req.Rank = 0
		}
		got := make(map[string]*bytes.Buffer)
		err := c.ReadLogs(context.Background(), req, func(chunk *pb.LogChunk) error {
			b := got[chunk.TaskId]
			if b == nil {
				b = &bytes.Buffer{}
				got[chunk.TaskId] = b
			}
			if int64(b.Len()) != chunk.Offset {
				t.Errorf("%s: offset %d after %d bytes", chunk.TaskId, chunk.Offset, b.Len())
			}
			b.Write(chunk.Data)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		for e, ranks := range store.output {
			for rank, want := range ranks {
				if one && rank > 0 || !follow && e > 0 {
					continue
				}
				text := ""
				if b := got[fmt.Sprintf("x-1.e%d.r%d", e+1, rank)]; b != nil {
					text = b.String()
				}
				if text != want {
					t.Errorf("attempt %d rank %d: got %q, want %q", e+1, rank, text, want)
				}
			}
		}
	})
}

// TestLogsTellWhatIsMissing passes a final fault on, after the bytes.
func TestLogsTellWhatIsMissing(t *testing.T) {
	store := &logStore{chunk: 4, output: [][]string{{"abcdef"}}}
	f := &fake{get: store.get, logs: func(req *pb.ReadLogsRequest, s grpc.ServerStreamingServer[pb.LogChunk]) error {
		return errors.Join(store.serve(req, s), kinded(pb.ErrorKind_ERROR_KIND_NOT_FOUND))
	}}
	c, _ := newRig(t, f).client("server-0")
	text := ""
	err := c.ReadLogs(testContext(t), &pb.ReadLogsRequest{JobId: "x", Rank: -1}, func(c *pb.LogChunk) error {
		text += string(c.Data)
		return nil
	})
	if text != "abcdef" || fault.Kind(err) != pb.ErrorKind_ERROR_KIND_NOT_FOUND {
		t.Errorf("got %q, %v", text, err)
	}
	mine := errors.New("enough")
	if err := c.ReadLogs(testContext(t), &pb.ReadLogsRequest{JobId: "x"}, func(*pb.LogChunk) error { return mine }); err != mine {
		t.Errorf("an error of fn came back as %v", err)
	}
}

func TestFinished(t *testing.T) {
	for s, name := range pb.JobState_name {
		want := s >= int32(pb.JobState_JOB_STATE_SUCCEEDED) && s <= int32(pb.JobState_JOB_STATE_CANCELLED)
		if client.Finished(pb.JobState(s)) != want {
			t.Errorf("%s: want %v", name, want)
		}
	}
}
