package scheduler_test

import (
	"fmt"
	"math/rand"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"llmos/server/scheduler"
)

// drawQueues draws two levels of queues with limits on devices, and gives the leaves.
func (w *world) drawQueues(t *rapid.T) []string {
	var leaves []string
	for o := range rapid.IntRange(1, 2).Draw(t, "orgs") {
		org := scheduler.Queue{Name: fmt.Sprintf("org%d", o), Weight: 1}
		sum := int64(0)
		for q := range rapid.IntRange(1, 3).Draw(t, "teams") {
			nominal := 1000 * rapid.Int64Range(0, 4).Draw(t, "nominal")
			sum += nominal
			leaf := scheduler.Queue{Name: fmt.Sprintf("%s/t%d", org.Name, q), Parent: org.Name, Weight: float64(rapid.IntRange(1, 3).Draw(t, "weight"))}
			if rapid.IntRange(0, 3).Draw(t, "limited") > 0 {
				leaf.Limits = []scheduler.Limit{{Resource: "gpu", Nominal: nominal, Borrow: 1000 * rapid.Int64Range(-1, 3).Draw(t, "borrow"),
					Lend: 1000 * rapid.Int64Range(-1, 3).Draw(t, "lend")}}
			}
			w.queues = append(w.queues, leaf)
			leaves = append(leaves, leaf.Name)
		}
		if rapid.Bool().Draw(t, "org limited") {
			org.Limits = []scheduler.Limit{{Resource: "gpu", Nominal: sum, Borrow: 1000 * rapid.Int64Range(-1, 4).Draw(t, "org borrow"), Lend: -1}}
		}
		w.queues = append(w.queues, org)
	}
	return leaves
}

// drawSubmission draws a job of some queue, user and priority.
func (w *world) drawSubmission(t *rapid.T, leaves []string) scheduler.Job {
	j := w.drawGang(t, true)
	j.Queue = rapid.SampledFrom(leaves).Draw(t, "queue")
	j.User = rapid.SampledFrom([]string{"ann", "bob"}).Draw(t, "user")
	j.Priority = rapid.SampledFrom([]int32{10, 50, 50, 90}).Draw(t, "priority")
	j.NoPreempt = rapid.IntRange(0, 7).Draw(t, "fixed") == 0
	j.Index = float64(rapid.IntRange(1, 100).Draw(t, "index"))
	if rapid.IntRange(0, 3).Draw(t, "elastic") == 0 {
		j.Roles[0].Min, j.Roles[0].Count = 1, 4
	}
	return j
}

// held sums the devices that running attempts hold, in thousandths, by queue and those above.
func (w *world) held() map[string]int64 {
	parents := map[string]string{}
	for _, q := range w.queues {
		parents[q.Name] = q.Parent
	}
	sums := map[string]int64{}
	for _, r := range w.running {
		share := int64(0)
		for _, task := range r.placement.Tasks {
			share += 1000 * int64(len(task.Devices))
		}
		for q := r.job.Queue; q != ""; q = parents[q] {
			sums[q] += share
		}
	}
	return sums
}

func (w *world) checkQuotas(t *rapid.T) {
	held := w.held()
	for _, q := range w.queues {
		for _, l := range q.Limits {
			if l.Borrow >= 0 && held[q.Name] > l.Nominal+l.Borrow {
				t.Fatalf("at %d queue %s holds %d, at most %d and %d borrowed", w.nowMS/minute, q.Name, held[q.Name], l.Nominal, l.Borrow)
			}
		}
	}
}

// TestQuotasHold: whatever comes and goes, no queue holds more than its quota and what it may
// borrow, and no job that may not be stopped is.
func TestQuotasHold(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := drawWorld(rt)
		leaves := w.drawQueues(rt)
		w.policy.Order = scheduler.Order(rapid.IntRange(0, 2).Draw(rt, "order"))
		for range rapid.IntRange(1, 12).Draw(rt, "steps") {
			for range rapid.IntRange(0, 4).Draw(rt, "submitted") {
				w.pending = append(w.pending, w.drawSubmission(rt, leaves))
			}
			plan := w.plan(rt)
			for _, e := range plan.Evictions {
				if r := w.running[e.JobID]; r.job.NoPreempt || r.ending {
					rt.Fatalf("%s is stopped", e.JobID)
				}
				if w.nowMS-w.running[e.JobID].atMS < minute {
					rt.Fatalf("%s is stopped right after its start", e.JobID)
				}
			}
			w.apply(plan)
			w.checkQuotas(rt)
			w.advance(t, w.nowMS+rapid.Int64Range(1, 5).Draw(rt, "minutes")*minute)
		}
	})
}

// TestStoppingComesToAnEnd: with jobs that run for ever the evictions stop: nobody takes back
// from a job what that took from it before, whether by priority, quota or index.
func TestStoppingComesToAnEnd(t *testing.T) {
	const evictionsPerJob = 8 // a bound, not what is usual
	rapid.Check(t, func(rt *rapid.T) {
		w := drawWorld(rt)
		leaves := w.drawQueues(rt)
		w.policy.Order = scheduler.Order(rapid.IntRange(0, 2).Draw(rt, "order"))
		jobs := rapid.IntRange(1, 14).Draw(rt, "jobs")
		evictions, quiet := 0, 0
		for n := 0; quiet < 4; n++ {
			if n < jobs {
				j := w.drawSubmission(rt, leaves)
				j.Q90 = 0
				w.pending = append(w.pending, j)
			}
			plan := w.plan(rt)
			evictions += len(plan.Evictions)
			if quiet++; len(plan.Evictions)+len(plan.Placements) > 0 || n < jobs {
				quiet = 0
			}
			w.apply(plan)
			w.advance(t, w.nowMS+minute)
			w.advance(t, w.nowMS+minute)
			if evictions > evictionsPerJob*jobs {
				rt.Fatalf("%d evictions among %d jobs, and no end", evictions, jobs)
			}
		}
	})
}

