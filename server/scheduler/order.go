package scheduler

import (
	"cmp"
	"slices"
	"strings"

	"llmos/server/scheduler/fair"
)

// sequence hands out the pending jobs in scheduling order, one after the other: by priority,
// then by fair share over the queue tree, then by submit; under OrderIndex by the index
// instead, into which the caller has worked what a queue has used. Which queue's turn it is
// depends on what was placed before, so that the order exists only as it is asked for.
type sequence struct {
	jobs   []Job // by byRank
	policy Policy
	tree   *fair.Tree // nil: there are no queues
	leaf   []int      // by job; nil without a tree
	turns  *fair.Order
	next   int
}

// newSequence starts with the jobs in the order of rank. tree may be nil.
func newSequence(jobs []Job, policy Policy, tree *fair.Tree, demand func(*Job) fair.Demand) *sequence {
	q := &sequence{jobs: jobs, policy: policy, tree: tree}
	if tree == nil {
		return q
	}
	q.leaf = make([]int, len(jobs))
	for i := range jobs {
		q.leaf[i] = tree.Leaf(jobs[i].Queue)
	}
	if policy.Order == OrderFair {
		items := make([]fair.Item, len(jobs))
		for i := range jobs {
			items[i] = fair.Item{Leaf: q.leaf[i], User: jobs[i].User, Priority: jobs[i].Priority, Demand: demand(&jobs[i])}
		}
		q.turns = tree.Order(items)
	}
	return q
}

// pop gives the index of the job whose turn is next; ok is false at the end.
func (q *sequence) pop() (i int, ok bool) {
	if q.turns != nil {
		return q.turns.Next()
	}
	q.next++
	return q.next - 1, q.next <= len(q.jobs)
}

// admits asks the queue tree whether quotas admit the job with the demand. claimed says that
// room is claimed for it: that it stays within its guarantee was seen to then.
func (q *sequence) admits(i int, d fair.Demand, claimed bool) fair.Verdict {
	if q.tree == nil {
		return fair.Verdict{OK: true}
	}
	return q.tree.Admits(q.leaf[i], q.jobs[i].User, d, q.jobs[i].NoPreempt && !claimed)
}

// placed books what the job that was given last holds from now on.
func (q *sequence) placed(i int, d fair.Demand) {
	switch {
	case q.turns != nil:
		q.turns.Placed(d)
	case q.tree != nil:
		q.tree.Start(q.leaf[i], q.jobs[i].User, d)
	}
}

// urgentMS is the slack below which a job with a deadline goes before others of its priority
// and, where there are queues, of its user.
const urgentMS = 600_000

// latestStart is the time until which a job can start and meet its deadline; forever when it
// has none, has missed it, or has time enough.
func latestStart(j *Job, nowMS int64) int64 {
	if j.DeadlineMS <= nowMS {
		return forever
	}
	if latest := j.DeadlineMS - max(j.Q90, 0); latest <= nowMS+urgentMS {
		return latest
	}
	return forever
}

// inOrder gives the jobs by rank, which is total, so that equal snapshots give equal plans.
func inOrder(jobs []Job, policy Policy, nowMS int64) []Job {
	rank := byRank
	if policy.Order == OrderIndex {
		rank = byIndex
	}
	for i := range jobs {
		if jobs[i].DeadlineMS > 0 {
			usual := rank
			rank = func(a, b *Job) int {
				return cmp.Or(cmp.Compare(b.Priority, a.Priority), cmp.Compare(latestStart(a, nowMS), latestStart(b, nowMS)), usual(a, b))
			}
			break
		}
	}
	sorted := true
	for i := 1; i < len(jobs) && sorted; i++ {
		sorted = rank(&jobs[i-1], &jobs[i]) <= 0
	}
	if sorted {
		return jobs
	}
	at := make([]*Job, len(jobs)) // the values are large
	for i := range jobs {
		at[i] = &jobs[i]
	}
	slices.SortFunc(at, rank)
	ordered := make([]Job, len(jobs))
	for i := range at {
		ordered[i] = *at[i]
	}
	return ordered
}

func byRank(a, b *Job) int {
	switch {
	case a.Priority != b.Priority:
		return cmp.Compare(b.Priority, a.Priority)
	case a.Submit != b.Submit:
		return cmp.Compare(a.Submit, b.Submit)
	}
	return cmp.Or(cmp.Compare(a.Ordinal, b.Ordinal), strings.Compare(a.ID, b.ID))
}

// byIndex puts a lower index first among equal priorities.
func byIndex(a, b *Job) int {
	return cmp.Or(cmp.Compare(b.Priority, a.Priority), cmp.Compare(a.Index, b.Index), byRank(a, b))
}
