package scheduler

import (
	"cmp"
	"slices"
	"strings"
)

// inOrder gives the jobs in scheduling order: priority descending, then submit order. It
// is total, so that equal snapshots give equal plans.
func inOrder(jobs []Job) []Job {
	if slices.IsSortedFunc(jobs, byRank) {
		return jobs
	}
	jobs = slices.Clone(jobs)
	slices.SortFunc(jobs, byRank)
	return jobs
}

func byRank(a, b Job) int {
	return cmp.Or(
		cmp.Compare(b.Priority, a.Priority),
		cmp.Compare(a.Submit, b.Submit),
		cmp.Compare(a.Ordinal, b.Ordinal),
		strings.Compare(a.ID, b.ID))
}
