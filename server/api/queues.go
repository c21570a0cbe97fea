package api

import (
	"context"
	"slices"
	"strings"

	"llmos/fsm/state"
	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
	"llmos/server/jobspec"
)

const (
	dayMS        = 24 * 60 * 60 * 1000
	usageDaysMax = 100_000 // records of usage in one answer
)

// ListQueues gives the queue tree and how it stands. A stale answer has the records and the
// numbers of jobs alone: shares are the leader's to know.
func (s *cluster) ListQueues(ctx context.Context, req *pb.ListQueuesRequest) (*pb.ListQueuesResponse, error) {
	if req.GetStale() {
		return &pb.ListQueuesResponse{Queues: bareQueues(s.b.Stale())}, nil
	}
	// The barrier first: the controller's answer is then of no older state.
	if _, err := s.b.Read(ctx); err != nil {
		return nil, err
	}
	views, err := s.b.QueueViews(ctx)
	if err != nil {
		return nil, err
	}
	return &pb.ListQueuesResponse{Queues: views}, nil
}

// bareQueues gives the queues with the jobs at and below each, parents first.
func bareQueues(st *state.State) []*pb.QueueView {
	byName := map[string]*pb.QueueView{}
	var out []*pb.QueueView
	for q := range st.Queues() {
		v := &pb.QueueView{Queue: q}
		byName[q.Name] = v
		out = append(out, v)
	}
	slices.SortStableFunc(out, func(a, b *pb.QueueView) int { return byPath(a.Queue.Name, b.Queue.Name) })
	for job := range st.UnfinishedJobs() {
		name := job.GetSpec().GetQueue()
		if name == "" {
			name = defaultQueue
		}
		for v := byName[name]; v != nil; v = byName[v.Queue.Parent] {
			switch job.State {
			case pb.JobState_JOB_STATE_PENDING:
				v.Pending++
			case pb.JobState_JOB_STATE_RUNNING, pb.JobState_JOB_STATE_STOPPING:
				v.Running++
			}
		}
	}
	return out
}

const defaultQueue = "default"

// byPath orders names of the tree level by level, so that children follow their parent.
func byPath(a, b string) int { return slices.Compare(strings.Split(a, "/"), strings.Split(b, "/")) }

// SetQueues changes the queue tree, whole or not at all. What the tree must be like as a
// whole is the state machine's to judge, which alone sees every queue at once.
func (s *cluster) SetQueues(ctx context.Context, req *pb.SetQueuesRequest) (*pb.SetQueuesResponse, error) {
	if len(req.GetQueues())+len(req.GetRemove()) == 0 {
		return nil, fault.New(pb.ErrorKind_ERROR_KIND_INVALID, "the request changes no queue").At("queues", 0)
	}
	if err := jobspec.ValidateQueues(req.GetQueues()); err != nil {
		return nil, err
	}
	if n := len(req.GetRemove()); n > jobspec.QueuesMax {
		return nil, fault.New(pb.ErrorKind_ERROR_KIND_LIMIT, "%d queues are to go, at most %d at a time", n, jobspec.QueuesMax).At("remove", 0)
	}
	for _, name := range req.GetRemove() {
		if err := checkName("remove", name, nameMax); err != nil {
			return nil, err
		}
	}
	res, err := s.propose(ctx, &pb.Command{Op: &pb.Command_SetQueues{SetQueues: &pb.SetQueues{
		Queues: req.GetQueues(), Remove: req.GetRemove(), User: userOf(ctx),
	}}})
	if err != nil {
		return nil, err
	}
	s.log.Info("queues changed", "set", len(req.GetQueues()), "removed", len(req.GetRemove()), "user", userOf(ctx))
	return &pb.SetQueuesResponse{Index: res.Index}, nil
}

// ListUsage gives what was used by queue, user and day, oldest first. What live allocations
// have used today is not in it yet.
func (s *cluster) ListUsage(ctx context.Context, req *pb.ListUsageRequest) (*pb.ListUsageResponse, error) {
	if req.GetFromDay() < 0 || req.GetToDay() < 0 {
		return nil, fault.New(pb.ErrorKind_ERROR_KIND_INVALID, "a day before 1970 holds no usage").At("from_day", 0)
	}
	st, err := s.b.Read(ctx)
	if err != nil {
		return nil, err
	}
	to := req.GetToDay()
	if to == 0 {
		to = s.now(st) / dayMS
	}
	if req.GetFromDay() > to {
		return nil, fault.New(pb.ErrorKind_ERROR_KIND_INVALID, "the first day comes after the last").At("from_day", 0)
	}
	resp := &pb.ListUsageResponse{}
	for day := range st.UsageDays(req.GetFromDay()) {
		if day.Day > to {
			break
		}
		if len(resp.Days) == usageDaysMax {
			return nil, fault.New(pb.ErrorKind_ERROR_KIND_LIMIT, "the answer would have more than %d lines", usageDaysMax).
				Hint("ask for fewer days").At("from_day", 0)
		}
		resp.Days = append(resp.Days, day)
	}
	return resp, nil
}
