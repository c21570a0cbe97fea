package scheduler_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"llmos/server/scheduler"
)

// timeline is what a conversation knows beyond nodes and jobs.
type timeline struct {
	nowMS        int64
	queues       []scheduler.Queue
	reservations []scheduler.Reservation
	sizes        []scheduler.Size
	reasons      bool // placements are printed with their reasons
}

// doInTime runs one command about time, queues and what runs. Spans are written 90s, 10m, 2h.
//
//	now SPAN                         the time, from 1970-01-01
//	policy KEY=VALUE ...             backfill=easy|conservative|none order=fair|fifo|index holdafter=SPAN minrun=SPAN ...
//	queue NAME [parent=P] [weight=2] [gpu=NOMINAL,BORROW,LEND] [running=N] [userrunning=N] [usergpus=N]
//	reserve NAME from=SPAN to=SPAN [nodes=a,b] [count=2] [queue=Q] [maintenance]
//	saved JOB                        it writes a checkpoint now
//	stopped JOB                      an attempt that was being stopped has stopped
//	lost NODE                        the node is gone; gangs on it stop, and their other slots are claimed for 2 minutes
//	size JOB COUNT                   the elastic job should run with so many tasks
//	cancel JOB                       a pending job is gone
//	unsize                           no job has a wished size any more
//	reasons                          print the reasons of placements from here on
func (w *world) doInTime(t *testing.T, words []string) string {
	t.Helper()
	switch words[0] {
	case "now":
		w.nowMS = span(t, words[1])
	case "policy":
		w.setPolicy(t, words[1:])
	case "queue":
		w.addQueue(t, words[1:])
	case "reserve":
		w.addReservation(t, words[1:])
	case "saved":
		run := w.running[words[1]]
		run.saved = w.nowMS
		w.running[words[1]] = run
	case "stopped":
		w.stopped(t, words[1])
	case "lost":
		w.lost(t, words[1])
	case "size":
		w.sizes = append(w.sizes, scheduler.Size{JobID: words[1], Counts: []int32{int32(number(t, words[2]))}})
	case "cancel":
		w.pending = slices.DeleteFunc(w.pending, func(j scheduler.Job) bool { return j.ID == words[1] })
	case "unsize":
		w.sizes = nil
	case "reasons":
		w.reasons = true
	default:
		t.Fatalf("unknown command %q", words[0])
	}
	return ""
}

func span(t *testing.T, s string) int64 {
	t.Helper()
	unit := map[byte]int64{'s': 1000, 'm': 60_000, 'h': 3_600_000}[s[len(s)-1]]
	if unit == 0 {
		return number(t, s)
	}
	return number(t, s[:len(s)-1]) * unit
}

func (w *world) setPolicy(t *testing.T, words []string) {
	for _, word := range words {
		key, value, _ := strings.Cut(word, "=")
		switch key {
		case "backfill":
			w.policy.Backfill = scheduler.Backfill(slices.Index([]string{"easy", "conservative", "none"}, value))
		case "order":
			w.policy.Order = scheduler.Order(slices.Index([]string{"fair", "fifo", "index"}, value))
		case "holdafter":
			w.policy.HoldAfterMS = span(t, value)
		case "minrun":
			w.policy.MinRunMS = span(t, value)
		case "nopreempt":
			w.policy.NoPreempt = true
		default:
			t.Fatalf("unknown word %q", word)
		}
	}
}

func (w *world) addQueue(t *testing.T, words []string) {
	q := scheduler.Queue{Name: words[0], Weight: 1}
	for _, word := range words[1:] {
		key, value, _ := strings.Cut(word, "=")
		switch key {
		case "parent":
			q.Parent = value
		case "weight":
			q.Weight = float64(number(t, value))
		case "gpu":
			l := scheduler.Limit{Resource: "gpu", Borrow: -1, Lend: -1}
			for i, part := range strings.Split(value, ",") {
				n := number(t, part)
				if n > 0 {
					n *= 1000
				}
				*[]*int64{&l.Nominal, &l.Borrow, &l.Lend}[i] = n
			}
			q.Limits = append(q.Limits, l)
		case "running":
			q.RunningMax = int32(number(t, value))
		case "userrunning":
			q.UserRunning = int32(number(t, value))
		case "usergpus":
			q.UserShareMax = number(t, value) * 1000
		default:
			t.Fatalf("unknown word %q", word)
		}
	}
	w.queues = append(w.queues, q)
}

func (w *world) addReservation(t *testing.T, words []string) {
	r := scheduler.Reservation{Name: words[0]}
	for _, word := range words[1:] {
		key, value, _ := strings.Cut(word, "=")
		switch key {
		case "from":
			r.StartMS = span(t, value)
		case "to":
			r.EndMS = span(t, value)
		case "nodes":
			r.NodeIDs = strings.Split(value, ",")
		case "count":
			r.Nodes = int32(number(t, value))
		case "gpus":
			r.GPUs = int32(number(t, value))
		case "queue":
			r.Queue = value
		case "maintenance":
			r.Maintenance = true
		default:
			t.Fatalf("unknown word %q", word)
		}
	}
	w.reservations = append(w.reservations, r)
}

