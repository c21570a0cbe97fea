package scheduler

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"llmos/server/scheduler/fair"
)

// round is what one pass decides with: the room and its placers (pass), whose turn it is,
// what is kept for whom, and when what is held now is released.
type round struct {
	*pass
	s              *Snapshot
	plan           *Plan
	turns          *sequence
	groups         map[string]int32
	byModel        bool         // some quota is by device model
	refused        fair.Verdict // why the room that was found last may not be used, where a quota by model said so
	keeps          []*keep      // by the time from which it binds, then as they were made
	views          map[viewKey]*placer
	runParts       [][]held // by index in Snapshot.Running; nil: not looked at yet
	profile        profile
	claims         map[string]*claimed // by job ID
	claimList      []*claimed
	windows        []*window
	busyNodes      map[int32]occupation // nil: not looked at yet
	wishes         map[string][]int32   // sizes by job ID; nil: not read yet
	starved        []*Job               // that wait for room
	stopped        map[string]bool      // jobs that this plan stops
	scans          int                  // attempts looked at as victims
	preempts       int                  // jobs for which victims were looked for
	lost           []beaten             // for which none were enough
	shares         []int64              // by node, scratch of one search
	asked          []group              // scratch likewise
	searches       int                  // for the earliest start of a job
	reserved, held int                  // jobs with a reservation, and with held nodes
	strict         string               // ID of the job that nothing may pass; empty: none
	tasks          int
}

// block says why a job was not placed.
type block struct {
	kind    blockKind
	verdict fair.Verdict
	behind  string // ID of a job that it waits for, or name of a reservation
	atMS    int64  // when that is over, Unix milliseconds; 0: unknown
	count   int
}

type blockKind int

const (
	blockedByRoom blockKind = iota
	blockedByQuota
	blockedByGroup
	blockedByStrict
	blockedByVictims
	blockedByRepair
	blockedByWindow
)

func newRound(s *Snapshot, p *pass) *round {
	s.Running = runningInOrder(s.Running)
	r := &round{pass: p, s: s, groups: map[string]int32{}, stopped: map[string]bool{}, views: map[viewKey]*placer{}}
	r.plan = &Plan{policy: p.policy, snapshot: *s, nowMS: s.NowMS, jobs: p.jobs, nodes: p.now.room.spec, running: s.Running, ratio: p.ratio,
		placed: map[int]bool{}, blocks: map[int]block{}}
	r.byModel = r.modelsMatter()
	r.turns = newSequence(p.jobs, p.policy, r.queueTree(), leastDemand)
	for i := range s.Running {
		if g := s.Running[i].Group; g != "" {
			r.groups[g]++
		}
	}
	return r
}

// runningInOrder gives the attempts in submit order, in which the leader has them anyway.
func runningInOrder(running []Running) []Running {
	order := func(a, b *Running) int {
		switch {
		case a.Submit != b.Submit:
			return cmp.Compare(a.Submit, b.Submit)
		case a.Ordinal != b.Ordinal:
			return cmp.Compare(a.Ordinal, b.Ordinal)
		}
		return strings.Compare(a.JobID, b.JobID)
	}
	sorted := true
	for i := 1; i < len(running) && sorted; i++ { // by address: the values are large
		sorted = order(&running[i-1], &running[i]) <= 0
	}
	if sorted {
		return running
	}
	at := make([]*Running, len(running))
	for i := range running {
		at[i] = &running[i]
	}
	slices.SortStableFunc(at, order)
	ordered := make([]Running, len(running))
	for i := range at {
		ordered[i] = *at[i]
	}
	return ordered
}

