package scheduler

import "llmos/server/scheduler/fair"

// queueTree builds the queue tree with what attempts hold; nil when there are no queues. An
// attempt that is being stopped holds until it has stopped.
func (r *round) queueTree() *fair.Tree {
	if len(r.s.Queues) == 0 {
		return nil
	}
	tree := fair.New(r.s.Queues, r.s.Past, Capacity(r.s.Nodes))
	for i := range r.s.Running {
		run := &r.s.Running[i]
		tree.Start(tree.Leaf(run.Queue), run.User, run.Demand())
	}
	return tree
}

// leastDemand is what the job asks at least: of an elastic one the fewest tasks.
func leastDemand(j *Job) fair.Demand { return j.Demand(leastCounts(j)) }
