package scheduler

import (
	"fmt"
	"sync"

	"llmos/server/scheduler/fair"
)

// waits words what keeps a job from starting other than the lack of room.
func (p *Plan) waits(job *Job, b *block) Reason {
	switch b.kind {
	case blockedByQuota:
		return quotaReason(job, b)
	case blockedByGroup:
		return Reason{Cause: CauseArray, Text: fmt.Sprintf("array limit: %s of the array run, as many as may at a time", plural(int64(b.count), "job")),
			Remedy: "it starts when one of them ends; array.parallel in the job file sets the limit"}
	case blockedByStrict:
		return Reason{Cause: CauseBehind, Text: fmt.Sprintf("is behind %s, and nothing may pass a blocked job here", b.behind),
			Remedy: "it starts after that job; the policy's backfill setting lets jobs pass"}
	case blockedByVictims:
		return Reason{Cause: CauseVictims, Text: fmt.Sprintf("waits for %s to stop and make room for it", plural(int64(b.count), "job")),
			Remedy: "nothing needs to be done; their room is kept for it"}
	case blockedByRepair:
		text := fmt.Sprintf("has lost a node: %s kept, and it waits for a replacement", slotsAre(b.count))
		return Reason{Cause: CauseRepair, Text: text + " until " + clock(b.atMS, p.nowMS),
			Remedy: "it goes on as soon as a node is free; after that time everything is released and it waits like others"}
	case blockedByWindow:
		return p.windowReason(b)
	}
	return p.explain(job)
}

// windowReason explains a job that names a reservation.
func (p *Plan) windowReason(b *block) Reason {
	if b.count == 0 {
		return Reason{Cause: CauseReserved, Text: "there is no " + b.behind + ", or it is over",
			Remedy: "llmos reserve makes one; without a reservation in the job file it starts anywhere"}
	}
	return Reason{Cause: CauseReserved, Text: fmt.Sprintf("runs in %s, which starts %s", b.behind, clock(b.atMS, p.nowMS)),
		Remedy: "nothing needs to be done; without a reservation in the job file it could start earlier"}
}

// reservedNodes explains a job that would fit, were it not for nodes that are reserved.
func (p *Plan) reservedNodes(job *Job) (Reason, bool) {
	closed := map[int]bool{}
	var first *window
	for _, k := range p.keeps {
		if k.window == nil || (k.window.Name == job.Reservation && !k.window.Maintenance) {
			continue
		}
		if first == nil {
			first = k.window
		}
		for _, node := range k.nodes {
			closed[int(node)] = true
		}
	}
	if first == nil {
		return Reason{}, false
	}
	r := p.after()
	for _, g := range r.groupsOf(job, leastCounts(job)) {
		fits := 0
		for node := range r.nodes {
			if !closed[node] {
				fits += int(r.fit(node, &g.shape))
			}
		}
		if fits < g.count {
			what := "starts " + clock(first.StartMS, p.nowMS) + " and the job may run longer"
			if first.StartMS <= p.nowMS {
				what = "has the nodes that it needs until " + clock(first.EndMS, p.nowMS)
			}
			return Reason{Cause: CauseReserved, Text: first.called() + " " + what,
				Remedy: "a time_limit that ends before a reservation starts lets it use the nodes until then"}, true
		}
	}
	return Reason{}, false
}

func slotsAre(n int) string {
	if n == 1 {
		return "1 slot is"
	}
	return fmt.Sprintf("%d slots are", n)
}

// quotaReason words the verdict of the queue tree.
func quotaReason(job *Job, b *block) Reason {
	v := &b.verdict
	queue := "queue " + v.Queue
	if v.Queue == "" {
		queue = "the cluster"
	}
	have, limit := amountOf(v.Resource, v.Have), amountOf(v.Resource, v.Limit)
	r := Reason{Cause: CauseQuota, Remedy: "it starts when jobs of the queue end; an operator may raise its quota"}
	switch v.Why {
	case fair.CauseLent:
		r.Text = fmt.Sprintf("its queue's own quota is lent: %s uses %s of %s", queue, have, limit)
		r.Remedy = "it starts when the borrowers end, or as soon as they may be stopped"
	case fair.CauseGuarantee:
		r.Text = fmt.Sprintf("may not be stopped for others, so it may not borrow: %s uses %s of its own %s", queue, have, limit)
		r.Remedy = "it starts when jobs of the queue end; without no_preempt it could borrow"
	case fair.CauseRunning:
		r.Text = fmt.Sprintf("%s runs %s, as many as may at a time", queue, plural(v.Have, "job"))
	case fair.CauseUserRunning:
		r.Text = fmt.Sprintf("user limit: %s runs %s in %s, as many as may at a time", job.User, plural(v.Have, "job"), queue)
		r.Remedy = "it starts when one of them ends"
	case fair.CauseUserShare:
		r.Text = fmt.Sprintf("user limit: %s holds %s of %s in %s", job.User, have, limit, queue)
		r.Remedy = "it starts when one of the user's jobs ends"
	default:
		r.Text = fmt.Sprintf("%s uses %s of %s that it may", queue, have, limit)
	}
	return r
}

