package scheduler_test

import (
	"fmt"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"llmos/server/scheduler"
)

// gpuNode is a free node with devices of one model.
func gpuNode(id, model string, cpu int64, free ...int32) scheduler.Node {
	n := scheduler.Node{ID: id, CPU: 128_000, CPUFree: cpu, Memory: 1 << 40, MemFree: 1 << 40}
	for i, share := range free {
		n.Devices = append(n.Devices, scheduler.Device{ID: fmt.Sprintf("%s.%d", id, i), Model: model, Memory: 80 << 30,
			MemFree: 80 << 30 * int64(share) / 1000, ShareFree: share, Available: true, NUMA: -1})
	}
	return n
}

func one(task scheduler.Request) scheduler.Job {
	return scheduler.Job{ID: "job", Roles: []scheduler.Role{{Name: "task", Count: 1, Task: task}}}
}

// learned gives prices after so many arrivals of each task.
func learned(nodes []scheduler.Node, times int, tasks ...scheduler.Request) scheduler.Snapshot {
	var l scheduler.Learner
	for _, task := range tasks {
		job := one(task)
		job.Roles[0].Count = int32(times)
		l.Arrive(&job)
	}
	return scheduler.Snapshot{Nodes: nodes, Packing: l.Prices(nodes)}
}

func TestPlacesByPrices(t *testing.T) {
	any := scheduler.Request{CPU: 8000, GPUs: 1}
	pinned := scheduler.Request{CPU: 8000, GPUs: 1, Model: "rare"}
	part := func(share int32) scheduler.Request { return scheduler.Request{CPU: 2000, GPUs: 1, Share: share} }
	for _, c := range []struct {
		name string
		s    scheduler.Snapshot
		task scheduler.Request
		want string // device
	}{
		{"the model that others must have is spared, although it is first by ID",
			learned([]scheduler.Node{gpuNode("a", "rare", 32_000, 1000, 1000), gpuNode("b", "plain", 32_000, 1000, 1000)}, 50, any, pinned), any, "b.0"},
		{"who must have it gets it",
			learned([]scheduler.Node{gpuNode("a", "rare", 32_000, 1000, 1000), gpuNode("b", "plain", 32_000, 1000, 1000)}, 50, any, pinned), pinned, "a.0"},
		{"a share goes to the node where the rest fits what comes, not where least is left",
			learned([]scheduler.Node{gpuNode("a", "plain", 64_000, 500, 0, 0, 0), gpuNode("b", "plain", 64_000, 600, 0, 0, 0)}, 50, part(300), part(300)), part(300), "b.0"},
		{"and to the fullest of its devices",
			learned([]scheduler.Node{gpuNode("a", "plain", 64_000, 600, 500, 0, 0)}, 50, part(300), part(300)), part(300), "a.1"},
		{"devices keep the CPU that they need",
			learned([]scheduler.Node{gpuNode("a", "plain", 16_000, 1000, 1000), gpuNode("b", "plain", 40_000, 1000, 1000)}, 50, any),
			scheduler.Request{CPU: 12_000}, "b"},
		{"of equal places the fuller node", learned([]scheduler.Node{gpuNode("a", "plain", 64_000, 1000, 1000), gpuNode("b", "plain", 64_000, 1000)}, 50, any),
			any, "b.0"},
		{"of equal nodes the first by ID", learned([]scheduler.Node{gpuNode("b", "plain", 64_000, 1000), gpuNode("a", "plain", 64_000, 1000)}, 50, any),
			any, "a.0"},
	} {
		c.s.Pending = []scheduler.Job{one(c.task)}
		plan := scheduler.Schedule(c.s, scheduler.Policy{})
		got := "nowhere"
		if len(plan.Placements) == 1 {
			task := plan.Placements[0].Tasks[0]
			if got = task.NodeID; len(task.Devices) > 0 {
				got = task.Devices[0].DeviceID
			}
		}
		if got != c.want {
			t.Errorf("%s: placed on %s, want %s", c.name, got, c.want)
		}
	}
}

// TestPricedPlansAreSound: by prices too, nothing is given twice, gangs are whole, equal
// snapshots give equal plans, and a cache changes nothing.
func TestPricedPlansAreSound(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawSnapshot(t)
		var l scheduler.Learner
		for i := range s.Pending {
			l.Arrive(&s.Pending[i])
		}
		l.Leave(rapid.IntRange(0, 20).Draw(t, "ended"))
		s.Packing = l.Prices(s.Nodes)
		plan := scheduler.Schedule(s, scheduler.Policy{})
		book := newBook(s)
		for _, p := range plan.Placements {
			if err := book.take(p); err != nil {
				t.Fatalf("job %s: %v", p.JobID, err)
			}
		}
		var cache scheduler.Cache
		bare := s
		bare.Packing = nil
		cache.Schedule(bare, scheduler.Policy{})
		s.Nodes = slices.Clone(s.Nodes)
		if again := cache.Schedule(s, scheduler.Policy{}); !reflect.DeepEqual(again.Placements, plan.Placements) {
			t.Fatalf("with a cache that knew no prices:\n%+v\nwithout\n%+v", again.Placements, plan.Placements)
		}
	})
}

func TestLearner(t *testing.T) {
	var l scheduler.Learner
	nodes := []scheduler.Node{gpuNode("a", "large", 64_000, 1000, 1000), gpuNode("b", "small", 64_000, 1000, 1000)}
	for i := range nodes[1].Devices {
		nodes[1].Devices[i].Memory = 16 << 30
	}
	if l.Prices(nodes) != nil {
		t.Error("prices before anything arrived")
	}
	job := one(scheduler.Request{CPU: 1000, GPUs: 1})
	l.Arrive(&job)
	first := l.Prices(nodes)
	if first == nil || l.Prices(nodes) != first {
		t.Fatal("prices are not kept until they are due")
	}
	if l.Prices(append(nodes, gpuNode("c", "large", 64_000, 1000))) == first {
		t.Error("the same prices although the cluster grew by half")
	}
	big := one(scheduler.Request{CPU: 1000, GPUs: 1, GPUMemory: 40 << 30})
	big.Roles[0].Count = 1000
	l.Arrive(&big)
	p := l.Prices(nodes)
	large, small := p.Model("large"), p.Model("small")
	if large < 0 || small < 0 || p.Price[large] < 0.9 || p.Price[small] > 0.1 {
		t.Errorf("prices %v of %v: tasks that need 40 GiB can only be on the large ones", p.Price, p.Models)
	}
}
