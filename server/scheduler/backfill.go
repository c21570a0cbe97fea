package scheduler

import (
	"slices"

	"llmos/server/scheduler/fair"
)

// keep is what is kept for one blocked job, or for a window of time. It binds the jobs that
// would still run at its time.
type keep struct {
	atMS    int64 // 0: it binds every job
	job     *Job
	start   int64   // when the job is expected to start; 0: unknown
	end     int64   // when it is expected to have ended; forever: unknown
	need    []held  // what it will run on, by rank
	parts   []held  // what must stay free of it from now on
	window  *window // a reservation instead of a job
	nodes   []int32 // its nodes, which are closed
	applied bool
}

func (k *keep) apply(r *room) {
	k.applied = true
	for i := range k.parts {
		r.add(&k.parts[i], -1)
	}
	for _, node := range k.nodes {
		r.nodes[node].closed++
		r.open(int(node))
	}
}

func (k *keep) lift(r *room) {
	k.applied = false
	for i := range k.parts {
		r.add(&k.parts[i], 1)
	}
	for _, node := range k.nodes {
		r.nodes[node].closed--
		r.open(int(node))
	}
}

// open makes a node usable again, or not, after what closes it has changed.
func (r *room) open(node int) {
	n, spec := &r.nodes[node], &r.spec[node]
	n.usable = n.closed == 0 && (spec.Status == NodeReady && !spec.Drained || r.view == viewRegistered)
	r.touch(node)
}

// viewKey names a view of the room: what binds a job, and so is not lifted for it. What
// failed in a view is remembered as long as the keeps are the same.
type viewKey [keepsMax / 64]uint64

// keepsMax bounds the keeps of a pass; jobs that are blocked beyond it have none.
const keepsMax = 512

func (v *viewKey) bound(i int) { v[i>>6] |= 1 << (i & 63) }

// addKeep enters a keep and applies it. The keeps are in order of time.
func (r *round) addKeep(k *keep) {
	at, _ := slices.BinarySearchFunc(r.keeps, k.atMS+1, byTime)
	r.keeps = slices.Insert(r.keeps, at, k)
	k.apply(r.now.room)
	clear(r.views)
}

func byTime(k *keep, atMS int64) int {
	if k.atMS < atMS {
		return -1
	}
	return 1
}

// view brings the room into the job's view, and gives a placer that remembers what failed
// in it. lifts says whether anything is lifted.
func (r *round) view(job *Job) (p *placer, lifts bool) {
	if len(r.keeps) == 0 {
		return r.now, false
	}
	length := lengthOf(job)
	var key viewKey
	for i, k := range r.keeps {
		binds := r.binds(k, job, length)
		if binds != k.applied {
			if binds {
				k.apply(r.now.room)
			} else {
				k.lift(r.now.room)
			}
		}
		lifts = lifts || !binds
		if binds {
			key.bound(i)
		}
	}
	if !lifts {
		return r.now, false
	}
	p = r.views[key]
	if p == nil {
		p = r.another()
		r.views[key] = p
	}
	p.placed, p.names = r.now.placed, r.now.names
	return p, true
}

// viewAll brings the room into the view of a job that everything binds.
func (r *round) viewAll() {
	for _, k := range r.keeps {
		if !k.applied {
			k.apply(r.now.room)
		}
	}
}

// startAnywhere places a job beside what is kept for others, or on it when it will have
// ended in time.
func (r *round) startAnywhere(i int) (block, bool) {
	job := &r.jobs[i]
	inside, why, ok := r.within(job)
	if !ok {
		return why, false
	}
	mark := len(r.now.room.trail)
	p, lifts := r.view(job)
	r.refused = fair.Verdict{}
	tasks, counts, ok := r.placeIn(p, i, inside)
	switch {
	case ok:
		r.accept(i, tasks, counts, mark, r.whyHere(lifts, mark))
	case r.refused.Why != fair.CauseNone: // there is room, of a model that it may have no more of
		return block{kind: blockedByQuota, verdict: r.refused}, false
	}
	return block{}, ok
}