// amountOf words an amount of a quota's resource.
func amountOf(resource string, n int64) string {
	switch resource {
	case "cpu":
		return cpus(n)
	case "memory":
		return bytes(n) + " of memory"
	case "gpu":
		return decimal(n) + " GPUs"
	}
	if len(resource) > len("gpu:") {
		return decimal(n) + " " + resource[len("gpu:"):] + " GPUs"
	}
	return decimal(n)
}

// behindKept explains a job that would fit, were it not for what is kept for another one.
func (p *Plan) behindKept(job *Job) (Reason, bool) {
	if reason, ok := p.reservedNodes(job); ok {
		return reason, true
	}
	for _, k := range p.keeps {
		if k.job == nil || k.job.ID == job.ID {
			continue
		}
		where := listed(p.namesOf(k), holdersShown)
		if k.start > 0 {
			return Reason{Cause: CauseBehind, Text: fmt.Sprintf("is behind %s, which is expected to start %s on %s", k.job.ID, clock(k.start, p.nowMS), where),
				Remedy: "it starts after that job, or before it with a time_limit that ends in time; a higher priority would put it first"}, true
		}
		return Reason{Cause: CauseBehind,
			Text:   fmt.Sprintf("is behind %s, which has waited long and has its part of %s kept free", k.job.ID, where),
			Remedy: "it starts after that job, or beside it when other nodes have room; a higher priority would put it first"}, true
	}
	if p.claimed != "" && p.claimed != job.ID {
		return Reason{Cause: CauseBehind, Text: "what is free is kept for " + p.claimed + ", which starts as soon as it has all that it needs",
			Remedy: "it starts when more is released, or when what is kept is released unused"}, true
	}
	return Reason{}, false
}

// inTime adds what is known of the job's turn: when it is expected to start, who is before it,
// and what is kept for it.
func (p *Plan) inTime(i int, reason Reason) Reason {
	job := &p.jobs[i]
	start := p.expected(job.ID)
	if start > 0 && reason.Cause >= CauseCapacity && reason.Cause <= CauseNextPass {
		reason.Remedy += "; expected to start about " + clock(start, p.nowMS)
	}
	for _, k := range p.keeps {
		if k.job == nil || k.job.ID != job.ID {
			continue
		}
		where := listed(p.namesOf(k), holdersShown)
		if k.start > 0 {
			reason.Details = append(reason.Details, fmt.Sprintf("%s %s reserved for it from %s on", where, isAre(len(p.namesOf(k))), clock(k.start, p.nowMS)))
		} else {
			reason.Details = append(reason.Details, "it has waited long: its share of "+where+" is kept free for it")
		}
	}
	ahead, same := 0, 0
	for j := range p.jobs {
		if !p.placed[j] && p.turn[j] < p.turn[i] {
			ahead++
			if p.jobs[j].Queue == job.Queue {
				same++
			}
		}
	}
	switch {
	case ahead > 0 && same == ahead && job.Queue != "":
		reason.Details = append(reason.Details, fmt.Sprintf("behind %s of %s", plural(int64(ahead), "job"), job.Queue))
	case ahead > 0:
		reason.Details = append(reason.Details, "behind "+plural(int64(ahead), "job"))
	}
	return reason
}

func isAre(n int) string {
	if n == 1 {
		return "is"
	}
	return "are"
}

// lookAheadMax is the number of waiting jobs, from the first, whose start can be foretold.
const lookAheadMax = 32

// outlook is when waiting jobs would start if each in its turn got a reservation; found out
// once, when somebody asks.
type outlook struct {
	once   sync.Once
	starts map[string]int64 // Unix milliseconds, by job ID
}

// expected gives the time at which a job is expected to start, as far as run times are
// predicted; 0: unknown.
func (p *Plan) expected(jobID string) int64 {
	p.outlook.once.Do(func() {
		policy := p.policy
		policy.Backfill, policy.ReservationsMax = BackfillConservative, lookAheadMax
		policy.NoPreempt, policy.Holds = true, -1
		p.outlook.starts = map[string]int64{}
		for _, w := range Schedule(p.snapshot, policy).Waiting {
			if w.StartMS > 0 {
				p.outlook.starts[w.JobID] = w.StartMS
			}
		}
		for i := range p.Waiting {
			if w := &p.Waiting[i]; w.StartMS > 0 {
				p.outlook.starts[w.JobID] = w.StartMS
			}
		}
	})
	return p.outlook.starts[jobID]
}