// TestReservedNodesAreFree: when a reservation starts nobody runs on its nodes who may be
// stopped and is not of it; predictions are exact, or there are none.
func TestReservedNodesAreFree(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := drawWorld(rt)
		r := scheduler.Reservation{Name: "r", StartMS: w.nowMS + rapid.Int64Range(3, 40).Draw(rt, "start")*minute, Maintenance: rapid.Bool().Draw(rt, "maintenance")}
		r.EndMS = r.StartMS + 10*minute
		for _, n := range w.nodes {
			if rapid.Bool().Draw(rt, "reserved") {
				r.NodeIDs = append(r.NodeIDs, n.ID)
			}
		}
		if len(r.NodeIDs) == 0 {
			return
		}
		w.reservations = []scheduler.Reservation{r}
		for step := 0; w.nowMS < r.EndMS; step++ {
			if step < 6 {
				j := w.drawGang(rt, true)
				if rapid.IntRange(0, 4).Draw(rt, "member") == 0 {
					j.Reservation = "r"
				}
				w.pending = append(w.pending, j)
			}
			w.apply(w.plan(rt))
			if w.nowMS >= r.StartMS {
				for id, run := range w.running {
					for _, task := range run.placement.Tasks {
						if slices.Contains(r.NodeIDs, task.NodeID) && (run.job.Reservation != "r" || r.Maintenance) {
							rt.Fatalf("at %d, %d after the start, %s runs on %s", w.nowMS/minute, (w.nowMS-r.StartMS)/minute, id, task.NodeID)
						}
					}
				}
			}
			limit := w.nowMS + minute
			if w.nowMS < r.StartMS {
				limit = min(limit, r.StartMS)
			}
			w.advance(t, limit)
		}
	})
}

// TestPlanOfARunningCluster: equal snapshots give equal plans in whatever order their parts
// are listed, and a plan leaves its snapshot alone.
// TestSearchesCutShort: what is not searched, since a search before was in vain or too little
// is held by all who might stop, would have found nothing.
func TestSearchesCutShort(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := drawWorld(rt)
		var leaves []string
		if leaves = []string{"a", "b"}; rapid.Bool().Draw(rt, "queues") {
			leaves = w.drawQueues(rt)
		}
		w.policy.Order = scheduler.Order(rapid.IntRange(0, 2).Draw(rt, "order"))
		for range rapid.IntRange(1, 12).Draw(rt, "steps") {
			for range rapid.IntRange(0, 3).Draw(rt, "submitted") {
				w.pending = append(w.pending, w.drawSubmission(rt, leaves))
			}
			plan := w.plan(rt)
			thorough := scheduler.Schedule(w.snapshot(), scheduler.Thorough(w.policy))
			if !thorough.Limited && !reflect.DeepEqual(plan.Evictions, thorough.Evictions) {
				rt.Fatalf("stopped: %+v\nthoroughly: %+v", plan.Evictions, thorough.Evictions)
			}
			w.apply(plan)
			w.advance(t, w.nowMS+rapid.Int64Range(1, 5).Draw(rt, "minutes")*minute)
		}
	})
}

func TestPlanOfARunningCluster(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := drawWorld(rt)
		leaves := w.drawQueues(rt)
		w.policy.Order = scheduler.Order(rapid.IntRange(0, 2).Draw(rt, "order"))
		w.policy.Backfill = scheduler.Backfill(rapid.IntRange(0, 2).Draw(rt, "backfill"))
		for range rapid.IntRange(1, 4).Draw(rt, "steps") {
			for range rapid.IntRange(0, 4).Draw(rt, "submitted") {
				w.pending = append(w.pending, w.drawSubmission(rt, leaves))
			}
			w.apply(w.plan(rt))
			w.advance(t, w.nowMS+2*minute)
		}
		s := w.snapshot()
		before := fmt.Sprintf("%+v", s)
		first := scheduler.Schedule(s, w.policy)
		random := rand.New(rand.NewSource(rapid.Int64().Draw(rt, "seed")))
		other := s
		other.Nodes, other.Pending = slices.Clone(s.Nodes), slices.Clone(s.Pending)
		other.Running, other.Queues = slices.Clone(s.Running), slices.Clone(s.Queues)
		random.Shuffle(len(other.Nodes), reflect.Swapper(other.Nodes))
		random.Shuffle(len(other.Pending), reflect.Swapper(other.Pending))
		random.Shuffle(len(other.Running), reflect.Swapper(other.Running))
		random.Shuffle(len(other.Queues), reflect.Swapper(other.Queues))
		second := scheduler.Schedule(other, w.policy)
		for _, part := range [][2]any{{first.Placements, second.Placements}, {first.Waiting, second.Waiting},
			{first.Evictions, second.Evictions}, {first.Claims, second.Claims}} {
			if !reflect.DeepEqual(part[0], part[1]) {
				rt.Fatalf("plans differ:\n%+v\n%+v", part[0], part[1])
			}
		}
		if after := fmt.Sprintf("%+v", s); after != before {
			rt.Fatalf("the snapshot was modified")
		}
	})
}
