package scheduler

import (
	"cmp"
	"slices"
	"strings"

	"llmos/server/scheduler/fair"
)

// Capacity is what all nodes and devices have, ready and healthy or not, for quotas and
// shares.
func Capacity(nodes []Node) fair.Demand {
	var d fair.Demand
	models := map[string]int64{}
	for i := range nodes {
		d.CPU += nodes[i].CPU
		d.Memory += nodes[i].Memory
		d.Share += int64(len(nodes[i].Devices)) * deviceWhole
		for j := range nodes[i].Devices {
			models[nodes[i].Devices[j].Model] += deviceWhole
		}
	}
	d.Models = modelShares(models)
	return d
}

// Demand is what the job asks for with these counts of its roles; nil: as the roles say. A
// role that accepts several models counts for no model before it is placed.
func (j *Job) Demand(counts []int32) fair.Demand {
	var d fair.Demand
	models := map[string]int64{}
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
			models[role.Task.Model] += share
		}
	}
	d.Models = modelShares(models)
	return d
}

// Demand is what the attempt holds.
func (r *Running) Demand() fair.Demand { return slotsDemand(r.Slots) }

func slotsDemand(slots []Slot) fair.Demand {
	var d fair.Demand
	models := map[string]int64{}
	for i := range slots {
		d.CPU += slots[i].CPU
		d.Memory += slots[i].Memory
		for _, g := range slots[i].Devices {
			d.Share += int64(g.Share)
			if g.Model != "" {
				models[g.Model] += int64(g.Share)
			}
		}
	}
	d.Models = modelShares(models)
	return d
}

func modelShares(models map[string]int64) []fair.ModelShare {
	if len(models) == 0 {
		return nil
	}
	shares := make([]fair.ModelShare, 0, len(models))
	for model, share := range models { // unordered: sorted below
		shares = append(shares, fair.ModelShare{Model: model, Share: share})
	}
	slices.SortFunc(shares, func(a, b fair.ModelShare) int { return strings.Compare(a.Model, b.Model) })
	return shares
}
