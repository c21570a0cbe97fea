package fsm

import (
	"fmt"
	"slices"

	"pgregory.net/rapid"

	"llmos/fsm/state"
	pb "llmos/proto/llmos/v1"
)

// drawSchedule draws a command of those that serve the order, the time and the place of jobs.
func drawSchedule(t *rapid.T, s *state.State) *pb.Command {
	draws := []func(*rapid.T, *state.State) *pb.Command{
		drawEvict, drawEvict, drawEvict, drawEvict, drawClaim, drawClaim, drawQueues, drawQueues, drawFire, drawFire, drawReservation, drawDrain, drawPolicy, drawLapse,
	}
	return draws[rapid.IntRange(0, len(draws)-1).Draw(t, "schedule")](t, s)
}

func drawJob(t *rapid.T, s *state.State, fits func(*pb.Job) bool) *pb.Job {
	jobs := slices.Collect(s.Jobs())
	if chance(t, 90) {
		jobs = slices.DeleteFunc(jobs, func(j *pb.Job) bool { return !fits(j) })
	}
	if len(jobs) == 0 {
		return &pb.Job{Id: "nobody-1", Spec: &pb.JobSpec{}}
	}
	return jobs[rapid.IntRange(0, len(jobs)-1).Draw(t, "job")]
}

func runs(j *pb.Job) bool    { return j.State == pb.JobState_JOB_STATE_RUNNING && !state.IsParent(j) }
func pending(j *pb.Job) bool { return j.State == pb.JobState_JOB_STATE_PENDING }

// evictionKinds are the kinds that random logs draw; resizes often.
var evictionKinds = []pb.EvictionKind{1, 2, 3, 3, 3, 3, 4, 5, 6, 0}

// drawEvict evicts one or two jobs, mostly for a pending one, and keeps room for it.
func drawEvict(t *rapid.T, s *state.State) *pb.Command {
	plan := &pb.ApplyPlan{}
	for range rapid.IntRange(1, 2).Draw(t, "evictions") {
		victim := drawJob(t, s, runs)
		e := &pb.Eviction{JobId: victim.Id, Epoch: victim.Epoch, Kind: rapid.SampledFrom(evictionKinds).Draw(t, "kind"), Reason: "it is its turn"}
		if chance(t, 5) {
			e.Epoch++
		}
		if chance(t, 50) {
			e.ForJob = drawJob(t, s, pending).Id
		}
		plan.Evictions = append(plan.Evictions, e)
		if e.Kind == pb.EvictionKind_EVICTION_KIND_RESIZE {
			plan.Claims = append(plan.Claims, drawSetClaim(t, s, victim))
		}
	}
	if chance(t, 50) {
		plan.Claims = append(plan.Claims, drawSetClaim(t, s, drawJob(t, s, pending)))
	}
	return &pb.Command{Op: &pb.Command_ApplyPlan{ApplyPlan: plan}}
}

func drawSetClaim(t *rapid.T, s *state.State, job *pb.Job) *pb.SetClaim {
	c := &pb.Claim{Kind: pb.ClaimKind(rapid.IntRange(0, 3).Draw(t, "claim")), UntilMs: s.TimeMS() + int64(rapid.IntRange(0, 9000).Draw(t, "until"))}
	for range rapid.IntRange(0, 3).Draw(t, "slots") {
		c.Slots = append(c.Slots, &pb.ClaimSlot{NodeId: drawNodeID(t), CpuMilli: 100, Devices: []*pb.DeviceGrant{{DeviceId: "g0", ShareMilli: 1000}}})
	}
	if chance(t, 30) {
		c.Counts = drawCounts(t, job.Spec)
	}
	return &pb.SetClaim{JobId: job.Id, Claim: c}
}

// drawCounts draws how many tasks each role has, mostly what it may have.
func drawCounts(t *rapid.T, spec *pb.JobSpec) (counts []int32) {
	for _, role := range spec.Roles {
		least := role.Count
		if role.CountMin > 0 {
			least = role.CountMin
		}
		counts = append(counts, rapid.Int32Range(least, role.Count).Draw(t, "count"))
	}
	if len(counts) > 0 && chance(t, 10) {
		counts[0]++
	}
	return counts
}

func drawClaim(t *rapid.T, s *state.State) *pb.Command {
	c := drawSetClaim(t, s, drawJob(t, s, pending))
	if chance(t, 20) {
		c.Claim = nil
	}
	return &pb.Command{Op: &pb.Command_ApplyPlan{ApplyPlan: &pb.ApplyPlan{Claims: []*pb.SetClaim{c}}}}
}

func drawLapse(_ *rapid.T, s *state.State) *pb.Command {
	c := &pb.LapseClaims{}
	for j := range s.ClaimedJobs() {
		c.JobIds = append(c.JobIds, j.Id)
	}
	return &pb.Command{Op: &pb.Command_LapseClaims{LapseClaims: c}}
}