// jobWord reads a word of a job about time, queues or preemption.
func (w *world) jobWord(t *testing.T, job *scheduler.Job, key, value string) bool {
	t.Helper()
	switch key {
	case "q90":
		job.Q90, job.Q50 = span(t, value), span(t, value)
	case "limit":
		job.LimitMS = span(t, value)
	case "queue":
		job.Queue = value
	case "user":
		job.User = value
	case "group":
		name, most, _ := strings.Cut(value, ":")
		job.Group, job.GroupMax = name, int32(number(t, most))
	case "index":
		job.Index = float64(number(t, value))
	case "nopreempt":
		job.NoPreempt = true
	case "reservation":
		job.Reservation = value
	default:
		return false
	}
	return true
}

// inTime adds to a snapshot what the timeline knows.
func (w *world) inTime(s scheduler.Snapshot) scheduler.Snapshot {
	s.NowMS, s.Queues, s.Reservations, s.Sizes = w.nowMS, w.queues, w.reservations, w.sizes
	var ids []string
	for id := range w.running {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	for _, id := range ids {
		run := w.running[id]
		r := scheduler.Running{JobID: id, Name: strings.TrimRight(id, "-0123456789"), Queue: run.job.Queue, User: run.job.User, Group: run.job.Group, Priority: run.job.Priority,
			Epoch: 1, Submit: run.job.Submit, Slots: slotsOf(run.job, run.placement), StartedMS: run.atMS, CheckpointMS: run.saved,
			Index: run.job.Index, Counts: run.placement.Counts, NoPreempt: run.job.NoPreempt, Ending: run.ending, Reservation: run.job.Reservation, Claim: run.claim}
		if run.job.Q90 > 0 {
			r.EndQ90, r.EndQ50 = run.atMS+run.job.Q90, run.atMS+run.job.Q90
		}
		r.Job = &run.job
		for i, role := range run.job.Roles {
			if role.Min > 0 && run.placement.Counts != nil {
				r.Elastic = append(r.Elastic, scheduler.Elastic{Role: i, Min: role.Min, Max: role.Count, Count: run.placement.Counts[i]})
			}
		}
		s.Running = append(s.Running, r)
	}
	return s
}

// slotsOf is what the tasks of a placement hold.
func slotsOf(job scheduler.Job, p scheduler.Placement) []scheduler.Slot {
	var slots []scheduler.Slot
	requests := requestsByRank(job, p.Counts)
	for rank, task := range p.Tasks {
		slots = append(slots, scheduler.Slot{NodeID: task.NodeID, CPU: requests[rank].CPU, Memory: requests[rank].Memory,
			Ports: int32(len(task.Ports)), Devices: task.Devices})
	}
	return slots
}

func (w *world) whyPlaced(p scheduler.Placement) string {
	if !w.reasons {
		return ""
	}
	return " (" + p.Reason + ")"
}

// evict applies a plan's evictions and claims, and prints them.
func (w *world) evict(plan *scheduler.Plan) string {
	out := ""
	kinds := []string{"", "priority", "reclaim", "resize", "drain", "fair", "forecast"}
	for _, e := range plan.Evictions {
		out += fmt.Sprintf("%s is stopped (%s): %s\n", e.JobID, kinds[e.Kind], e.Reason)
		run := w.running[e.JobID]
		run.ending, run.again, run.stopAt = true, true, w.nowMS+stopMS
		w.running[e.JobID] = run
	}
	for _, c := range plan.Claims {
		out += fmt.Sprintf("kept for %s: %s\n", c.JobID, claimWords(c.Claim))
		if i := slices.IndexFunc(w.pending, func(j scheduler.Job) bool { return j.ID == c.JobID }); i >= 0 {
			w.pending[i].Claim = c.Claim
			continue
		}
		run := w.running[c.JobID]
		run.claim = c.Claim
		w.running[c.JobID] = run
	}
	return out
}

func claimWords(c *scheduler.Claim) string {
	if c == nil {
		return "nothing"
	}
	var words []string
	for _, s := range c.Slots {
		word := s.NodeID
		var devices []string
		for _, g := range s.Devices {
			devices = append(devices, g.DeviceID)
		}
		if len(devices) > 0 {
			word += "[" + strings.Join(devices, " ") + "]"
		}
		words = append(words, word)
	}
	return strings.Join(words, " ")
}

func (w *world) stopped(t *testing.T, id string) {
	run, ok := w.running[id]
	if !ok || !run.ending {
		t.Fatalf("job %s is not being stopped", id)
	}
	w.finish(t, id)
	if run.again {
		run.job.Claim = run.claim
		w.pending = append(w.pending, run.job)
	}
}

func (w *world) lost(t *testing.T, node string) {
	w.set(t, node, []string{"status=lost"})
	for id, run := range w.running {
		slots := slotsOf(run.job, run.placement)
		left := slices.DeleteFunc(slices.Clone(slots), func(s scheduler.Slot) bool { return s.NodeID == node })
		if len(left) == len(slots) {
			continue
		}
		run.ending, run.again = true, true
		run.claim = &scheduler.Claim{Kind: scheduler.ClaimRepair, UntilMS: w.nowMS + 120_000, Slots: left, Counts: run.placement.Counts}
		w.running[id] = run
	}
}
