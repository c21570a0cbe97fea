package state

import (
	"slices"

	pb "llmos/proto/llmos/v1"
)

func checkClaims(c *checker) {
	for j := range c.s.Jobs() {
		claim := j.Claim
		if claim == nil {
			continue
		}
		newest := c.s.Attempt(j.Id, j.Epoch).GetState()
		if JobFinished(j.State) || IsParent(j) || newest == pb.AttemptState_ATTEMPT_STATE_LIVE {
			c.fail("room is kept for job %s, which is %s with its attempt %s", j.Id, Word(j.State), Word(newest))
		}
		if claim.UntilMs <= 0 || claim.Kind < pb.ClaimKind_CLAIM_KIND_REPAIR || claim.Kind > pb.ClaimKind_CLAIM_KIND_RESIZE {
			c.fail("the room kept for job %s is of kind %d, until %d", j.Id, claim.Kind, claim.UntilMs)
		}
		for _, slot := range claim.Slots {
			if c.s.Node(slot.GetNodeId()) == nil {
				c.fail("room is kept for job %s on node %q, which does not exist", j.Id, slot.GetNodeId())
			}
		}
	}
}

func checkQueues(c *checker) {
	inner := map[string]bool{}
	for q := range c.s.Queues() {
		if q.Parent != QueueParent(q.Name) || q.Parent != "" && c.s.Queue(q.Parent) == nil {
			c.fail("queue %s is below queue %q", q.Name, q.Parent)
		}
		if q.Weight < 1 {
			c.fail("queue %s has a weight of %d", q.Name, q.Weight)
		}
		inner[q.Parent] = true
		for _, l := range q.Limits {
			given := int64(0)
			for child := range records(c.s.queues, []byte(q.Name+QueueSeparator)) {
				if child.Parent == q.Name {
					given = SatAdd(given, nominal(c.s, child, l.Resource))
				}
			}
			if l.Nominal < 0 || given > l.Nominal {
				c.fail("queue %s has %d of %s, and guarantees %d", q.Name, l.Nominal, l.Resource, given)
			}
		}
	}
	if inner[DefaultQueue] {
		c.fail("queue %s has queues below it", DefaultQueue)
	}
	if c.s.Cluster() != nil && c.s.Queue(DefaultQueue) == nil {
		c.fail("there is no queue %s", DefaultQueue)
	}
	for queue := range c.s.QueueCounts() {
		if inner[queue] || queue != DefaultQueue && c.s.Queue(queue) == nil {
			c.fail("queue %s has unfinished jobs, and takes none", queue)
		}
	}
}

// nominal is what a queue is guaranteed, or those below it when it has no limit itself.
func nominal(s *State, q *pb.Queue, resource string) (n int64) {
	for _, l := range q.Limits {
		if l.Resource == resource {
			return l.Nominal
		}
	}
	for child := range records(s.queues, []byte(q.Name+QueueSeparator)) {
		if child.Parent == q.Name {
			n = SatAdd(n, nominal(s, child, resource))
		}
	}
	return n
}

func checkBlocked(c *checker) {
	for j := range c.s.Jobs() {
		if len(j.BlockedBy) > 0 && j.State != pb.JobState_JOB_STATE_PENDING {
			c.fail("job %s is %s and waits for %v", j.Id, Word(j.State), j.BlockedBy)
		}
		for i, id := range j.BlockedBy {
			named := slices.ContainsFunc(j.Spec.GetAfter(), func(d *pb.Dependency) bool { return d.Job == id })
			if !named || c.s.Job(id) == nil || slices.Contains(j.BlockedBy[:i], id) {
				c.fail("job %s waits for job %q, which does not exist or is not named once", j.Id, id)
			}
		}
	}
}

func checkCopies(c *checker) {
	type counts struct{ all, unfinished, failed int32 }
	found := map[string]counts{}
	for j := range c.s.Jobs() {
		if j.Parent == "" {
			continue
		}
		parent := c.s.Job(j.Parent)
		if parent == nil || !IsParent(parent) || IsParent(j) {
			c.fail("job %s is a copy of %q, which makes none", j.Id, j.Parent)
			continue
		}
		n := found[j.Parent]
		n.all++
		if !JobFinished(j.State) {
			n.unfinished++
		} else if j.State != pb.JobState_JOB_STATE_SUCCEEDED {
			n.failed++
		}
		found[j.Parent] = n
	}
	for j := range c.s.Jobs() {
		n := found[j.Id]
		if !IsParent(j) {
			if j.Copies != 0 || j.CopiesUnfinished != 0 {
				c.fail("job %s makes no copies, and has %d", j.Id, j.Copies)
			}
			continue
		}
		if j.CopiesUnfinished != n.unfinished || j.CopiesFailed < n.failed || j.Copies < n.all {
			c.fail("job %s has %d copies, %d unfinished and %d failed, and there are %d, %d and %d", j.Id, j.Copies, j.CopiesUnfinished,
				j.CopiesFailed, n.all, n.unfinished, n.failed)
		}
		if array := j.Spec.GetArray(); array != nil && !JobFinished(j.State) && (j.Copies != array.Count || n.all != j.Copies || n.failed != j.CopiesFailed || n.unfinished == 0) {
			c.fail("array %s of %d copies is %s, and there are %d, %d of them unfinished", j.Id, array.Count, Word(j.State), n.all, n.unfinished)
		}
		if j.Epoch != 0 || j.Spec.GetCron() == nil && JobFinished(j.State) && n.unfinished > 0 {
			c.fail("job %s is %s, with %d unfinished copies, at epoch %d", j.Id, Word(j.State), n.unfinished, j.Epoch)
		}
	}
}

func checkReservations(c *checker) {
	for r := range c.s.Reservations() {
		if r.StartMs <= 0 || r.EndMs <= r.StartMs || r.Nodes < 0 || r.Gpus < 0 {
			c.fail("reservation %s of %d nodes and %d devices is from %d to %d", r.Name, r.Nodes, r.Gpus, r.StartMs, r.EndMs)
		}
		if len(r.NodeIds) == 0 && r.Nodes == 0 && r.Gpus == 0 {
			c.fail("reservation %s is of nothing", r.Name)
		}
		for i, id := range r.NodeIds {
			if c.s.Node(id) == nil || slices.Contains(r.NodeIds[:i], id) {
				c.fail("reservation %s is of node %q, which does not exist or is there twice", r.Name, id)
			}
		}
	}
}

func checkUsage(c *checker) {
	for u := range records(c.s.usage, nil) {
		if u.Day < 0 || u.GpuMilliMs < 0 || u.CpuMilliMs < 0 || u.Jobs < 0 || u.Day > c.s.timeMS/DayMS {
			c.fail("on day %d %q used %d, %d through queue %s for %d jobs", u.Day, u.User, u.GpuMilliMs, u.CpuMilliMs, u.Queue, u.Jobs)
		}
	}
	for j := range c.s.Jobs() {
		if j.GpuMilliMs < 0 || j.RunMs < 0 || j.Preemptions < 0 || j.Resizes < 0 || max(j.ReadyMs, j.FiredMs) > c.s.timeMS {
			c.fail("job %s used %d, ran %d ms, is ready since %d", j.Id, j.GpuMilliMs, j.RunMs, j.ReadyMs)
		}
		if len(j.Avoid) > AvoidedNodesMax {
			c.fail("job %s avoids %d nodes", j.Id, len(j.Avoid))
		}
	}
}
