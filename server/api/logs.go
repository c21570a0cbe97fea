package api

import (
	"context"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc"

	"llmos/fsm/state"
	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
)

const (
	allRanks      = -1
	followMost    = 1024                   // tasks that one call follows at once
	agentSilence  = 5 * time.Second        // without a byte from an agent that should have some: it is cut off
	agentRetries  = 3                      // further tries for a task that has ended
	agentBackoff  = 100 * time.Millisecond // before the first of them, doubling
	agentBackoffN = time.Second            // at most
)

// ReadLogs merges the output of a job's tasks from their agents. Without follow it gives
// what there is, rank after rank. With follow it gives all ranks as they write, waits while
// the job is pending, goes on with the next attempt when the gang is started again, and
// ends with the job. What cannot be read is told at the end, after all that can.
func (s *cluster) ReadLogs(req *pb.ReadLogsRequest, stream grpc.ServerStreamingServer[pb.LogChunk]) error {
	st, err := s.b.Read(stream.Context())
	if err != nil {
		return err
	}
	job, err := findJob(st, req.GetJobId())
	if err != nil {
		return err
	}
	if isParent(job) {
		return fault.New(pb.ErrorKind_ERROR_KIND_INVALID, "%s starts copies, and what they print is theirs", job.Id).
			Hint("llmos logs %s_0 shows the first copy's", job.Id)
	}
	if err := checkLogs(req, job); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(stream.Context())
	defer cancel(nil)
	r := &logRead{
		b: s.b, job: job.Id, rank: req.GetRank(), follow: req.GetFollow(), cancel: cancel, stream: stream,
		offset: req.GetOffset(), tail: req.GetTailLines(), silence: s.silence(),
	}
	epoch := req.GetEpoch()
	if epoch == 0 {
		epoch = job.Epoch
	}
	if err := r.run(ctx, epoch); err != nil {
		return err
	}
	return r.missing()
}

// silence is agentSilence, or what a test has set.
func (s *cluster) silence() time.Duration {
	if s.agentSilence > 0 {
		return s.agentSilence
	}
	return agentSilence
}

func checkLogs(req *pb.ReadLogsRequest, job *pb.Job) error {
	world := int32(0)
	for _, role := range job.GetSpec().GetRoles() {
		world += role.GetCount()
	}
	switch {
	case req.GetOffset() < 0 || req.GetTailLines() < 0 || req.GetRank() < allRanks:
		return fault.New(pb.ErrorKind_ERROR_KIND_INVALID, "offset, lines and rank cannot be negative")
	case req.GetRank() == allRanks && req.GetOffset() > 0:
		return fault.New(pb.ErrorKind_ERROR_KIND_INVALID, "an offset counts the bytes of one task: name its rank").At("offset", 0)
	case req.GetRank() >= world:
		return fault.New(pb.ErrorKind_ERROR_KIND_NOT_FOUND, "job %s has no rank %d", job.Id, req.GetRank()).
			Hint("its ranks are 0 to %d", world-1).At("rank", 0)
	case req.GetEpoch() > job.Epoch:
		return fault.New(pb.ErrorKind_ERROR_KIND_NOT_FOUND, "job %s has had no attempt %d yet", job.Id, req.GetEpoch()).At("epoch", 0)
	case req.GetFollow() && req.GetRank() == allRanks && world > followMost:
		return fault.New(pb.ErrorKind_ERROR_KIND_LIMIT, "%d ranks are too many to follow at once; the most is %d", world, followMost).
			Hint("name one with --rank")
	}
	return nil
}

// logRead is one ReadLogs.
type logRead struct {
	b       Backend
	job     string
	rank    int32
	follow  bool
	offset  int64 // of the first attempt that is read
	tail    int64 // of the first attempt that is read
	silence time.Duration
	cancel  context.CancelCauseFunc

	sending sync.Mutex // held while the caller is sent a chunk
	stream  grpc.ServerStreamingServer[pb.LogChunk]

	mu   sync.Mutex
	gaps []gap // what could not be read
}

// gap is a task whose output could not be read, or not to its end.
type gap struct {
	task *pb.Task
	why  string
}

