package controller

import (
	"maps"
	"slices"

	pb "llmos/proto/llmos/v1"
	"llmos/server/scheduler"
)

// A pass leaves a state in which another one, at the same time and with nothing released,
// would decide nothing: what a gang takes or a stop begins only makes room less. So a pass is
// wanted only by what opens something: a job that begins to wait, room or quota that is
// released, a node or a policy that becomes another. Everything else that a pass weighs moves
// with time, and time has passes of its own (nextPass).

// nodeOpens says whether a node is better than it was, or another one.
func nodeOpens(was, is *scheduler.Node) bool {
	if was.ID == "" || was.Status != is.Status || was.Drained != is.Drained || was.PortMin != is.PortMin || was.PortMax != is.PortMax {
		return true
	}
	if is.CPUFree > was.CPUFree || is.MemFree > was.MemFree || len(is.Ports) < len(was.Ports) || len(is.Devices) != len(was.Devices) {
		return true
	}
	for i := range is.Devices {
		if deviceOpens(&was.Devices[i], &is.Devices[i]) {
			return true
		}
	}
	return !maps.Equal(was.Labels, is.Labels)
}

func deviceOpens(was, is *scheduler.Device) bool {
	free, before := *is, *was
	free.ShareFree, free.MemFree, before.ShareFree, before.MemFree = 0, 0, 0, 0
	return free != before || is.ShareFree > was.ShareFree || is.MemFree > was.MemFree
}

// jobOpens says whether a job asks for something that it did not ask for, or no longer holds
// what it did. was and ended are nil when they were not there.
func jobOpens(was, is *pb.Job, ended, attempt *pb.Attempt) bool {
	if is.State == pb.JobState_JOB_STATE_PENDING {
		claims := was.GetClaim() == nil && is.Claim != nil
		waited := was.GetState() == pb.JobState_JOB_STATE_PENDING && slices.Equal(was.BlockedBy, is.BlockedBy)
		return !waited || !claims // a claim is what a plan made of it
	}
	over := func(a *pb.Attempt) bool { return a == nil || a.State == pb.AttemptState_ATTEMPT_STATE_ENDED }
	return over(attempt) && !over(ended)
}

// nearsWait says whether a waiting job wants to run beside another, which may have started.
func (p *projection) nearsWait() bool {
	return slices.ContainsFunc(p.pending, func(e *jobEntry) bool { return len(e.value.Near) > 0 })
}