// run goes through the jobs once.
func (r *round) run() *Plan {
	plan := r.plan
	r.openWindows()
	r.keepClaims()
	plan.turn = make([]int32, len(r.jobs))
	plan.Waiting = make([]Waiting, 0, len(r.jobs))
	turn := int32(0)
	for len(plan.Placements) < r.policy.GangsMax {
		i, ok := r.turns.pop()
		if !ok {
			break
		}
		turn++
		plan.turn[i] = turn
		if job := &r.jobs[i]; r.tasks > 0 && r.tasks+job.least() > r.policy.TasksMax {
			plan.Truncated = true
			plan.Waiting = append(plan.Waiting, Waiting{JobID: job.ID})
			continue
		}
		r.decide(i)
	}
	for i := range r.jobs { // whose turn has not come: in order of rank, which costs nothing to find out
		if plan.turn[i] == 0 {
			plan.Truncated = true
			turn++
			plan.turn[i] = turn
			plan.Waiting = append(plan.Waiting, Waiting{JobID: r.jobs[i].ID})
		}
	}
	r.resize()
	plan.keeps = r.keeps
	for _, c := range r.claimList {
		if c.kept {
			plan.claimed = c.jobID
		}
	}
	return plan
}

// decide places a job, or says why not.
func (r *round) decide(i int) {
	job := &r.jobs[i]
	claim := r.claims[job.ID]
	if claim != nil {
		r.lend(claim)
		r.charge(claim, false)
	}
	why, ok := r.start(i, claim)
	if ok {
		return
	}
	if claim != nil {
		r.take(claim)
		r.charge(claim, true)
	}
	w := Waiting{JobID: job.ID}
	why = r.blocked(i, claim, why, &w)
	if why.kind != blockedByRoom {
		r.plan.blocks[i] = why
	}
	r.plan.Waiting = append(r.plan.Waiting, w)
}

// blocked does for a job that cannot start what can be done: it makes room by stopping
// others, or keeps room for it.
func (r *round) blocked(i int, claim *claimed, why block, w *Waiting) block {
	job := &r.jobs[i]
	switch why.kind {
	case blockedByRoom, blockedByQuota:
	default:
		return why
	}
	if claim != nil && claim.Kind != ClaimRepair {
		return block{kind: blockedByVictims, count: r.stopping(claim), atMS: claim.UntilMS}
	}
	r.viewAll()
	if n := r.preempt(i, why); n > 0 {
		return block{kind: blockedByVictims, count: n}
	}
	if why.kind != blockedByRoom {
		return why
	}
	r.starved = append(r.starved, job)
	if r.policy.Backfill == BackfillNone && r.couldRun(job) {
		r.strict = job.ID
	}
	if claim != nil {
		if k, ok := r.keepForRest(job, claim); ok {
			w.Held, w.StartMS = k.nodeIDs(r.now.room), k.start
		}
		return block{kind: blockedByRepair, count: len(claim.parts), atMS: claim.UntilMS}
	}
	if k, ok := r.keepFor(job); ok {
		w.Held, w.StartMS = k.nodeIDs(r.now.room), k.start
	}
	return why
}

// start places a job if its limits, and the room as far as it may use it, admit it.
func (r *round) start(i int, claim *claimed) (block, bool) {
	job := &r.jobs[i]
	if job.Group != "" && job.GroupMax > 0 && r.groups[job.Group] >= job.GroupMax {
		return block{kind: blockedByGroup, count: int(job.GroupMax)}, false
	}
	if v := r.admits(i, leastDemand(job), claim); !v.OK {
		return block{kind: blockedByQuota, verdict: v}, false
	}
	if claim != nil {
		if r.startOnClaim(i, claim) {
			return block{}, true
		}
	}
	if r.strict != "" {
		return block{kind: blockedByStrict, behind: r.strict}, false
	}
	return r.startAnywhere(i)
}

// accept enters a placement into the plan. mark is the length of the trail before it.
func (r *round) accept(i int, tasks []TaskPlacement, counts []int32, mark int, reason string) {
	job := &r.jobs[i]
	r.plan.Placements = append(r.plan.Placements, Placement{JobID: job.ID, Tasks: tasks, Counts: counts, Reason: reason})
	r.plan.placed[i] = true
	r.tasks += len(tasks)
	r.turns.placed(i, r.now.room.takenSince(mark))
	r.quotasMoved()
	if job.Group != "" {
		r.groups[job.Group]++
	}
	r.profile.started(r.now.room, endOf(r.s.NowMS, lengthOf(job)), mark)
}

// expectedAt words a time at which something is expected to start.
func (r *round) expectedAt(ms int64) string {
	return fmt.Sprintf("expected to start %s", clock(ms, r.s.NowMS))
}
