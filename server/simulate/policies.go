package simulate

import (
	"strings"

	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
	"llmos/server/scheduler"
)

// Policy is a scheduling policy by its name, as the replicated configuration and the
// scheduler know it.
type Policy struct {
	Name    string
	About   string // one line for people
	Config  *pb.SchedulerConfig
	Planner scheduler.Policy
}

// PolicyDefault is the policy of a new cluster.
const PolicyDefault = "fair"

// Policies lists what can be simulated, the simplest first.
func Policies() []Policy {
	return []Policy{
		{"fifo", "by submit time; none passes a blocked job", &pb.SchedulerConfig{Order: "fifo", Backfill: "none", NoPreempt: true},
			scheduler.Policy{Order: scheduler.OrderFIFO, Backfill: scheduler.BackfillNone, NoPreempt: true}},
		{"fifo+easy", "by submit time; others may pass the first blocked job if that does not delay it",
			&pb.SchedulerConfig{Order: "fifo", Backfill: "easy", NoPreempt: true},
			scheduler.Policy{Order: scheduler.OrderFIFO, Backfill: scheduler.BackfillEASY, NoPreempt: true}},
		{"fifo+conservative", "by submit time; others may pass blocked jobs if that delays none of them",
			&pb.SchedulerConfig{Order: "fifo", Backfill: "conservative", NoPreempt: true},
			scheduler.Policy{Order: scheduler.OrderFIFO, Backfill: scheduler.BackfillConservative, NoPreempt: true}},
		{"fair", "by fair share over the queues, with EASY backfill", &pb.SchedulerConfig{Order: "fair", Backfill: "easy"},
			scheduler.Policy{Order: scheduler.OrderFair, Backfill: scheduler.BackfillEASY}},
		{"las", "by fair share over the queues, then by what jobs are expected to need still; long ones give way",
			&pb.SchedulerConfig{Order: "las", Backfill: "easy"},
			scheduler.Policy{Order: scheduler.OrderIndex, Backfill: scheduler.BackfillEASY}},
	}
}

// CheckPolicy gives a fault when there is no policy of that name.
func CheckPolicy(name string) error {
	_, err := policyConfig(name)
	return err
}

func policyConfig(name string) (Policy, error) {
	var names []string
	for _, p := range Policies() {
		if p.Name == name {
			return p, nil
		}
		names = append(names, p.Name)
	}
	return Policy{}, fault.New(pb.ErrorKind_ERROR_KIND_INVALID, "there is no policy %q", name).
		Hint("the policies are %s", strings.Join(names, ", ")).At("policy", 0)
}
