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

var someModels = []struct {
	name   string
	memory int64
}{{"A100-40", 40 << 30}, {"H100-80", 80 << 30}}

func drawNode(t *rapid.T, i int) scheduler.Node {
	n := scheduler.Node{ID: fmt.Sprintf("n%02d", i), Status: scheduler.NodeStatus(rapid.SampledFrom([]int{0, 0, 0, 0, 1, 2}).Draw(t, "status")),
		CPU: 1000 * rapid.Int64Range(1, 16).Draw(t, "cpu"), Memory: rapid.Int64Range(1, 32).Draw(t, "mem") << 30,
		PortMin: 20000, PortMax: 20000 + rapid.Int32Range(0, 6).Draw(t, "ports")}
	for d := range rapid.IntRange(0, 4).Draw(t, "devices") {
		m := rapid.SampledFrom(someModels).Draw(t, "model")
		dev := scheduler.Device{ID: fmt.Sprintf("%s.%d", n.ID, d), Model: m.name, Memory: m.memory, MemFree: m.memory,
			ShareFree: 1000, Available: rapid.IntRange(0, 9).Draw(t, "healthy") > 0}
		if rapid.IntRange(0, 3).Draw(t, "used") == 0 {
			dev.ShareFree = 100 * rapid.Int32Range(0, 10).Draw(t, "free")
			dev.MemFree = m.memory * int64(dev.ShareFree) / 1000
		}
		n.Devices = append(n.Devices, dev)
	}
	n.CPUFree = rapid.Int64Range(0, n.CPU).Draw(t, "cpufree")
	n.MemFree = rapid.Int64Range(0, n.Memory).Draw(t, "memfree")
	return n
}

func drawRole(t *rapid.T) scheduler.Role {
	r := scheduler.Role{Name: "w", Count: rapid.Int32Range(1, 4).Draw(t, "count"), Task: scheduler.Request{
		CPU: 500 * rapid.Int64Range(0, 8).Draw(t, "cpu"), Memory: rapid.Int64Range(0, 8).Draw(t, "mem") << 30,
		GPUs: rapid.Int32Range(0, 3).Draw(t, "gpus"), Ports: rapid.Int32Range(0, 2).Draw(t, "ports")}}
	if r.Task.GPUs == 0 {
		return r
	}
	r.Task.Model = rapid.SampledFrom([]string{"", "", "A100-40", "H100-80", "T4-16"}).Draw(t, "model")
	r.Task.GPUMemory = rapid.SampledFrom([]int64{0, 0, 10 << 30, 60 << 30}).Draw(t, "gpumem")
	if rapid.Bool().Draw(t, "shared") {
		r.Task.Share = 50 * rapid.Int32Range(1, 19).Draw(t, "share")
	}
	return r
}

func drawSnapshot(t *rapid.T) scheduler.Snapshot {
	var s scheduler.Snapshot
	for i := range rapid.IntRange(0, 6).Draw(t, "nodes") {
		s.Nodes = append(s.Nodes, drawNode(t, i))
	}
	for i := range rapid.IntRange(0, 12).Draw(t, "jobs") {
		job := scheduler.Job{ID: fmt.Sprintf("j%02d", i), Priority: rapid.Int32Range(0, 2).Draw(t, "prio"), Submit: uint64(i),
			WaitedMS: rapid.SampledFrom([]int64{0, 60_000}).Draw(t, "waited")}
		world := int32(0)
		for range rapid.IntRange(1, 3).Draw(t, "roles") {
			role := drawRole(t)
			world += role.Count
			job.Roles = append(job.Roles, role)
		}
		job.Rendezvous = world > 1
		s.Pending = append(s.Pending, job)
	}
	return s
}

// TestPlanIsSound holds every plan to the rules: gangs whole, nothing given twice, every
// grant as asked, every job either placed or waiting with a reason.
func TestPlanIsSound(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawSnapshot(t)
		plan := scheduler.Schedule(s, scheduler.Policy{})
		book := newBook(s)
		seen := map[string]bool{}
		for _, p := range plan.Placements {
			seen[p.JobID] = true
			if err := book.take(p); err != nil {
				t.Fatalf("job %s: %v", p.JobID, err)
			}
			if _, ok := plan.Explain(p.JobID); ok {
				t.Fatalf("job %s is placed and explained", p.JobID)
			}
		}
		for _, w := range plan.Waiting {
			if seen[w.JobID] {
				t.Fatalf("job %s appears twice", w.JobID)
			}
			seen[w.JobID] = true
			reason, ok := plan.Explain(w.JobID)
			if !ok || reason.Cause == scheduler.CauseNone || reason.Text == "" || reason.Remedy == "" {
				t.Fatalf("job %s waits with reason %+v", w.JobID, reason)
			}
		}
		if len(seen) != len(s.Pending) {
			t.Fatalf("%d of %d jobs are accounted for", len(seen), len(s.Pending))
		}
	})
}

