package scheduler

import (
	"cmp"
	"slices"

	"llmos/server/scheduler/fair"
)

// Capacity is what all nodes and devices have, ready and healthy or not, for quotas and
// shares.
func Capacity(nodes []Node) fair.Demand {
	var d fair.Demand
	last, share := "", int64(0) // neighbours are mostly alike
	for i := range nodes {
		d.CPU += nodes[i].CPU
		d.Memory += nodes[i].Memory
		d.Share += int64(len(nodes[i].Devices)) * deviceWhole
		for j := range nodes[i].Devices {
			if model := nodes[i].Devices[j].Model; model != last {
				if share > 0 {
					d.Models = addShare(d.Models, last, share)
				}
				last, share = model, 0
			}
			share += deviceWhole
		}
	}
	if share > 0 {
		d.Models = addShare(d.Models, last, share)
	}
	return d
}

// Demand is what the job asks for with these counts of its roles; nil: as the roles say. A
// role that accepts several models counts for no model before it is placed.
func (j *Job) Demand(counts []int32) fair.Demand {
	var d fair.Demand
	for i := range j.Roles {
		role := &j.Roles[i]
		count := int64(role.Count)
		if i < len(counts) {
			count = int64(counts[i])
		}
		share := count * int64(role.Task.GPUs) * cmp.Or(int64(role.Task.Share), deviceWhole)
		d.CPU += count * role.Task.CPU
		d.Memory += count * role.Task.Memory
		d.Share += share
		if role.Task.Model != "" && share > 0 {
			d.Models = addShare(d.Models, role.Task.Model, share)
		}
	}
	return d
}

// Demand is what the attempt holds.
func (r *Running) Demand() fair.Demand { return slotsDemand(r.Slots) }

func slotsDemand(slots []Slot) fair.Demand {
	var d fair.Demand
	for i := range slots {
		d.CPU += slots[i].CPU
		d.Memory += slots[i].Memory
		for j := range slots[i].Devices {
			g := &slots[i].Devices[j]
			d.Share += int64(g.Share)
			if g.Model != "" {
				d.Models = addShare(d.Models, g.Model, int64(g.Share))
			}
		}
	}
	return d
}

// addShare adds to a model's share; the list is in order of model, and mostly has one.
func addShare(shares []fair.ModelShare, model string, share int64) []fair.ModelShare {
	at := 0
	for ; at < len(shares) && shares[at].Model <= model; at++ {
		if shares[at].Model == model {
			shares[at].Share += share
			return shares
		}
	}
	return slices.Insert(shares, at, fair.ModelShare{Model: model, Share: share})
}
