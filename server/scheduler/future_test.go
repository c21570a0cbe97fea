package scheduler_test

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"llmos/server/scheduler"
)

// What holds over time: a cluster is drawn, and plans are applied one after the other, with
// every job running exactly as long as is predicted.

// minute is the grid of drawn times.
const minute = int64(60_000)

// stopMS is how long a stop takes.
const stopMS = 5_000

// drawWorld draws a small cluster of whole devices.
func drawWorld(t *rapid.T) *world {
	w := &world{running: map[string]started{}}
	w.nowMS = 100 * minute
	w.policy.HoldAfterMS = -1
	for i := range rapid.IntRange(1, 4).Draw(t, "nodes") {
		w.nodes = append(w.nodes, drawWholeNode(t, fmt.Sprintf("n%d", i)))
	}
	return w
}

func drawWholeNode(t *rapid.T, id string) scheduler.Node {
	n := scheduler.Node{ID: id, CPU: 1000 * rapid.Int64Range(2, 8).Draw(t, "cpu"), Memory: 64 << 30, PortMin: 20000, PortMax: 20100}
	n.CPUFree, n.MemFree = n.CPU, n.Memory
	for d := range rapid.IntRange(1, 4).Draw(t, "devices") {
		n.Devices = append(n.Devices, scheduler.Device{ID: fmt.Sprintf("%s.%d", id, d), Model: "H100-80", Memory: 80 << 30,
			MemFree: 80 << 30, ShareFree: 1000, Available: true})
	}
	return n
}

// drawGang draws a job of one role; it runs for a drawn time, or for ever when unknown allows it.
func (w *world) drawGang(t *rapid.T, unknown bool) scheduler.Job {
	w.submits++
	j := scheduler.Job{ID: fmt.Sprintf("j%02d", w.submits), Priority: 50, Submit: w.submits, Attempt: 1}
	j.Roles = []scheduler.Role{{Name: "w", Count: rapid.Int32Range(1, 3).Draw(t, "count"), Task: scheduler.Request{
		CPU: 1000 * rapid.Int64Range(0, 3).Draw(t, "cpu"), GPUs: rapid.Int32Range(0, 3).Draw(t, "gpus")}}}
	if !unknown || rapid.Bool().Draw(t, "known") {
		j.Q90 = minute * rapid.Int64Range(1, 30).Draw(t, "length")
	}
	return j
}

// plan schedules, and checks what must hold of every plan in a running cluster.
func (w *world) plan(t *rapid.T) *scheduler.Plan {
	s := w.snapshot()
	plan := scheduler.Schedule(s, w.policy)
	book := newBook(s)
	for _, p := range plan.Placements {
		if err := book.take(p); err != nil {
			t.Fatalf("at %d job %s: %v", w.nowMS/minute, p.JobID, err)
		}
	}
	w.checkClaims(t, plan)
	return plan
}

// apply makes the plan true. Attempts that are stopped end stopMS later.
func (w *world) apply(plan *scheduler.Plan) {
	for _, p := range plan.Placements {
		w.commit(p)
	}
	w.evict(plan)
}

// endOf is when an attempt ends; 0: never.
func (w *world) endOf(r started) int64 {
	switch {
	case r.ending:
		return r.stopAt
	case r.job.Q90 > 0:
		return r.atMS + r.job.Q90
	}
	return 0
}

// advance goes to the next time at which something ends, at most to a limit, and ends it.
func (w *world) advance(t *testing.T, limit int64) {
	next := limit
	for _, r := range w.running {
		if end := w.endOf(r); end > 0 {
			next = min(next, end)
		}
	}
	w.nowMS = next
	for id, r := range w.running {
		if end := w.endOf(r); end > 0 && end <= next {
			if r.ending {
				w.stopped(t, id)
			} else {
				w.finish(t, id)
			}
		}
	}
}

// checkClaims holds claims and placements to their rooms: no device is claimed twice, and
// nobody is placed on a device that is claimed for another job.
func (w *world) checkClaims(t *rapid.T, plan *scheduler.Plan) {
	owners := map[string]string{}
	claim := func(owner string, c *scheduler.Claim) {
		if c == nil || c.UntilMS <= w.nowMS {
			return
		}
		for _, s := range c.Slots {
			for _, g := range s.Devices {
				if other, taken := owners[g.DeviceID]; taken && other != owner {
					t.Fatalf("at %d device %s is claimed for %s and %s", w.nowMS/minute, g.DeviceID, other, owner)
				}
				owners[g.DeviceID] = owner
			}
		}
	}
	placed := map[string]bool{}
	for _, p := range plan.Placements {
		placed[p.JobID] = true
	}
	for _, j := range w.pending {
		if !placed[j.ID] {
			claim(j.ID, j.Claim)
		}
	}
	for id, r := range w.running {
		claim(id, r.claim)
	}
	for _, c := range plan.Claims {
		claim(c.JobID, c.Claim)
	}
	for _, p := range plan.Placements {
		for _, task := range p.Tasks {
			for _, g := range task.Devices {
				if owner, taken := owners[g.DeviceID]; taken && owner != p.JobID {
					t.Fatalf("at %d %s is placed on %s, which is claimed for %s", w.nowMS/minute, p.JobID, g.DeviceID, owner)
				}
			}
		}
	}
}

