package fsm

import (
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"llmos/fsm/state"
	pb "llmos/proto/llmos/v1"
)

// The words of the scheduling policy, and its bounds.
var (
	orderWords    = []string{"", "fair", "fifo", "las"}
	backfillWords = []string{"", "easy", "conservative", "none"}
)

const (
	policyMSMax    = int64(366) * 24 * 60 * 60 * 1000 // of a duration in the policy
	blockedJobsMax = 1000                             // that may have a reservation
	avoidMSDefault = 3_600_000
)

// setSchedulerConfig replaces the scheduling policy.
func (a *applier) setSchedulerConfig(c *pb.SetSchedulerConfig) *pb.Fault {
	next, old := c.GetConfig(), a.txn.SchedulerConfig()
	if f := checkPolicy(next); f != nil {
		return f
	}
	if len(c.User) > state.IDBytesMax {
		return invalid("user", "the user's name is %d bytes long, at most %d", len(c.User), state.IDBytesMax)
	}
	next = proto.CloneOf(next)
	next.ModifyIndex = old.ModifyIndex
	changes := policyChanges(old, next)
	if len(changes) == 0 {
		return nil
	}
	a.txn.PutSchedulerConfig(next)
	a.event("config.changed", "", "", "", "scheduling policy%s: %s", by(c.User), cut(strings.Join(changes, ", ")))
	return nil
}

func checkPolicy(p *pb.SchedulerConfig) *pb.Fault {
	switch {
	case p == nil:
		return invalid("config", "there is no policy")
	case !slices.Contains(orderWords, p.Order):
		return hinted(invalid("config.order", "%q is no order", cut(p.Order)), "one of %s", strings.Join(orderWords[1:], ", "))
	case !slices.Contains(backfillWords, p.Backfill):
		return hinted(invalid("config.backfill", "%q is no way to backfill", cut(p.Backfill)), "one of %s", strings.Join(backfillWords[1:], ", "))
	case p.ReservationsMax < 0 || p.ReservationsMax > blockedJobsMax:
		return hinted(invalid("config.reservations_max", "%d jobs cannot have a reservation", p.ReservationsMax), "0 to %d; 0 means the default", blockedJobsMax)
	}
	for _, d := range []struct {
		name     string
		ms       int64
		negative bool // has a meaning
	}{
		{"hold_after_ms", p.HoldAfterMs, false}, {"usage_half_life_ms", p.UsageHalfLifeMs, true}, {"min_run_ms", p.MinRunMs, true},
		{"restart_ms", p.RestartMs, false}, {"elastic_every_ms", p.ElasticEveryMs, true}, {"avoid_ms", p.AvoidMs, true}, {"claim_ms", p.ClaimMs, false},
	} {
		if d.ms > policyMSMax || d.ms < -policyMSMax || d.ms < 0 && !d.negative {
			return hinted(invalid("config."+d.name, "%d ms are not possible", d.ms), "0 means the default, and a year is the most")
		}
	}
	return nil
}

// policyChanges tells which fields change, in their order.
func policyChanges(old, next *pb.SchedulerConfig) (out []string) {
	was, is := old.ProtoReflect(), next.ProtoReflect()
	fields := is.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		if !was.Get(f).Equal(is.Get(f)) {
			out = append(out, fmt.Sprintf("%s from %s to %s", f.Name(), policyWord(was, f), policyWord(is, f)))
		}
	}
	return out
}

func policyWord(p protoreflect.Message, f protoreflect.FieldDescriptor) string {
	if !p.Has(f) && f.Kind() != protoreflect.BoolKind {
		return "default"
	}
	return p.Get(f).String()
}

// avoid makes a job avoid the node on which its task failed by itself, for a while.
func (a *applier) avoid(jobID, nodeID string) *pb.Fault {
	forMS := a.txn.SchedulerConfig().AvoidMs
	if forMS == 0 {
		forMS = avoidMSDefault
	}
	if forMS < 0 || !a.keepsTimes() {
		return nil
	}
	next := state.CopyJob(a.txn.Job(jobID))
	next.Avoid = slices.DeleteFunc(slices.Clone(next.Avoid), func(n *pb.AvoidedNode) bool {
		return n.NodeId == nodeID || n.UntilMs <= a.txn.TimeMS()
	})
	if len(next.Avoid) >= state.AvoidedNodesMax {
		next.Avoid = next.Avoid[1:]
	}
	next.Avoid = append(next.Avoid, &pb.AvoidedNode{NodeId: nodeID, UntilMs: a.txn.TimeMS() + forMS})
	return a.txn.PutJob(next)
}