// whyHere is the reason of a placement: whether it uses what is kept for a later time.
func (r *round) whyHere(lifts bool, mark int) string {
	if lifts {
		on := map[int32]bool{}
		for _, entry := range r.now.room.trail[mark:] {
			on[entry.node] = true
		}
		for _, k := range r.keeps {
			if !k.applied && slices.ContainsFunc(k.nodesOf(), func(node int32) bool { return on[node] }) {
				return r.before(k)
			}
		}
	}
	return r.besides()
}

// placeIn places a job in the view of a placer: an elastic one with as many tasks as are
// wanted, are within quota and fit. counts is nil for a job that is not elastic.
func (r *round) placeIn(p *placer, i int, job *Job) (tasks []TaskPlacement, counts []int32, ok bool) {
	asked := job
	if job.elastic() {
		sized, ok := job.growable(r.wanted(job), func(s *Job) bool { return r.turns.admits(i, s.Demand(nil), r.claims[job.ID] != nil).OK })
		if !ok {
			return nil, nil, false
		}
		asked = &sized
	}
	mark := len(p.room.trail)
	entries, ok := p.put(asked)
	if !ok {
		return nil, nil, false
	}
	if r.byModel {
		if v := r.turns.admits(i, p.room.takenSince(mark), r.claims[job.ID] != nil); !v.OK {
			p.room.rollback(mark) // it would get devices of a model that its queue may have no more of
			r.refused = v
			return r.placeByModel(p, i, job)
		}
	}
	if job.elastic() {
		if counts = p.counts; counts == nil {
			counts = countsOf(asked)
		}
	}
	return r.grant(job, entries), counts, true
}

// besides is the reason of a placement that takes nothing of what is kept.
func (r *round) besides() string {
	for _, k := range r.keeps {
		if k.job == nil {
			continue
		}
		if k.start > 0 {
			return "fits beside what is kept for " + k.job.ID + ", " + r.expectedAt(k.start)
		}
		return "fits beside what is kept for " + k.job.ID
	}
	return "its turn has come and it fits"
}

// before is the reason of a placement on what is kept for a later time, or for jobs like it.
func (r *round) before(k *keep) string {
	switch {
	case k.job != nil:
		return "backfilled: ends before " + k.job.ID + " needs the room, " + r.expectedAt(k.start)
	case k.window.StartMS <= r.s.NowMS:
		return "runs in " + k.window.called()
	}
	return "backfilled until " + clock(k.window.StartMS, r.s.NowMS) + ", when " + k.window.called() + " starts"
}

// attemptsMax bounds the test placements of one search for the earliest start.
const attemptsMax = 64

// endingsFirst is the number of ends that a search looks at first; each time it has found
// nothing it looks at endingsMore times as many, on that many more nodes.
const (
	endingsFirst = 64
	endingsMore  = 8
)

// earliest finds the first time at which the whole gang could be placed if everything ends
// as predicted, and the jobs with a reservation start as reserved. The room and what is kept
// in it are as before afterwards.
func (r *round) earliest(job *Job) (*keep, bool) {
	ends := r.endings()
	base := r.now.room.withRoom(r.now.room.groups(job))
	for _, k := range r.keeps {
		for i := range k.parts {
			base = append(base, k.parts[i].node)
		}
		base = append(base, k.nodes...)
	}
	for n := min(endingsFirst, len(ends)); ; n = min(n*endingsMore, len(ends)) {
		nodes := slices.Clone(base)
		for i := range ends[:n] {
			for _, k := range r.partsOf(&ends[i]) {
				nodes = append(nodes, k.node)
			}
		}
		s := &search{round: r, job: job, length: lengthOf(job), trial: r.trial(nodes), at: r.s.NowMS}
		s.trial.asks(job)
		if k, ok := s.run(ends[:n]); ok {
			return k, true
		}
		if n == len(ends) {
			return nil, false
		}
	}
}

// search is one sweep over the times at which something is released.
type search struct {
	*round
	job     *Job
	length  int64
	trial   *trial
	taken   []bool // by keep: what it will run on is out of the room
	at      int64  // the time that is looked at
	tried   int
	skip    int
	skipped int
}

