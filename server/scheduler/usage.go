package scheduler

import "llmos/server/scheduler/fair"

// usage is what live attempts hold, by queue and user. A cache keeps it between passes: an
// attempt that is still the same costs one comparison.
type usage struct {
	attempts []booked // of the last pass, in its order
	spare    []booked
	holders  []holder
	at       map[[2]string]int32 // in holders, by queue and user
	leaves   []int               // of this pass's tree, by holder
}

// booked is an attempt that counts.
type booked struct {
	job    string
	epoch  uint64
	slots  *Slot // the first: slots are never modified, so the same ones hold the same
	count  int   // of slots
	holder int32
	demand fair.Demand
}

// holder is a user of a queue.
type holder struct {
	queue, user string
	attempts    int32
	demand      fair.Demand
}

// reorderMax is how far ahead in the last pass's order an attempt is looked for; one that is
// not found there is counted anew.
const reorderMax = 64

// holdersMax bounds the holders that are kept; beyond it they are counted anew.
const holdersMax = 100_000

// update brings the sums up to what runs now.
func (u *usage) update(running []Running) {
	if u.at == nil || len(u.holders) > holdersMax {
		*u = usage{at: map[[2]string]int32{}}
	}
	next, old := u.spare[:0], u.attempts
	for i := range running {
		run := &running[i]
		found := -1
		for k := 0; k < len(old) && k < reorderMax && found < 0; k++ {
			if u.same(&old[k], run) {
				found = k
			}
		}
		if found < 0 {
			next = append(next, u.add(run))
			continue
		}
		u.drop(old[:found])
		next = append(next, old[found])
		old = old[found+1:]
	}
	u.drop(old)
	u.attempts, u.spare = next, u.attempts
}

func (u *usage) same(b *booked, run *Running) bool {
	return b.epoch == run.Epoch && b.count == len(run.Slots) && (b.count == 0 || b.slots == &run.Slots[0]) && b.job == run.JobID &&
		u.holders[b.holder].user == run.User && u.holders[b.holder].queue == run.Queue
}

func (u *usage) add(run *Running) booked {
	key := [2]string{run.Queue, run.User}
	at, known := u.at[key]
	if !known {
		at = int32(len(u.holders))
		u.at[key] = at
		u.holders = append(u.holders, holder{queue: run.Queue, user: run.User})
	}
	b := booked{job: run.JobID, epoch: run.Epoch, count: len(run.Slots), holder: at, demand: run.Demand()}
	if b.count > 0 {
		b.slots = &run.Slots[0]
	}
	u.holders[at].count(&b.demand, 1)
	return b
}

func (u *usage) drop(gone []booked) {
	for i := range gone {
		u.holders[gone[i].holder].count(&gone[i].demand, -1)
	}
}

func (h *holder) count(d *fair.Demand, sign int64) {
	h.attempts += int32(sign)
	h.demand.CPU += sign * d.CPU
	h.demand.Memory += sign * d.Memory
	h.demand.Share += sign * d.Share
	for _, m := range d.Models {
		h.demand.Models = addShare(h.demand.Models, m.Model, sign*m.Share)
	}
}

// book enters the sums into a tree.
func (u *usage) book(tree *fair.Tree) {
	u.leaves = u.leaves[:0]
	for i := range u.holders {
		leaf, h := -1, &u.holders[i]
		if h.attempts > 0 {
			leaf = tree.Leaf(h.queue)
			tree.StartSeveral(leaf, h.user, h.demand, h.attempts)
		}
		u.leaves = append(u.leaves, leaf)
	}
}

// leaf gives the leaf of an attempt, by its index in the snapshot.
func (u *usage) leaf(attempt int) int { return u.leaves[u.attempts[attempt].holder] }
