package scheduler

// beaten is a job for which not even all the attempts that may be stopped for it would have
// made room: others that ask as much, and may stop no more, need no search of their own.
type beaten struct {
	priority    int32
	index       float64
	leaf        int
	user        string
	noPreempt   bool
	reservation string
	groups      []group
}

// beatenMax bounds the list, which is gone through for each blocked job.
const beatenMax = 64

// note remembers a search that was in vain. Conditions would have to be compared as well, so
// that a job with any is not remembered.
func (a *attack) note() {
	if len(a.lost) == beatenMax || !a.job.unconditional() {
		return
	}
	a.lost = append(a.lost, beaten{priority: a.job.Priority, index: a.job.Index, leaf: a.leaf, user: a.job.User, noPreempt: a.job.NoPreempt,
		reservation: a.job.Reservation, groups: a.groups})
}

func (j *Job) unconditional() bool {
	return j.Where == nil && j.Within == "" && j.Spread == "" && len(j.Near) == 0 && len(j.Apart) == 0
}

// hopeless says whether a search in vain speaks for this job too. The room only shrinks during
// a pass, and so do the attempts that may be stopped.
func (r *round) hopeless(i int) bool {
	if r.policy.thorough {
		return false
	}
	job := &r.jobs[i]
	if job.elastic() {
		small := job.sized(0)
		job = &small
	}
	leaf := emptyTreeLeaf
	if r.turns.tree != nil {
		leaf = r.turns.leaf[i]
	}
	r.asked = r.now.room.appendGroups(r.asked[:0], job, nil)
	for k := range r.lost {
		if b := &r.lost[k]; r.mayStopNoMore(job, leaf, b) && asksAsMuch(r.asked, b.groups) {
			return true
		}
	}
	return false
}

// quotasMoved forgets the searches in vain where quotas say who may be stopped for whom: a queue
// that holds more now may have become one from which others take back.
func (r *round) quotasMoved() {
	if r.turns.tree != nil && r.turns.tree.Bounded() {
		r.lost = r.lost[:0]
	}
}

func (r *round) mayStopNoMore(job *Job, leaf int, b *beaten) bool {
	switch {
	case b.reservation != job.Reservation:
		return false
	case r.turns.tree != nil && r.turns.tree.Bounded() && (b.leaf != leaf || b.user != job.User || b.noPreempt != job.NoPreempt):
		return false // quotas refuse, and protect others from it
	case b.priority == job.Priority:
		return r.policy.Order != OrderIndex || b.index <= job.Index
	}
	return b.priority > job.Priority
}

func asksAsMuch(groups, of []group) bool {
	if len(groups) != len(of) {
		return false
	}
	for i := range groups {
		g, less := &groups[i], &of[i]
		if g.count < less.count || !g.shape.needs(&less.shape) || (less.rendezvous && !g.rendezvous) {
			return false
		}
	}
	return true
}

// withinReach is a quick look at whether each role by itself could find enough devices if all
// candidates, and those that end anyway, had stopped. It counts thousandths of devices of any
// model: yes is no promise.
func (a *attack) withinReach() bool {
	if a.policy.thorough {
		return true
	}
	share := a.released()
	for i := range a.groups {
		g := &a.groups[i]
		if g.shape.gpus == 0 || g.shape.share > 0 {
			continue
		}
		tasks, each := int64(0), int64(g.shape.gpus)*deviceWhole
		for node := range share {
			if a.now.room.nodes[node].usable {
				tasks += max(0, share[node]) / each
			}
		}
		if tasks < int64(g.count) {
			return false
		}
	}
	return true
}

// released gives the thousandths of devices that would be free, by node.
func (a *attack) released() []int64 {
	if a.shares == nil {
		a.shares = make([]int64, len(a.now.room.nodes))
	}
	for node := range a.shares {
		a.shares[node] = a.now.room.nodes[node].share
	}
	a.forgive()
	last := -1 // one that could shrink or be stopped stands there twice, one after the other
	for i := range a.victims {
		if v := &a.victims[i]; v.run != last {
			last = v.run
			a.release(a.partsOfRun(v.run))
		}
	}
	a.release(a.endingParts())
	return a.shares
}

// forgive counts devices that are promised before they are free as taken, not as less than
// that: what others release is not to make up for them.
func (a *attack) forgive() {
	for _, c := range a.claimList {
		for i := range c.parts {
			for _, g := range c.parts[i].devices {
				a.shares[c.parts[i].node] += int64(max(0, -a.now.room.devices[g.device].shareFree))
			}
		}
	}
}

func (a *attack) release(parts []held) {
	for i := range parts {
		for _, g := range parts[i].devices {
			a.shares[parts[i].node] += int64(g.share)
		}
	}
}
