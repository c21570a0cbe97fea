package scheduler

import (
	"strings"

	"llmos/server/scheduler/fair"
)

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

// modelsMatter says whether some quota is by device model.
func (r *round) modelsMatter() bool {
	for i := range r.s.Queues {
		for _, l := range r.s.Queues[i].Limits {
			if strings.HasPrefix(l.Resource, "gpu:") {
				return true
			}
		}
	}
	return false
}

// takenSince is what the room gave since the trail had this length, by device model.
func (r *room) takenSince(mark int) fair.Demand {
	var d fair.Demand
	for _, entry := range r.trail[mark:] {
		d.CPU += entry.cpu
		d.Memory += entry.memory
		spec, first := &r.spec[entry.node], r.nodes[entry.node].first
		for _, g := range r.granted[entry.first:entry.last] {
			d.Share += int64(g.share)
			d.Models = addShare(d.Models, spec.Devices[g.device-first].Model, int64(g.share))
		}
	}
	return d
}
