package fsm

import (
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	"llmos/fsm/state"
	pb "llmos/proto/llmos/v1"
)

// resumePoint chooses what the next attempt of a job goes on from: the newest good step of which a
// node that answers holds each part. nil: it begins anew. A job that was submitted to go on from
// another one's checkpoint never begins anew: without a node that has it, it is not placed.
func (a *applier) resumePoint(job *pb.Job) (*pb.ResumePoint, *pb.Fault) {
	steps := a.txn.SavedSteps(job.Id)
	silent := state.NewestGood(steps)
	for i := range steps {
		if steps[i].Good && steps[i].Reachable(a.txn.Node) {
			return &pb.ResumePoint{Epoch: steps[i].Epoch, Step: steps[i].Step}, nil
		}
	}
	if job.Spec.Resume != nil {
		return nil, state.Refuse(pb.ErrorKind_ERROR_KIND_UNAVAILABLE, "wait until a node that holds it is back", "the checkpoint that job %s goes on from is on no node that answers", job.Id)
	}
	if silent != nil {
		a.event("checkpoint.unreachable", job.Id, "", "", "no node that holds step %d answers, nor one that holds an older step: the attempt begins anew", silent.Step)
	}
	return nil, nil
}

// refuseResume marks the step that an attempt could not go on from, so that the next one takes the
// step before.
func (a *applier) refuseResume(task *pb.Task, reason string) *pb.Fault {
	attempt := a.txn.Attempt(task.JobId, task.Epoch)
	step := a.txn.SavedStep(task.JobId, attempt.GetResume())
	if step == nil || step.Fault() != "" {
		return nil
	}
	for _, c := range step.Ranks {
		next := state.CopyCheckpoint(c)
		next.Fault = cut(fmt.Sprintf("rank %d could not go on from it: %s", task.Rank, reason))
		if reason == "" {
			next.Fault = fmt.Sprintf("rank %d could not go on from it", task.Rank)
		}
		a.txn.PutCheckpoint(next)
	}
	a.event("checkpoint.broken", task.JobId, task.Id, task.NodeId, "rank %d could not go on from step %d: %s", task.Rank, step.Step, cut(reason))
	return a.refreshSaved(task.JobId)
}

// stranded reports whether a job was to go on from another one's checkpoint, and nothing is left of
// it to go on from.
func (a *applier) stranded(job *pb.Job) bool {
	return job.Spec.Resume != nil && state.NewestGood(a.txn.SavedSteps(job.Id)) == nil
}

// resolveResume makes an ID and a step of the checkpoint that a spec wants to start from, and gives
// that step's parts.
func (a *applier) resolveResume(spec *pb.JobSpec, user string) (*pb.JobSpec, []*pb.Checkpoint, *pb.Fault) {
	want := spec.Resume
	if want == nil {
		return spec, nil, nil
	}
	if !a.keepsCheckpoints() {
		return nil, nil, at(conflict("upgrade every server", "this cluster's state version does not know checkpoints yet"), "resume")
	}
	job := a.txn.FindJob(want.Job)
	if job == nil {
		return nil, nil, at(state.Refuse(pb.ErrorKind_ERROR_KIND_NOT_FOUND, "llmos ps --all lists the jobs", "there is no job %q to go on from", cut(want.Job)), "resume")
	}
	if job.User != user && state.JobQueue(job.Spec) != state.JobQueue(spec) {
		return nil, nil, at(state.Refuse(pb.ErrorKind_ERROR_KIND_DENIED, fmt.Sprintf("submit to queue %s, or let %s do it", state.JobQueue(job.Spec), job.User),
			"job %s is another user's, and of another queue", job.Id), "resume")
	}
	steps := a.txn.SavedSteps(job.Id)
	i := slices.IndexFunc(steps, func(s state.SavedStep) bool { return s.Good && (want.Step == 0 || s.Step == want.Step) })
	if i < 0 {
		what := "no good checkpoint"
		if want.Step != 0 {
			what = fmt.Sprintf("no good checkpoint of step %d", want.Step)
		}
		return nil, nil, at(state.Refuse(pb.ErrorKind_ERROR_KIND_NOT_FOUND, "llmos checkpoints "+job.Id+" lists them", "job %s has %s", job.Id, what), "resume")
	}
	spec = proto.CloneOf(spec)
	spec.Resume = &pb.ResumeSpec{Job: job.Id, Step: steps[i].Step}
	return spec, steps[i].Ranks, nil
}

// takeOver gives a new job its own record of the checkpoint that it starts from, so that it does
// not matter what becomes of the job that saved it.
func (a *applier) takeOver(job *pb.Job, parts []*pb.Checkpoint) *pb.Fault {
	if len(parts) == 0 {
		return nil
	}
	ranks := make([]int32, 0, len(parts))
	for _, c := range parts {
		next := state.CopyCheckpoint(c)
		next.JobId, next.Epoch = job.Id, 0
		next.Origin = fmt.Sprintf("%s@%d", c.JobId, c.Step)
		a.txn.PutCheckpoint(next)
		ranks = append(ranks, c.Rank)
	}
	return a.refreshSaved(job.Id, ranks...)
}

func checkResume(s *pb.JobSpec) *pb.Fault {
	if c := s.Checkpoint; c != nil {
		switch {
		case len(c.Path) > textBytesMax:
			return invalid("checkpoint.path", "the path is %d bytes long, at most %d", len(c.Path), textBytesMax)
		case c.Keep < 0 || c.Keep > checkpointsKeptMax:
			return invalid("checkpoint.keep", "%d checkpoints cannot be kept, 1 to %d can", c.Keep, checkpointsKeptMax)
		case c.Ranks < 0 || c.Ranks > pb.CheckpointRanks_CHECKPOINT_RANKS_EACH:
			return invalid("checkpoint.ranks", "%d says nothing of ranks", c.Ranks)
		}
	}
	switch r := s.Resume; {
	case r == nil:
		return nil
	case !state.ValidID(r.Job):
		return invalid("resume", "%q cannot be a job", cut(r.Job))
	case r.Step < 0 || r.Step > timeMSMax:
		return invalid("resume", "step %d is not possible", r.Step)
	case s.Array != nil || s.Cron != nil:
		return hinted(invalid("resume", "the copies of a job do not go on from a checkpoint"), "let one job go on from it")
	}
	return nil
}
