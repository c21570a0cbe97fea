package controller

import (
	"fmt"
	"time"

	pb "llmos/proto/llmos/v1"
)

// timekeeper proposes what a date brings: copies of cron jobs, the end of claims, of time
// limits, and of the patience with tasks on drained nodes. Nothing is remembered: what is
// due follows from the state and the time.
type timekeeper struct {
	lane lane
	at   time.Duration // when the next thing is due; 0: nothing is known to come
	seen uint64        // index of the state from which that was worked out
}

// done pauses after what was refused: it would be proposed again at once.
func (k *timekeeper) done(applied bool, results []*pb.Result, now time.Duration) {
	k.seen = 0
	if !applied {
		return
	}
	refused := false
	for _, r := range results {
		refused = refused || r.GetFault() != nil
		for _, f := range r.GetEvictions() {
			refused = refused || f.GetKind() != pb.ErrorKind_ERROR_KIND_UNSPECIFIED
		}
	}
	if refused {
		k.lane.retryAt = now + retryPauseMax
	}
}

// timersMax bounds the commands of one proposal; the rest follows in the next.
const timersMax = 256

// keepTime proposes what is due.
func (c *Controller) keepTime() {
	k := &c.times
	changed := k.seen != c.st.Index()
	if (!changed && (k.at == 0 || c.now < k.at)) || !k.lane.ready(c, true) {
		return
	}
	k.seen, k.at = c.st.Index(), 0
	d := due{c: c, nowMS: c.wallMS(), evicted: map[string]bool{}}
	d.claims()
	d.jobs()
	d.evictions()
	if d.next > 0 {
		k.at = c.stAt + time.Duration(d.next-c.st.TimeMS())*time.Millisecond
	}
	if len(d.commands) > 0 {
		c.propose(&k.lane, d.commands)
	}
}

// due gathers what is due at a time, and when the next thing is.
type due struct {
	c        *Controller
	nowMS    int64
	next     int64 // Unix milliseconds; 0: nothing is known to come
	commands []*pb.Command
	evicted  map[string]bool // by job ID
}

// reached says whether a time has come, and else notes it.
func (d *due) reached(atMS int64) bool {
	if atMS <= d.nowMS && len(d.commands) < timersMax {
		return true
	}
	if d.next == 0 || atMS < d.next {
		d.next = max(atMS, d.nowMS+1)
	}
	return false
}

func (d *due) claims() {
	lapse := &pb.LapseClaims{}
	for j := range d.c.st.ClaimedJobs() { // also of those whose last attempt is still ending
		if d.reached(j.Claim.UntilMs) {
			lapse.JobIds = append(lapse.JobIds, j.Id)
		}
	}
	if len(lapse.JobIds) > 0 || d.c.st.Unsettled() { // any entry settles what ends have still to reach
		d.commands = append(d.commands, &pb.Command{Op: &pb.Command_LapseClaims{LapseClaims: lapse}})
	}
}

// jobs looks at time limits and at cron jobs.
func (d *due) jobs() {
	for _, e := range d.c.world.timed {
		j := e.job
		switch {
		case j.State == pb.JobState_JOB_STATE_SCHEDULED:
			d.cron(e)
		case j.Spec.TimeLimitMs > 0 && e.attempt.GetState() == pb.AttemptState_ATTEMPT_STATE_LIVE && e.attempt.RunningMs > 0 && !j.StopRequested:
			if d.reached(e.attempt.RunningMs + j.Spec.TimeLimitMs) {
				limit := time.Duration(j.Spec.TimeLimitMs) * time.Millisecond
				d.commands = append(d.commands, &pb.Command{Op: &pb.Command_StopJob{StopJob: &pb.StopJob{JobId: j.Id, Failed: true,
					Reason: fmt.Sprintf("it reached its time limit of %s", limit)}}})
			}
		}
	}
}

// evictions ends what still runs on drained nodes whose patience is over, and what would
// soon be killed for its memory.
func (d *due) evictions() {
	plan := &pb.ApplyPlan{}
	evict := func(e *jobEntry, kind pb.EvictionKind, reason string) {
		if e == nil || e.attempt.GetState() != pb.AttemptState_ATTEMPT_STATE_LIVE || e.job.StopRequested || d.evicted[e.job.Id] {
			return
		}
		d.evicted[e.job.Id] = true
		plan.Evictions = append(plan.Evictions, &pb.Eviction{JobId: e.job.Id, Epoch: e.job.Epoch, Kind: kind, Reason: reason})
	}
	for _, e := range d.c.world.order {
		drain := e.node.Drain
		if drain == nil || drain.StopAtMs == 0 || len(e.value.Holdings) == 0 || !d.reached(drain.StopAtMs) {
			continue
		}
		for _, h := range e.value.Holdings {
			evict(d.c.world.jobs[h.JobID], pb.EvictionKind_EVICTION_KIND_DRAIN, fmt.Sprintf("node %s is drained", e.node.Name))
		}
	}
	for _, e := range d.c.world.running {
		if e.demand != nil && e.demand.alarm != "" && e.demand.epoch == e.job.Epoch {
			evict(e, pb.EvictionKind_EVICTION_KIND_FORECAST, e.demand.alarm)
		}
	}
	if len(plan.Evictions) > 0 {
		d.commands = append(d.commands, &pb.Command{Op: &pb.Command_ApplyPlan{ApplyPlan: plan}})
	}
}