// TestPlanIsDeterministic holds equal snapshots to equal plans, in whatever order the nodes
// and jobs are listed, and the snapshot to being left alone.
func TestPlanIsDeterministic(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawSnapshot(t)
		before := fmt.Sprintf("%+v", s)
		first := scheduler.Schedule(s, scheduler.Policy{})
		random := rand.New(rand.NewSource(rapid.Int64().Draw(t, "seed")))
		other := scheduler.Snapshot{Nodes: slices.Clone(s.Nodes), Pending: slices.Clone(s.Pending)}
		random.Shuffle(len(other.Nodes), func(i, j int) { other.Nodes[i], other.Nodes[j] = other.Nodes[j], other.Nodes[i] })
		random.Shuffle(len(other.Pending), func(i, j int) { other.Pending[i], other.Pending[j] = other.Pending[j], other.Pending[i] })
		second := scheduler.Schedule(other, scheduler.Policy{})
		if !reflect.DeepEqual(first.Placements, second.Placements) || !reflect.DeepEqual(first.Waiting, second.Waiting) {
			t.Fatalf("plans differ:\n%+v\n%+v", first.Placements, second.Placements)
		}
		if after := fmt.Sprintf("%+v", s); after != before {
			t.Fatalf("the snapshot was modified")
		}
	})
}

// TestEqualShapesKeepOrder: of jobs that ask the same, the ones first in order are placed.
func TestEqualShapesKeepOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawSnapshot(t)
		role := drawRole(t)
		for i := range s.Pending {
			s.Pending[i].Roles = []scheduler.Role{role}
			s.Pending[i].Rendezvous = role.Count > 1
		}
		plan := scheduler.Schedule(s, scheduler.Policy{})
		rank := func(id string) int {
			i := slices.IndexFunc(s.Pending, func(j scheduler.Job) bool { return j.ID == id })
			return -1000*int(s.Pending[i].Priority) + i
		}
		for _, p := range plan.Placements {
			for _, w := range plan.Waiting {
				if rank(w.JobID) < rank(p.JobID) {
					t.Fatalf("%s waits while %s, behind it, is placed", w.JobID, p.JobID)
				}
			}
		}
	})
}

// TestNothingFitsAfterwards: without holds, a waiting job of one task finds no room on what
// the plan leaves.
func TestNothingFitsAfterwards(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawSnapshot(t)
		for i := range s.Pending {
			s.Pending[i].Roles = s.Pending[i].Roles[:1]
			s.Pending[i].Roles[0].Count = 1
			s.Pending[i].Rendezvous = false
		}
		plan := scheduler.Schedule(s, scheduler.Policy{Holds: -1})
		book := newBook(s)
		for _, p := range plan.Placements {
			if err := book.take(p); err != nil {
				t.Fatal(err)
			}
		}
		for _, w := range plan.Waiting {
			job := book.jobs[w.JobID]
			for id, n := range book.nodes {
				if n.admits(job.Roles[0].Task) {
					t.Fatalf("%s waits, but fits on %s: %+v", w.JobID, id, job)
				}
			}
		}
	})
}

// TestNeverFitsIsTrue: what Feasible refuses is not placed on the empty cluster.
func TestNeverFitsIsTrue(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawSnapshot(t)
		for i := range s.Nodes {
			n := &s.Nodes[i]
			n.Status, n.CPUFree, n.MemFree = scheduler.NodeReady, n.CPU, n.Memory
			for j := range n.Devices {
				d := &n.Devices[j]
				d.Available, d.ShareFree, d.MemFree = true, 1000, d.Memory
			}
		}
		for _, job := range s.Pending {
			reason := scheduler.Feasible(job, s.Nodes)
			plan := scheduler.Schedule(scheduler.Snapshot{Nodes: s.Nodes, Pending: []scheduler.Job{job}}, scheduler.Policy{})
			if placed := len(plan.Placements) > 0; placed && reason.Cause != scheduler.CauseNone {
				t.Fatalf("%+v is placed although %s", job, reason.Text)
			}
			if len(job.Roles) == 1 && job.Roles[0].Task.Ports == 0 && len(plan.Placements) == 0 && reason.Cause == scheduler.CauseNone &&
				!(job.Roles[0].Task.Share > 0 && job.Roles[0].Task.GPUs > 1) && job.Roles[0].Count == 1 {
				t.Fatalf("%+v is feasible and not placed", job)
			}
		}
	})
}
