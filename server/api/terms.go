package api

import (
	"fmt"

	"llmos/fsm/state"
	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
)

// now gives the later of the cluster's time and this server's clock, in Unix milliseconds.
func (s *cluster) now(st *state.State) int64 { return max(st.TimeMS(), s.b.Now().UnixMilli()) }

func checkDeadline(now int64, spec *pb.JobSpec) error {
	if spec.GetDeadlineMs() > 0 && spec.GetDeadlineMs() <= now {
		return fault.New(pb.ErrorKind_ERROR_KIND_INVALID, "the deadline has passed").Hint("give a later one, or none").At("deadline", 0)
	}
	return nil
}

// checkTerms holds what a job that is only planned asks besides its tasks against the state:
// its queue, its dependencies, its deadline and its reservation. Of a job that is submitted
// the state machine judges the same.
func (s *cluster) checkTerms(st *state.State, spec *pb.JobSpec) error {
	if err := checkQueue(st, spec); err != nil {
		return err
	}
	for i, dep := range spec.GetAfter() {
		if st.FindJob(dep.GetJob()) == nil {
			return fault.New(pb.ErrorKind_ERROR_KIND_NOT_FOUND, "there is no job %q to wait for", dep.GetJob()).
				Hint("submit it first, or both at once: llmos run first.yaml second.yaml").At(fmt.Sprintf("after[%d].job", i), 0)
		}
	}
	now := s.now(st)
	if err := checkDeadline(now, spec); err != nil {
		return err
	}
	if name := spec.GetReservation(); name != "" {
		r := st.Reservation(name)
		switch {
		case r == nil:
			return fault.New(pb.ErrorKind_ERROR_KIND_NOT_FOUND, "there is no reservation %q", name).Hint("llmos reserve ls lists them").At("reservation", 0)
		case r.Kind == pb.ReservationKind_RESERVATION_KIND_MAINTENANCE:
			return fault.New(pb.ErrorKind_ERROR_KIND_INVALID, "%s is a maintenance window: nobody runs there", name).At("reservation", 0)
		case r.EndMs <= now:
			return fault.New(pb.ErrorKind_ERROR_KIND_INVALID, "the reservation %s has ended", name).Hint("llmos reserve ls lists those to come").At("reservation", 0)
		}
	}
	return nil
}

func checkQueue(st *state.State, spec *pb.JobSpec) error {
	name := spec.GetQueue()
	if name == "" {
		return nil
	}
	q := st.Queue(name)
	if q == nil {
		return noQueue(name)
	}
	for child := range st.Queues() {
		if child.Parent == name {
			return fault.New(pb.ErrorKind_ERROR_KIND_INVALID, "jobs go to the queues below %s, not to itself", name).
				Hint("such as %s; llmos queue ls lists them", child.Name).At("queue", 0)
		}
	}
	if q.PriorityMax > 0 && spec.GetPriority() > q.PriorityMax {
		return fault.New(pb.ErrorKind_ERROR_KIND_DENIED, "priority %d is above what queue %s admits, %d", spec.GetPriority(), name, q.PriorityMax).
			Hint("lower it, or choose another queue").At("priority", 0)
	}
	return nil
}
