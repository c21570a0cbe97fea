package fsm

import (
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"llmos/fsm/state"
	pb "llmos/proto/llmos/v1"
)

// showLife tells of a job what the scheduler goes by.
func showLife(s *state.State, w words) string {
	j := s.FindJob(w.arg(0))
	if j == nil {
		return "none\n"
	}
	out := fmt.Sprintf("%s %s ready=%d preempted=%d resized=%d run=%d gpu=%d", j.Id, stateOf(j), j.ReadyMs, j.Preemptions, j.Resizes, j.RunMs, j.GpuMilliMs)
	if len(j.BlockedBy) > 0 {
		out += fmt.Sprintf(" blocked by %v", j.BlockedBy)
	}
	if state.IsParent(j) {
		out += fmt.Sprintf(" copies=%d unfinished=%d failed=%d fired=%d", j.Copies, j.CopiesUnfinished, j.CopiesFailed, j.FiredMs)
	}
	for _, a := range j.Avoid {
		out += fmt.Sprintf(" avoids %s until %d", a.NodeId, a.UntilMs)
	}
	for a := range s.Attempts(j.Id) {
		out += fmt.Sprintf("\n  %d %s counts=%v running=%d", a.Epoch, strings.TrimPrefix(a.State.String(), "ATTEMPT_STATE_"), a.Counts, a.RunningMs)
		if a.Preempted {
			out += fmt.Sprintf(" preempted %s for %q: %s", strings.TrimPrefix(a.Eviction.String(), "EVICTION_KIND_"), a.EvictedFor, a.Cause)
		}
	}
	return out + "\n"
}

func showClaim(j *pb.Job) string {
	c := j.Claim
	out := fmt.Sprintf("%s %s until %d counts=%v: %s", j.Id, strings.TrimPrefix(c.Kind.String(), "CLAIM_KIND_"), c.UntilMs, c.Counts, c.Reason)
	for _, slot := range c.Slots {
		out += fmt.Sprintf("\n  %s cpu=%d mem=%d", slot.NodeId, slot.CpuMilli, slot.MemoryBytes)
		for _, d := range slot.Devices {
			out += fmt.Sprintf(" %s:%d", d.DeviceId, d.ShareMilli)
		}
	}
	return out
}

func showCopy(j *pb.Job) string { return fmt.Sprintf("%s %s: %s", j.Id, stateOf(j), j.Reason) }

func showQueue(s *state.State, q *pb.Queue) string {
	n := s.QueueCount(q.Name)
	return fmt.Sprintf("%s; %d pending, %d running, %d parents", plain(q), n.Pending, n.Running, n.Parents)
}

// plain shows the fields of a record that are set, in their order. The text format of the library
// varies its spaces on purpose.
func plain[M proto.Message](rec M) string {
	var parts []string
	m := rec.ProtoReflect()
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		if !m.Has(f) || f.Name() == "modify_index" {
			continue
		}
		parts = append(parts, fmt.Sprintf("%s=%s", f.Name(), value(f, m.Get(f))))
	}
	return "{" + strings.Join(parts, " ") + "}"
}

func value(f protoreflect.FieldDescriptor, v protoreflect.Value) string {
	one := func(v protoreflect.Value) string {
		if f.Message() != nil {
			return plain(v.Message().Interface())
		}
		if f.Enum() != nil {
			return fmt.Sprint(f.Enum().Values().ByNumber(v.Enum()).Name())
		}
		return fmt.Sprint(v.Interface())
	}
	if !f.IsList() {
		return one(v)
	}
	var parts []string
	for i := range v.List().Len() {
		parts = append(parts, one(v.List().Get(i)))
	}
	return "[" + strings.Join(parts, " ") + "]"
}
