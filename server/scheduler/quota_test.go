package scheduler_test

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"llmos/server/scheduler"
)

// twoModels is a cluster of H100s and A100s with nothing on it, one node of each.
func twoModels(each int) []scheduler.Node {
	var nodes []scheduler.Node
	for i, m := range someModels {
		n := scheduler.Node{ID: fmt.Sprintf("n%d", i), CPU: 64_000, CPUFree: 64_000, Memory: 512 << 30, MemFree: 512 << 30, PortMin: 20000, PortMax: 20100}
		for d := range each {
			n.Devices = append(n.Devices, scheduler.Device{ID: fmt.Sprintf("%s.%d", n.ID, d), Model: m.name, Memory: m.memory, MemFree: m.memory, ShareFree: 1000, Available: true})
		}
		nodes = append(nodes, n)
	}
	return nodes
}

// TestQuotaByModel: a job that names no model starts on one that its queue may have more of,
// and an elastic one with as many tasks as the quota of the model admits.
func TestQuotaByModel(t *testing.T) {
	for i := range someModels {
		forbidden, other := someModels[i].name, someModels[1-i].name
		for _, min := range []int32{0, 1} {
			s := scheduler.Snapshot{Nodes: twoModels(4),
				Queues: []scheduler.Queue{{Name: "a", Weight: 1, Limits: []scheduler.Limit{
					{Resource: "gpu:" + forbidden, Nominal: 0}, {Resource: "gpu:" + other, Nominal: 3000}}}},
				Pending: []scheduler.Job{{ID: "j", Queue: "a", Roles: []scheduler.Role{{Name: "w", Count: 3 + min, Min: min, Task: scheduler.Request{GPUs: 1}}}}}}
			plan := scheduler.Schedule(s, scheduler.Policy{})
			if len(plan.Placements) != 1 {
				reason, _ := plan.Explain("j")
				t.Fatalf("not placed on %s: %s", other, reason.Text)
			}
			if tasks := plan.Placements[0].Tasks; len(tasks) != 3 || tasks[0].Devices[0].Model != other {
				t.Fatalf("placed on %+v", tasks)
			}
		}
	}
}

// TestNoPlanBreaksAQuotaByModel: what queues hold after a plan is within their quotas, with
// shares, whole devices, elastic sizes and lists of models.
func TestNoPlanBreaksAQuotaByModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := drawDice(t)
		var s scheduler.Snapshot
		for i := range 1 + d.Intn(5) {
			s.Nodes = append(s.Nodes, d.node(fmt.Sprintf("n%02d", i), false))
		}
		limits := map[string]int64{}
		for _, name := range []string{"a", "b"} {
			q := scheduler.Queue{Name: name, Weight: 1}
			for _, resource := range []string{"gpu", "gpu:A100-40", "gpu:H100-80"} {
				if d.one(2) {
					l := scheduler.Limit{Resource: resource, Nominal: 500 * d.Int63n(8)}
					limits[name+" "+resource] = l.Nominal
					q.Limits = append(q.Limits, l)
				}
			}
			s.Queues = append(s.Queues, q)
		}
		for i := range 1 + d.Intn(10) {
			job := d.job(i)
			job.Queue = of(d, "a", "b")
			if r := &job.Roles[0]; d.one(3) {
				r.Min = 1 + d.Int31n(r.Count)
			}
			if task := &job.Roles[0].Task; d.one(3) && task.GPUs > 0 {
				task.Model, task.Models = "", []string{"A100-40", "H100-80"}
			}
			s.Pending = append(s.Pending, job)
		}
		plan := scheduler.Schedule(s, scheduler.Policy{})
		book, holds := newBook(s), map[string]int64{}
		for _, p := range plan.Placements {
			if err := book.take(p); err != nil {
				t.Fatalf("job %s: %v", p.JobID, err)
			}
			queue := book.jobs[p.JobID].Queue
			for _, task := range p.Tasks {
				for _, g := range task.Devices {
					holds[queue+" gpu"] += int64(g.Share)
					holds[queue+" gpu:"+g.Model] += int64(g.Share)
				}
			}
		}
		for name, limit := range limits {
			if holds[name] > limit {
				t.Fatalf("%s: holds %d of %d", name, holds[name], limit)
			}
		}
	})
}

// TestRefusedByModelSaysSo: who waits although there is room, of a model that its quota
// refuses, is told of the quota, and nothing is held for it.
func TestRefusedByModelSaysSo(t *testing.T) {
	s := scheduler.Snapshot{Nodes: twoModels(2)[:1],
		Queues: []scheduler.Queue{{Name: "a", Weight: 1, Limits: []scheduler.Limit{{Resource: "gpu:" + someModels[0].name, Nominal: 1000}}}},
		Pending: []scheduler.Job{{ID: "j", Queue: "a", WaitedMS: 1_000_000,
			Roles: []scheduler.Role{{Name: "w", Count: 2, Task: scheduler.Request{GPUs: 1}}}}}}
	plan := scheduler.Schedule(s, scheduler.Policy{})
	if reason, _ := plan.Explain("j"); reason.Cause != scheduler.CauseQuota || len(plan.Waiting[0].Held) > 0 {
		t.Fatalf("%+v, %+v", reason, plan.Waiting)
	}
}

// full lets one attempt of queue b hold each node; that on the node of the model may be kept
// from being stopped.
func full(nodes []scheduler.Node, kept string) []scheduler.Running {
	var running []scheduler.Running
	for i := range nodes {
		n := &nodes[i]
		slot := scheduler.Slot{NodeID: n.ID}
		for j := range n.Devices {
			dev := &n.Devices[j]
			dev.ShareFree, dev.MemFree = 0, 0
			slot.Devices = append(slot.Devices, scheduler.Grant{DeviceID: dev.ID, Share: 1000, Memory: dev.Memory, Model: dev.Model})
		}
		running = append(running, scheduler.Running{JobID: "on-" + n.Devices[0].Model, Queue: "b", Submit: uint64(i), Slots: []scheduler.Slot{slot},
			StartedMS: 1, NoPreempt: n.Devices[0].Model == kept})
	}
	return running
}

// TestVictimsWithinQuotaByModel: nobody is stopped for devices that the quota of their model
// does not admit.
func TestVictimsWithinQuotaByModel(t *testing.T) {
	for i := range someModels {
		forbidden, other := someModels[i].name, someModels[1-i].name
		for _, kept := range []string{"", other} {
			nodes := twoModels(2)
			s := scheduler.Snapshot{NowMS: 1_000_000, Nodes: nodes, Running: full(nodes, kept),
				Queues: []scheduler.Queue{{Name: "a", Weight: 1, Limits: []scheduler.Limit{{Resource: "gpu:" + forbidden}}}, {Name: "b", Weight: 1}},
				Pending: []scheduler.Job{{ID: "j", Queue: "a", Priority: 5, Submit: 9,
					Roles: []scheduler.Role{{Name: "w", Count: 2, Task: scheduler.Request{GPUs: 1}}}}}}
			plan := scheduler.Schedule(s, scheduler.Policy{})
			want := "on-" + other
			if kept != "" {
				want = ""
			}
			got := ""
			for _, e := range plan.Evictions {
				got += e.JobID
			}
			if got != want {
				t.Fatalf("%s is forbidden, %q kept: stopped %q, want %q", forbidden, kept, got, want)
			}
		}
	}
}