func (s *search) run(ends []ending) (*keep, bool) {
	for _, k := range s.keeps { // the sweep takes out what each needs at its own time
		if k.atMS > 0 {
			s.trial.addAll(k.parts, 1)
		}
		for _, node := range k.nodes {
			s.trial.reopen(node, -1)
		}
	}
	s.taken = make([]bool, len(s.keeps))
	for i := 0; ; {
		at := s.nextTime(ends, i)
		if at == forever || s.tried >= attemptsMax {
			return nil, false
		}
		s.at = at
		for ; i < len(ends) && ends[i].atMS <= at; i++ {
			s.trial.addAll(s.partsOf(&ends[i]), 1)
		}
		s.reserved(at)
		if !s.trial.mayFit() {
			continue
		}
		if s.skipped < s.skip {
			s.skipped++
			continue
		}
		s.tried++
		if need, ok := s.trial.put(s.job); ok {
			return s.keepOf(at, need), true
		}
		if s.skipped = 0; s.tried > attemptsMax/4 {
			s.skip = max(1, 2*s.skip)
		}
	}
}

// nextTime is the next time at which more may be free: an attempt ends, or a reservation.
func (s *search) nextTime(ends []ending, i int) int64 {
	at := forever
	if i < len(ends) {
		at = ends[i].atMS
	}
	for j, k := range s.keeps {
		if k.atMS > 0 && s.taken[j] {
			at = min(at, k.end)
		} else if w := k.window; w != nil && w.StartMS > s.at && s.isOf(w, s.job.Reservation, s.job.Queue) {
			at = min(at, w.StartMS)
		}
	}
	return at
}

// reserved takes out what others have reserved while the job would run from a time on, and
// gives back what they have reserved until then.
func (s *search) reserved(at int64) {
	for j, k := range s.keeps {
		if k.atMS == 0 {
			continue
		}
		overlaps := k.atMS < s.endFor(k, at) && k.end > at
		if overlaps == s.taken[j] {
			continue
		}
		sign := int64(1)
		if overlaps {
			sign = -1
		}
		s.taken[j] = overlaps
		s.trial.addAll(k.need, sign)
		for _, node := range k.nodes {
			s.trial.reopen(node, int(-sign))
		}
	}
}

// endFor is the time until which the job would be in the way of a keep.
func (s *search) endFor(k *keep, at int64) int64 {
	w := k.window
	switch {
	case w != nil && at >= w.StartMS && s.isOf(w, s.job.Reservation, s.job.Queue):
		return 0
	case w != nil && s.length == forever && !s.job.NoPreempt:
		return at + lendMinMS
	}
	return endOf(at, s.length)
}

// keepOf makes the reservation: need from a time on. From now on must stay free as much as
// there is less free then, with the job running, than there is now.
func (s *search) keepOf(at int64, need []held) *keep {
	k := &keep{atMS: at, job: s.job, start: at, end: endOf(at, s.length), need: need}
	var nodes []int32
	for i := range need {
		nodes = append(nodes, need[i].node)
	}
	slices.Sort(nodes)
	later := slices.DeleteFunc(slices.Clone(s.keeps), func(l *keep) bool { return l.atMS <= at || !l.applied })
	for _, l := range later {
		l.lift(s.now.room)
	}
	for _, node := range slices.Compact(nodes) {
		if part, some := s.lacking(node); some {
			k.parts = append(k.parts, part)
		}
	}
	for _, l := range later {
		l.apply(s.now.room)
	}
	return k
}

// lacking is what is free on the node now and will not be in the trial's room.
func (s *search) lacking(node int32) (part held, some bool) {
	less := func(now, then int64) int64 { return max(0, max(0, now)-max(0, then)) }
	n, t := &s.now.room.nodes[node], &s.trial.room.nodes[s.trial.at[node]]
	part = held{node: node, cpu: less(n.cpu, t.cpu), memory: less(n.memory, t.memory), ports: int32(less(int64(n.ports), int64(t.ports)))}
	for j := range n.last - n.first {
		d, then := &s.now.room.devices[n.first+j], &s.trial.room.devices[t.first+j]
		g := granted{device: n.first + j, share: int32(less(int64(d.shareFree), int64(then.shareFree))), memory: less(d.memFree, then.memFree)}
		if g.share > 0 || g.memory > 0 {
			part.devices = append(part.devices, g)
		}
	}
	return part, part.cpu > 0 || part.memory > 0 || part.ports > 0 || len(part.devices) > 0
}