// startOf runs the cluster until a job starts, and gives the time; false: it never does.
func (w *world) startOf(t *testing.T, rt *rapid.T, id string) (int64, bool) {
	for range 200 {
		plan := w.plan(rt)
		for _, p := range plan.Placements {
			if p.JobID == id {
				return w.nowMS, true
			}
		}
		w.apply(plan)
		if len(w.running) == 0 {
			return 0, false
		}
		w.advance(t, w.nowMS+1000*minute)
	}
	return 0, false
}

// copied is a cluster with the same state, whose pending jobs are those that keep accepts.
func (w *world) copied(keep func(scheduler.Job) bool) *world {
	c := *w
	c.nodes, c.pending, c.running = slices.Clone(w.nodes), nil, map[string]started{}
	for id, r := range w.running {
		c.running[id] = r
	}
	for _, j := range w.pending {
		if keep(j) {
			c.pending = append(c.pending, j)
		}
	}
	return &c
}

// fill starts some jobs that run when the test begins.
func (w *world) fill(t *rapid.T, unknown bool) {
	for range rapid.IntRange(0, 6).Draw(t, "running") {
		w.pending = append(w.pending, w.drawGang(t, unknown))
	}
	w.apply(w.plan(t))
	w.pending = nil
}

// TestBackfillDelaysNoHead: with predictions that are exact the first job starts as early as
// if nobody waited behind it.
func TestBackfillDelaysNoHead(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := drawWorld(rt)
		w.policy.Backfill = scheduler.Backfill(rapid.IntRange(0, 1).Draw(rt, "backfill"))
		w.fill(rt, false)
		head := w.drawGang(rt, false)
		w.pending = append(w.pending, head)
		for range rapid.IntRange(1, 8).Draw(rt, "behind") {
			w.pending = append(w.pending, w.drawGang(rt, true))
		}
		alone := w.copied(func(j scheduler.Job) bool { return j.ID == head.ID })
		want, ok := alone.startOf(t, rt, head.ID)
		if !ok {
			return // it fits nowhere
		}
		if got, ok := w.startOf(t, rt, head.ID); !ok || got > want {
			rt.Fatalf("the head starts at %d min (%v), alone at %d", got/minute, ok, want/minute)
		}
	})
}

// TestConservativeKeepsPromises: under conservative backfill no job starts later than was
// expected when the plan was made, as long as all predictions are exact. With one node: where
// there are several, a job may start on another one than was foreseen, and move the next.
func TestConservativeKeepsPromises(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := drawWorld(rt)
		w.nodes = w.nodes[:1]
		w.policy.Backfill = scheduler.BackfillConservative
		w.fill(rt, false)
		for range rapid.IntRange(1, 6).Draw(rt, "pending") {
			w.pending = append(w.pending, w.drawGang(rt, false))
		}
		promised := map[string]int64{}
		for _, waiting := range w.plan(rt).Waiting {
			promised[waiting.JobID] = waiting.StartMS
		}
		for id, at := range promised {
			if at == 0 {
				continue
			}
			if got, ok := w.copied(func(scheduler.Job) bool { return true }).startOf(t, rt, id); !ok || got > at {
				rt.Fatalf("%s starts at %d min (%v), expected at %d", id, got/minute, ok, at/minute)
			}
		}
	})
}

// TestMoreCapacityHelpsTheHead: another node never makes the first job wait longer.
func TestMoreCapacityHelpsTheHead(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := drawWorld(rt)
		w.fill(rt, false)
		head := w.drawGang(rt, false)
		w.pending = append(w.pending, head)
		for range rapid.IntRange(0, 4).Draw(rt, "behind") {
			w.pending = append(w.pending, w.drawGang(rt, true))
		}
		more := w.copied(func(scheduler.Job) bool { return true })
		more.nodes = append(more.nodes, drawWholeNode(rt, rapid.SampledFrom([]string{"a", "z"}).Draw(rt, "id")))
		want, ok := w.startOf(t, rt, head.ID)
		if !ok {
			return
		}
		if got, ok := more.startOf(t, rt, head.ID); !ok || got > want {
			rt.Fatalf("the head starts at %d min (%v) with another node, at %d without", got/minute, ok, want/minute)
		}
	})
}
