package fair

// Cause says why a queue does not admit a job.
type Cause int

// The causes. CauseNone: it is admitted.
const (
	CauseNone        Cause = iota
	CauseQuota             // the queue, or one above it, would hold more than quota and borrowing limit
	CauseLent              // its own quota is left, but others hold what was lent to them
	CauseGuarantee         // the job may not be stopped for others, so it may not borrow
	CauseRunning           // as many jobs of the queue run as may
	CauseUserRunning       // as many jobs of the user run as may
	CauseUserShare         // the user holds as many devices as one may
)

// Verdict is the answer of Admits.
type Verdict struct {
	OK       bool
	Why      Cause
	Queue    string // which one refuses; empty: the cluster as a whole
	Resource string // which it lacks; empty where jobs are counted
	Have     int64  // held of it now, in the resource's unit, or jobs
	Limit    int64  // how much may be held
	Reclaim  bool   // with the job the queue would still be within what it is guaranteed
}

// Admits says whether the quotas of the leaf and of everything above it admit one more job
// with the demand, besides those that were started. Reclaim is filled in either way.
func (t *Tree) Admits(leaf int, user string, d Demand, noPreempt bool) Verdict {
	v := t.vector(d)
	verdict := t.counts(leaf, user, v)
	if verdict.Why == CauseNone {
		verdict = t.amounts(leaf, v, noPreempt)
	}
	verdict.OK = verdict.Why == CauseNone
	verdict.Reclaim = t.guaranteed(leaf, v)
	return verdict
}

// counts checks what is counted in jobs, and what one user may hold.
func (t *Tree) counts(leaf int, user string, v []int64) Verdict {
	for at := leaf; at != 0; at = t.nodes[at].parent {
		n := &t.nodes[at]
		if limit := n.bounds.RunningMax; limit > 0 && n.running >= limit {
			return Verdict{Why: CauseRunning, Queue: n.name, Have: int64(n.running), Limit: int64(limit)}
		}
	}
	bounds := &t.nodes[leaf].bounds
	if bounds.UserRunning == 0 && bounds.UserShareMax == 0 {
		return Verdict{}
	}
	u := t.userOf(leaf, user)
	bounds = &t.nodes[leaf].bounds // userOf may have moved the nodes
	n := &t.nodes[u]
	if limit := bounds.UserRunning; limit > 0 && n.running >= limit {
		return Verdict{Why: CauseUserRunning, Queue: bounds.Name, Have: int64(n.running), Limit: int64(limit)}
	}
	if limit := bounds.UserShareMax; limit > 0 && v[resourceGPU] > 0 && n.used[resourceGPU]+v[resourceGPU] > limit {
		return Verdict{Why: CauseUserShare, Queue: bounds.Name, Resource: "gpu", Have: n.used[resourceGPU], Limit: limit}
	}
	return Verdict{}
}

// amounts walks from the leaf to the root. What a node counts for at its parent is what it
// holds, or what it never lends if that is more; so d is added in full at the leaf and only
// as far as it exceeds the part kept back higher up.
func (t *Tree) amounts(leaf int, v []int64, noPreempt bool) Verdict {
	for r, d := range v {
		if d == 0 {
			continue
		}
		more := d
		for at := leaf; ; at = t.nodes[at].parent {
			n := &t.nodes[at]
			held := n.counted[r]
			if n.limited[r] {
				// The cluster as a whole refuses for the sake of what queues never lend; that
				// it is full, its nodes say.
				if held+more > n.cap[r] && (at != 0 || n.used[r]+d <= n.cap[r]) {
					why := CauseQuota
					if at != leaf && t.within(leaf, v) {
						why = CauseLent
					}
					return Verdict{Why: why, Queue: n.name, Resource: t.resources[r], Have: n.used[r], Limit: n.cap[r]}
				}
				if noPreempt && at != 0 && n.used[r]+d > n.nominal[r] {
					return Verdict{Why: CauseGuarantee, Queue: n.name, Resource: t.resources[r], Have: n.used[r], Limit: n.nominal[r]}
				}
			}
			if at == 0 {
				break
			}
			more = max(held+more, n.reserved[r]) - max(held, n.reserved[r])
		}
	}
	return Verdict{}
}

// guaranteed says whether, with the demand, some queue from the leaf upwards would still
// hold no more than its nominal quota of everything that is asked.
func (t *Tree) guaranteed(leaf int, v []int64) bool {
	for at := leaf; at != 0; at = t.nodes[at].parent {
		if t.within(at, v) {
			return true
		}
	}
	return false
}

// within says whether a queue with limits would hold no more than nominal of what is asked.
// A resource without a limit is not guaranteed; only one with devices needs to be when any
// is asked, since nobody guarantees every core and byte beside the devices.
func (t *Tree) within(at int, v []int64) bool {
	n := &t.nodes[at]
	some := false
	for r, d := range v {
		if d == 0 {
			continue
		}
		if !n.limited[r] {
			continue
		}
		if n.used[r]+d > n.nominal[r] {
			return false
		}
		some = some || r == resourceGPU || r > resourceMemory || v[resourceGPU] == 0
	}
	return some
}

// borrows says whether a queue holds more than it is guaranteed of something that is asked. A
// queue that limits nothing of it is guaranteed nothing; beside what it limits, the rest does
// not count.
func (t *Tree) borrows(at int, v []int64) bool {
	n := &t.nodes[at]
	limited, holds := false, false
	for r, d := range v {
		if d == 0 {
			continue
		}
		if n.limited[r] {
			limited = true
			if n.used[r] > n.nominal[r] {
				return true
			}
		}
		holds = holds || n.used[r] > 0
	}
	return holds && !limited
}

// MayReclaim says whether a job of the leaf from, with demand d, may have a live attempt of
// the leaf victim stopped: below their lowest common queue, from's side must stay within its
// nominal quota with d, and every queue on victim's side must hold more than its own. Book
// each victim with End before asking for the next, and no queue is taken below its quota by
// more than its last gang.
//
// There are no cycles: whoever reclaims stays within its guarantee, and from there nothing
// is reclaimed.
func (t *Tree) MayReclaim(from, victim int, d Demand) bool {
	if from == victim {
		return false
	}
	v := t.vector(d)
	a, b := from, victim
	for t.nodes[a].parent != t.nodes[b].parent {
		if t.nodes[a].depth >= t.nodes[b].depth {
			a = t.nodes[a].parent
			continue
		}
		if !t.borrows(b, v) {
			return false
		}
		b = t.nodes[b].parent
	}
	if a == b || a == 0 || b == 0 {
		return false
	}
	for at := from; ; at = t.nodes[at].parent {
		if t.within(at, v) {
			break
		}
		if at == a {
			return false
		}
	}
	return t.within(a, v) && t.borrows(b, v)
}
