package scheduler_test

import (
	"fmt"
	"testing"

	"llmos/server/scheduler"
)

// bigCluster is 5,000 nodes of five kinds, partly used.
func bigCluster(nodes int) []scheduler.Node {
	cluster := make([]scheduler.Node, nodes)
	for i := range cluster {
		n := &cluster[i]
		*n = scheduler.Node{ID: fmt.Sprintf("node-%05d", i), CPU: 128_000, CPUFree: 128_000, Memory: 1 << 40, MemFree: 1 << 40,
			PortMin: 20000, PortMax: 29999}
		model, size := "H100-80GB", int64(80<<30)
		if i%5 == 1 {
			model, size = "A100-40GB", 40<<30
		}
		devices := 8
		if i%5 == 4 {
			devices = 0
		}
		for d := range devices {
			free := int32(1000)
			if (i*7+d)%11 == 0 {
				free = 0
				n.CPUFree -= 12_000
			}
			n.Devices = append(n.Devices, scheduler.Device{ID: fmt.Sprintf("%s.%d", n.ID, d), Model: model, Memory: size,
				MemFree: size * int64(free) / 1000, ShareFree: free, Available: true})
		}
	}
	return cluster
}

// mixedJobs is a queue of shapes as users submit them, mostly small.
func mixedJobs(count int) []scheduler.Job {
	shapes := []scheduler.Role{
		{Count: 1, Task: scheduler.Request{CPU: 8000, Memory: 64 << 30, GPUs: 1}},
		{Count: 1, Task: scheduler.Request{CPU: 4000, Memory: 16 << 30, GPUs: 1, Share: 250}},
		{Count: 1, Task: scheduler.Request{CPU: 2000, Memory: 8 << 30}},
		{Count: 4, Task: scheduler.Request{CPU: 8000, Memory: 64 << 30, GPUs: 1, Model: "H100-80GB"}},
		{Count: 1, Task: scheduler.Request{CPU: 64_000, Memory: 512 << 30, GPUs: 8}},
		{Count: 8, Task: scheduler.Request{CPU: 64_000, Memory: 512 << 30, GPUs: 8}},
		{Count: 2, Task: scheduler.Request{CPU: 16_000, Memory: 128 << 30, GPUs: 2}},
		{Count: 16, Task: scheduler.Request{CPU: 1000, Memory: 4 << 30}},
	}
	jobs := make([]scheduler.Job, count)
	for i := range jobs {
		jobs[i] = scheduler.Job{ID: fmt.Sprintf("job-%05d", i), Priority: int32(50 + i%3), Submit: uint64(i),
			Roles: []scheduler.Role{shapes[i%len(shapes)]}, Rendezvous: shapes[i%len(shapes)].Count > 1}
	}
	return jobs
}

func benchmark(b *testing.B, s scheduler.Snapshot, policy scheduler.Policy) {
	tasks := 0
	b.ReportAllocs()
	for b.Loop() {
		for _, p := range scheduler.Schedule(s, policy).Placements {
			tasks += len(p.Tasks)
		}
	}
	b.ReportMetric(float64(tasks)/b.Elapsed().Seconds(), "placements/s")
	b.ReportMetric(float64(len(s.Pending))*float64(b.N)/b.Elapsed().Seconds(), "jobs/s")
}

var whole = scheduler.Policy{GangsMax: 1 << 20, TasksMax: 1 << 20}

// One pass over 1,000 mixed jobs on 5,000 nodes.
func BenchmarkMixed5000Nodes1000Jobs(b *testing.B) {
	benchmark(b, scheduler.Snapshot{Nodes: bigCluster(5000), Pending: mixedJobs(1000)}, whole)
}

// 10,000 equal single tasks: the cost of one more placement of a known shape.
func BenchmarkEqual5000Nodes10000Jobs(b *testing.B) {
	jobs := mixedJobs(10_000)
	for i := range jobs {
		jobs[i].Roles = []scheduler.Role{{Count: 1, Task: scheduler.Request{CPU: 8000, Memory: 64 << 30, GPUs: 1}}}
		jobs[i].Rendezvous = false
	}
	benchmark(b, scheduler.Snapshot{Nodes: bigCluster(5000), Pending: jobs}, whole)
}

// What a submit waits for: one job on 5,000 nodes.
func BenchmarkOneJob5000Nodes(b *testing.B) {
	benchmark(b, scheduler.Snapshot{Nodes: bigCluster(5000), Pending: mixedJobs(1)}, whole)
}

// A full cluster and 1,000 jobs that cannot be placed, the first of them holding.
func BenchmarkNothingFits5000Nodes1000Jobs(b *testing.B) {
	nodes := bigCluster(5000)
	for i := range nodes {
		nodes[i].CPUFree = 500
	}
	jobs := mixedJobs(1000)
	for i := range jobs {
		jobs[i].WaitedMS = 60_000
	}
	benchmark(b, scheduler.Snapshot{Nodes: nodes, Pending: jobs}, whole)
}

func BenchmarkExplain5000Nodes(b *testing.B) {
	nodes := bigCluster(5000)
	for i := range nodes {
		nodes[i].CPUFree = 500
	}
	plan := scheduler.Schedule(scheduler.Snapshot{Nodes: nodes, Pending: mixedJobs(1000)}, whole)
	for b.Loop() {
		plan.Explain(plan.Waiting[len(plan.Waiting)-1].JobID)
	}
}