// queueNames are the queues of random logs.
var queueNames = []string{"default", "q", "q/a", "q/b", "q/b/c", "r"}

// drawQueues sets or removes a few queues; parents often come along.
func drawQueues(t *rapid.T, s *state.State) *pb.Command {
	c := &pb.SetQueues{}
	for _, name := range queueNames {
		switch n := rapid.IntRange(1, 100).Draw(t, "queue"); {
		case n <= 50:
			q := &pb.Queue{Name: name, Weight: int32(rapid.IntRange(0, 9).Draw(t, "weight")), PendingMax: int32(rapid.IntRange(0, 3).Draw(t, "pending"))}
			if chance(t, 80) {
				q.Weight++
			}
			if chance(t, 40) {
				q.Limits = append(q.Limits, &pb.QuotaLimit{Resource: "gpu", Nominal: int64(rapid.IntRange(0, 4).Draw(t, "nominal")), Borrow: -1, Lend: -1})
			}
			c.Queues = append(c.Queues, q)
		case n <= 60 && s.Queue(name) != nil:
			c.Remove = append(c.Remove, name)
		}
	}
	return &pb.Command{Op: &pb.Command_SetQueues{SetQueues: c}}
}

func drawFire(t *rapid.T, s *state.State) *pb.Command {
	crons := slices.Collect(s.CronJobs())
	if len(crons) == 0 {
		w := words{verb: "submit", set: map[string]string{"generate": "tick", "cron": "x",
			"overlap": rapid.SampledFrom([]string{"skip", "allow", "replace"}).Draw(t, "overlap")}}
		return submitCommand(w)
	}
	job := crons[rapid.IntRange(0, len(crons)-1).Draw(t, "cron")]
	return &pb.Command{Op: &pb.Command_FireCron{FireCron: &pb.FireCron{JobId: job.Id, DueMs: s.TimeMS() - int64(rapid.IntRange(-500, 500).Draw(t, "due"))}}}
}

func drawReservation(t *rapid.T, s *state.State) *pb.Command {
	name := fmt.Sprintf("v%d", rapid.IntRange(1, 3).Draw(t, "name"))
	if chance(t, 30) {
		return unreserveCommand(words{args: []string{name}, set: map[string]string{}})
	}
	w := words{args: []string{name, rapid.SampledFrom([]string{"USE", "USE", "MAINTENANCE", "NONE"}).Draw(t, "kind")}, set: map[string]string{}}
	w.set["start"] = fmt.Sprint(s.TimeMS() + int64(rapid.IntRange(-100, 9000).Draw(t, "start")))
	w.set["end"] = fmt.Sprint(s.TimeMS() + int64(rapid.IntRange(4000, 20000).Draw(t, "end")))
	if chance(t, 60) {
		w.set["on"] = drawNodeID(t)
	} else {
		w.set["nodes"] = fmt.Sprint(rapid.IntRange(0, 2).Draw(t, "nodes"))
	}
	if chance(t, 20) {
		w.set["queue"] = rapid.SampledFrom(queueNames).Draw(t, "queue")
	}
	return reserveCommand(w)
}

func drawDrain(t *rapid.T, _ *state.State) *pb.Command {
	return drainCommand(words{args: []string{drawNodeID(t)}, set: map[string]string{"reason": "repair"}}, chance(t, 30))
}

func drawPolicy(t *rapid.T, _ *state.State) *pb.Command {
	w := words{set: map[string]string{"order": rapid.SampledFrom([]string{"", "fair", "las", "no"}).Draw(t, "order"),
		"avoid": rapid.SampledFrom([]string{"", "-1", "5000"}).Draw(t, "avoid")}}
	return policyCommand(w)
}

// drawWaiting gives a submit something to wait for, copies, a queue, or another number of tasks.
func drawWaiting(t *rapid.T, s *state.State, w words) {
	if chance(t, 25) {
		w.set["after"] = drawJob(t, s, func(j *pb.Job) bool { return !state.JobFinished(j.State) }).Id + rapid.SampledFrom([]string{"", ":any", ":failed"}).Draw(t, "condition")
		if chance(t, 30) {
			w.set["after"] += "," + drawJob(t, s, func(*pb.Job) bool { return true }).Id + ":any"
		}
	}
	switch rapid.IntRange(0, 9).Draw(t, "copies") {
	case 0, 1:
		w.set["array"] = fmt.Sprint(rapid.IntRange(0, 3).Draw(t, "array"))
	case 2:
		w.set["cron"] = "x"
	}
	if chance(t, 30) {
		w.set["queue"] = rapid.SampledFrom(queueNames).Draw(t, "queue")
	}
	if chance(t, 30) {
		w.set["min"] = "1"
	}
	if chance(t, 20) {
		w.set["repair"] = rapid.SampledFrom([]string{"-1", "2000"}).Draw(t, "repair")
	}
	if chance(t, 10) {
		w.set["nopreempt"] = "1"
	}
	if chance(t, 10) {
		w.set["reservation"] = "v1"
	}
}
