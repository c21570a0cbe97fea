package api

import (
	"context"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"llmos/fsm/state"
	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
)

const (
	telemetryEvery = 100 * time.Millisecond // between looks at the progress of a job that runs
	leaderCheck    = time.Second            // between looks whether this server still leads, and at why a job waits
	viewGapPerTask = 100 * time.Microsecond // between two views, so that large jobs are shown less often
	viewGapMost    = time.Second
)

// WatchJob sends the job's view and a new one after each change, until its final state.
// While the reader is slow nothing queues up: it gets the newest view next.
func (s *cluster) WatchJob(req *pb.WatchJobRequest, stream grpc.ServerStreamingServer[pb.JobView]) error {
	ctx := stream.Context()
	st, err := s.b.Read(ctx)
	if err != nil {
		return err
	}
	job, err := findJob(st, req.GetJobId())
	if err != nil {
		return err
	}
	w := &watcher{s: s, id: job.Id, send: stream.Send, seen: req.GetAfterIndex()}
	return w.run(ctx, st)
}

// watcher is one WatchJob.
type watcher struct {
	s    *cluster
	id   string
	send func(*pb.JobView) error
	seen uint64      // index of the newest view that the reader has
	last *pb.JobView // the last one looked at here; nil before the first
}

func (w *watcher) run(ctx context.Context, st *state.State) error {
	look := time.NewTicker(telemetryEvery)
	defer look.Stop()
	lead := time.NewTicker(leaderCheck)
	defer lead.Stop()
	for {
		// The channel comes from the state that is looked at, so no change falls between.
		changed := st.WatchJob(w.id)
		done, err := w.show(ctx, st)
		if done || err != nil {
			return err
		}
		if err := w.await(ctx, changed, look.C, lead.C); err != nil {
			return err
		}
		st = w.s.b.Stale()
	}
}

// await returns when there is perhaps something to show.
func (w *watcher) await(ctx context.Context, changed <-chan struct{}, look, lead <-chan time.Time) error {
	for {
		select {
		case <-changed:
			return nil
		case <-look:
			if !w.pending() && w.telemetryChanged() {
				return nil
			}
		case <-lead:
			if err := stillLeader(w.s.b); err != nil {
				return err
			}
			if w.pending() && w.telemetryChanged() {
				return nil
			}
		case <-w.s.b.Stopping():
			return stopping()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// pending says whether the job waits. Why it does is the controller's to say, which has
// better to do than to answer every watcher ten times a second.
func (w *watcher) pending() bool { return w.last.Job.State == pb.JobState_JOB_STATE_PENDING }

// telemetryChanged looks at what changes without the state.
func (w *watcher) telemetryChanged() bool {
	fresh := &pb.JobView{Job: w.last.Job}
	w.s.addTelemetry(fresh)
	return !sameTelemetry(fresh, w.last)
}

// show sends the view if it says anything new, and says whether it was the last.
func (w *watcher) show(ctx context.Context, st *state.State) (done bool, err error) {
	job := st.Job(w.id)
	if job == nil {
		return true, fault.New(pb.ErrorKind_ERROR_KIND_NOT_FOUND, "job %s has been forgotten", w.id)
	}
	v := w.s.view(st, job)
	if w.isNews(v) {
		if err := w.send(v); err != nil {
			return true, err
		}
		w.seen = v.Index
		if !finished(job.State) {
			pause(ctx, min(viewGapMost, viewGapPerTask*time.Duration(len(v.Tasks))))
		}
	}
	w.last = v
	return finished(job.State), nil
}

func (w *watcher) isNews(v *pb.JobView) bool {
	if modified(v) > w.seen {
		return true
	}
	if w.last == nil { // resumed: telemetry has no index, so it may be new
		return len(v.Progress) > 0 || v.WaitingReason != ""
	}
	return !sameTelemetry(v, w.last)
}

func sameTelemetry(a, b *pb.JobView) bool {
	return a.WaitingReason == b.WaitingReason && slices.EqualFunc(a.Progress, b.Progress, sameProgress)
}

func sameProgress(a, b *pb.Progress) bool { return a == b || proto.Equal(a, b) }

// modified gives the index of the newest change of the job or its tasks.
func modified(v *pb.JobView) uint64 {
	newest := v.Job.ModifyIndex
	for _, t := range v.Tasks {
		newest = max(newest, t.ModifyIndex)
	}
	if n := len(v.Events); n > 0 {
		newest = max(newest, v.Events[n-1].Index)
	}
	return newest
}

// stillLeader cuts a stream that was started here as the leader's when another server
// leads now: this one's state may stand still without its knowing.
func stillLeader(b Backend) error {
	_, addr, isMe := b.Leader()
	if isMe {
		return nil
	}
	return notLeader(b.ServerID(), addr)
}

func finished(s pb.JobState) bool {
	switch s {
	case pb.JobState_JOB_STATE_SUCCEEDED, pb.JobState_JOB_STATE_FAILED, pb.JobState_JOB_STATE_CANCELLED:
		return true
	}
	return false
}

// pause waits for d or the end of ctx.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
