package scheduler

import "llmos/server/scheduler/fair"

// queueTree builds the queue tree with what attempts hold; nil when there are no queues. An
// attempt that is being stopped holds until it has stopped.
func (r *round) queueTree() *fair.Tree {
	if len(r.s.Queues) == 0 {
		return nil
	}
	tree := fair.New(r.s.Queues, r.s.Past, r.now.room.capacity())
	r.usage.update(r.s.Running)
	r.usage.book(tree)
	return tree
}

// leastDemand is what the job asks at least: of an elastic one the fewest tasks.
func leastDemand(j *Job) fair.Demand { return j.Demand(leastCounts(j)) }
