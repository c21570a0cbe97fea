package main

import (
	"fmt"

	"llmos/server/scheduler/packing"
)

// bound is the most that any policy could have allocated, in % of the cluster, of the pods
// that arrive until their demand equals the cluster.
func bound(tr *trace, arrivals []pod) (float64, error) {
	at := map[packing.Shape]int{}
	var tasks []packing.Counted
	arrived := int64(0)
	for i := range arrivals {
		s := arrivals[i].shape
		if arrived += s.Demand(); arrived > tr.capacity() {
			break
		}
		k, known := at[s]
		if !known {
			k = len(tasks)
			at[s] = k
			tasks = append(tasks, packing.Counted{Shape: s})
		}
		tasks[k].Tasks++
	}
	devices, ok := packing.Bound(tasks, tr.fleet())
	if !ok {
		return 0, fmt.Errorf("the linear programme of the bound did not reach its optimum")
	}
	return 100 * devices * packing.Whole / float64(tr.capacity()), nil
}
