package fsm

import (
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	"llmos/fsm/state"
	pb "llmos/proto/llmos/v1"
)

// resolve makes IDs of the jobs that a spec waits for, and gives those that have not ended. A
// condition that cannot be met any more is refused. What a job waits for exists before it, so no
// job can wait for itself by a detour.
func (a *applier) resolve(spec *pb.JobSpec) (*pb.JobSpec, []string, *pb.Fault) {
	if len(spec.After) == 0 {
		return spec, nil, nil
	}
	spec = proto.CloneOf(spec)
	var blocked []string
	for i, d := range spec.After {
		field := fmt.Sprintf("after[%d].job", i)
		job := a.txn.FindJob(d.Job)
		if job == nil {
			return nil, nil, at(state.Refuse(pb.ErrorKind_ERROR_KIND_NOT_FOUND, "submit it first; llmos ps --all lists the jobs",
				"there is no job %q to wait for", cut(d.Job)), field)
		}
		if slices.ContainsFunc(spec.After[:i], func(o *pb.Dependency) bool { return o.Job == job.Id }) {
			return nil, nil, hinted(invalid(field, "job %s is waited for twice", job.Id), "name it once")
		}
		d.Job = job.Id
		switch {
		case job.GetSpec().GetCron() != nil:
			return nil, nil, at(conflict("wait for one of its copies", "job %s is a cron job, which does not end", job.Id), field)
		case !state.JobFinished(job.State):
			blocked = append(blocked, job.Id)
		case !conditionMet(d.Kind, job.State):
			return nil, nil, at(conflict(fmt.Sprintf("run %s again, or wait for it with another condition", state.JobName(job.Spec)),
				"job %s %s already, so the job would never start", job.Id, endWords[job.State]), field)
		}
	}
	return spec, blocked, nil
}

// conditionMet says whether the end of a job is one that another waited for.
func conditionMet(kind pb.DependencyKind, final pb.JobState) bool {
	switch kind {
	case pb.DependencyKind_DEPENDENCY_KIND_ANY:
		return true
	case pb.DependencyKind_DEPENDENCY_KIND_FAILED:
		return final == pb.JobState_JOB_STATE_FAILED || final == pb.JobState_JOB_STATE_CANCELLED
	}
	return final == pb.JobState_JOB_STATE_SUCCEEDED
}

// waitsFor says in a sentence what a blocked job waits for.
func waitsFor(blocked []string) string {
	if len(blocked) == 1 {
		return "waits for job " + blocked[0] + " to end"
	}
	return "waits for jobs " + shortList(blocked) + " to end"
}

const waitsForPlacement = "waits for a placement"

// dependencyEnded tells a blocked job that one of those it waits for has ended.
func (a *applier) dependencyEnded(ended, blockedID string) *pb.Fault {
	next := state.CopyJob(a.txn.Job(blockedID))
	final := a.txn.Job(ended).GetState()
	met := false
	for _, d := range next.Spec.GetAfter() {
		met = met || d.Job == ended && conditionMet(d.Kind, final)
	}
	if !met {
		return a.finishJob(next, pb.JobState_JOB_STATE_CANCELLED, 0,
			fmt.Sprintf("job %s, for which it waited, %s", ended, endWords[final]))
	}
	next.BlockedBy = slices.DeleteFunc(slices.Clone(next.BlockedBy), func(id string) bool { return id == ended })
	if len(next.BlockedBy) > 0 {
		next.Reason = waitsFor(next.BlockedBy)
		return a.txn.PutJob(next)
	}
	next.BlockedBy, next.Reason, next.ReadyMs = nil, waitsForPlacement, a.readyMS()
	if f := a.txn.PutJob(next); f != nil {
		return f
	}
	a.event("job.unblocked", blockedID, "", "", "job %s %s; %s", ended, endWords[final], next.Reason)
	return nil
}

var endWords = map[pb.JobState]string{
	pb.JobState_JOB_STATE_UNSPECIFIED: "is gone",
	pb.JobState_JOB_STATE_SUCCEEDED:   "succeeded",
	pb.JobState_JOB_STATE_FAILED:      "failed",
	pb.JobState_JOB_STATE_CANCELLED:   "was cancelled",
}

// settleMax bounds how many jobs an entry tells of the ends and stops of others. What is left is
// for the next entry (state.Unsettled).
const settleMax = 1000

// settle carries the ends of jobs to those that wait for them, and the stops of parents to their
// copies. A change that is refused, by a defect, is left for the next entry.
func (a *applier) settle() {
	for left := settleMax; left > 0; {
		id, ended, ok := a.txn.NextUnsettled()
		if !ok {
			return
		}
		ids := a.txn.OpenCopies(id, left)
		if ended {
			ids = a.txn.Dependents(id, left)
		}
		left -= max(len(ids), 1)
		before := a.txn.Savepoint()
		f := a.settleAll(id, ended, ids)
		if f == nil {
			f = a.writeCharges()
		}
		if f != nil {
			a.charged = charged{}
			a.txn.Rollback(before)
			return
		}
	}
}

func (a *applier) settleAll(id string, ended bool, ids []string) *pb.Fault {
	parent := a.txn.Job(id)
	for _, other := range ids {
		var f *pb.Fault
		if ended {
			f = a.dependencyEnded(id, other)
		} else {
			f = a.stop(a.txn.Job(other), parent.Reason, parent.ExitCode != 0)
		}
		if f != nil {
			return f
		}
	}
	return nil
}