func (r *logRead) run(ctx context.Context, epoch uint64) error {
	if !r.follow {
		r.inTurn(ctx, r.tasks(epoch))
		return context.Cause(ctx)
	}
	go r.watchLeader(ctx)
	for {
		if epoch > 0 {
			r.atOnce(ctx, r.tasks(epoch))
			if err := context.Cause(ctx); err != nil {
				return err
			}
			r.offset = 0
		}
		r.tail = 0 // a later attempt is read from its beginning
		next, err := r.nextAttempt(ctx, epoch)
		if err != nil || next == 0 {
			return err
		}
		epoch = next
	}
}

func (r *logRead) tasks(epoch uint64) []*pb.Task {
	var tasks []*pb.Task
	for t := range r.b.Stale().JobTasks(r.job, epoch) {
		if r.rank == allRanks || r.rank == t.Rank {
			tasks = append(tasks, t)
		}
	}
	return tasks
}

// inTurn reads what there is. A node that did not answer once is not asked again.
func (r *logRead) inTurn(ctx context.Context, tasks []*pb.Task) {
	armed := make(chan struct{})
	close(armed)
	dead := make(map[string]string)
	for _, task := range tasks {
		if ctx.Err() != nil {
			return
		}
		if why, is := dead[task.NodeId]; is {
			r.note(task, why)
			continue
		}
		t := &taskRead{r: r, task: task, next: r.offset, tail: r.tail}
		if err := t.once(ctx, armed); err != nil && ctx.Err() == nil {
			why := t.why(err)
			if fault.Kind(err) != pb.ErrorKind_ERROR_KIND_NOT_FOUND {
				dead[task.NodeId] = why
			}
			if why != "" {
				r.note(task, why)
			}
		}
	}
}

// atOnce follows the tasks of one attempt until each has ended or cannot be read any more.
func (r *logRead) atOnce(ctx context.Context, tasks []*pb.Task) {
	var wg sync.WaitGroup
	for _, task := range tasks {
		wg.Go(func() {
			t := &taskRead{r: r, task: task, next: r.offset, tail: r.tail}
			if why := t.follow(ctx); why != "" {
				r.note(task, why)
			}
		})
	}
	wg.Wait()
}

// nextAttempt waits for the attempt after epoch; 0 when the job has ended.
func (r *logRead) nextAttempt(ctx context.Context, epoch uint64) (uint64, error) {
	for {
		st := r.b.Stale()
		changed := st.WatchJob(r.job)
		job := st.Job(r.job)
		switch {
		case job == nil:
			return 0, fault.New(pb.ErrorKind_ERROR_KIND_NOT_FOUND, "job %s has been forgotten", r.job)
		case job.Epoch > epoch:
			return epoch + 1, nil
		case finished(job.State):
			return 0, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	}
}

// watchLeader cuts the stream when another server leads (see stillLeader) or this one stops.
func (r *logRead) watchLeader(ctx context.Context) {
	look := time.NewTicker(leaderCheck)
	defer look.Stop()
	for {
		select {
		case <-look.C:
			if err := stillLeader(r.b); err != nil {
				r.cancel(err)
				return
			}
		case <-r.b.Stopping():
			r.cancel(stopping())
			return
		case <-ctx.Done():
			return
		}
	}
}

func (r *logRead) note(task *pb.Task, why string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.gaps = append(r.gaps, gap{task: task, why: why})
}

// missing is the fault of what could not be read. It is NOT_FOUND and not UNAVAILABLE: the
// cluster did answer, and asking at once again would give no more.
func (r *logRead) missing() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.gaps) == 0 {
		return nil
	}
	first, more := r.gaps[0], ""
	if n := len(r.gaps) - 1; n > 0 {
		more = fmt.Sprintf(", and so for %d more ranks", n)
	}
	return fault.New(pb.ErrorKind_ERROR_KIND_NOT_FOUND, "the output of rank %d of attempt %d is not complete: %s%s",
		first.task.Rank, first.task.Epoch, first.why, more).
		Hint("everything else was shown; ask again when the node is back")
}

// task gives the newest record of a task, or the one given when it is forgotten.
func currentTask(st *state.State, task *pb.Task) *pb.Task {
	if now := st.Task(task.Id); now != nil {
		return now
	}
	return task
}

func ended(t *pb.Task) bool {
	return t.State != pb.TaskState_TASK_STATE_ASSIGNED && t.State != pb.TaskState_TASK_STATE_RUNNING
}
