package fsm

import (
	"fmt"
	"strings"

	"llmos/fsm/state"
	pb "llmos/proto/llmos/v1"
)

// leavesShown is how many queues a hint names.
const leavesShown = 5

// admit checks a valid spec against the state.
func (a *applier) admit(spec *pb.JobSpec) *pb.Fault {
	if f := a.admitQueue(spec, waitingOf(spec)); f != nil {
		return f
	}
	queue := state.JobQueue(spec)
	if spec.Name != "" {
		if taken := a.txn.NameTaken(queue, spec.Name); taken != nil {
			f := conflict(fmt.Sprintf("stop it with llmos stop %s, or choose another name", taken.Id),
				"a job named %q is still %s as %s", spec.Name, stillDoing[taken.State], taken.Id)
			return at(f, "name")
		}
	}
	if n := a.txn.UnfinishedJobs(); n+jobsOf(spec) > unfinishedJobsMax {
		return limit("wait until some have finished", "the cluster has %d unfinished jobs already", n)
	}
	if n := a.txn.NameCount(); n >= jobNamesMax && !a.txn.KnowsName(state.JobName(spec)) {
		return limit("use a name that was used before", "the cluster has seen %d names of jobs already", n)
	}
	if spec.Reservation != "" {
		r := a.txn.Reservation(spec.Reservation)
		if r == nil {
			return at(state.Refuse(pb.ErrorKind_ERROR_KIND_NOT_FOUND, "llmos reserve makes one", "there is no reservation %q", cut(spec.Reservation)), "reservation")
		}
		if r.Kind != pb.ReservationKind_RESERVATION_KIND_USE {
			return at(conflict("leave reservation out", "reservation %s is a maintenance window: nothing runs there", r.Name), "reservation")
		}
	}
	return nil
}

// admitQueue checks a spec, of which so many jobs would wait, against its queue.
func (a *applier) admitQueue(spec *pb.JobSpec, waiting int) *pb.Fault {
	name := state.JobQueue(spec)
	queue := a.txn.Queue(name)
	switch {
	case queue == nil && name != state.DefaultQueue:
		return at(state.Refuse(pb.ErrorKind_ERROR_KIND_NOT_FOUND, "leave queue out, or use "+a.leaves(""), "there is no queue %q", name), "queue")
	case a.txn.IsInnerQueue(name):
		return at(hinted(invalid("queue", "queue %s has queues below it, which take its jobs", name), "use %s", a.leaves(name)), "queue")
	case queue.GetPriorityMax() > 0 && spec.Priority > queue.PriorityMax:
		return hinted(invalid("priority", "priority %d is more than queue %s allows", spec.Priority, name), "at most %d", queue.PriorityMax)
	}
	if n := int(a.txn.QueueCount(name).Pending); queue.GetPendingMax() > 0 && waiting > 0 && n+waiting > int(queue.PendingMax) {
		return at(limit("wait until some have started", "queue %s may have %d jobs waiting, and %d wait already: no room for %d more", name, queue.PendingMax, n, waiting), "queue")
	}
	return nil
}

// leaves names a few queues below a queue that take jobs.
func (a *applier) leaves(below string) string {
	names := a.txn.LeavesBelow(below, leavesShown+1)
	if len(names) == 0 {
		names = []string{state.DefaultQueue}
	}
	if len(names) > leavesShown {
		return strings.Join(names[:leavesShown], ", ") + " or another"
	}
	if last := len(names) - 1; last > 0 {
		return strings.Join(names[:last], ", ") + " or " + names[last]
	}
	return names[0]
}

var stillDoing = map[pb.JobState]string{
	pb.JobState_JOB_STATE_PENDING:   "waiting",
	pb.JobState_JOB_STATE_RUNNING:   "running",
	pb.JobState_JOB_STATE_STOPPING:  "stopping",
	pb.JobState_JOB_STATE_SCHEDULED: "scheduled",
}
