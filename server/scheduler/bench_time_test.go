package scheduler_test

import (
	"fmt"
	"testing"

	"llmos/server/scheduler"
)

// busyCluster is full but for a few devices: every attempt holds one or eight devices and
// has a predicted end.
func busyCluster(nodes, pending int) scheduler.Snapshot {
	s := scheduler.Snapshot{NowMS: 10_000_000}
	for i := range nodes {
		n := scheduler.Node{ID: fmt.Sprintf("node-%05d", i), CPU: 128_000, CPUFree: 128_000, Memory: 1 << 40, MemFree: 1 << 40, PortMin: 20000, PortMax: 29999}
		for d := range 8 {
			n.Devices = append(n.Devices, scheduler.Device{ID: fmt.Sprintf("%s.%d", n.ID, d), Model: "H100-80GB", Memory: 80 << 30, Available: true})
		}
		for d := range 8 {
			if i%20 == 0 && d < 3 { // free
				n.Devices[d].ShareFree, n.Devices[d].MemFree = 1000, 80<<30
				continue
			}
			end := s.NowMS + int64(1+(i*7919+d*104729)%86_400)*1000
			s.Running = append(s.Running, scheduler.Running{JobID: fmt.Sprintf("run-%05d-%d", i, d), Priority: 50, Epoch: 1, StartedMS: 1, EndQ50: end, EndQ90: end,
				Slots: []scheduler.Slot{{NodeID: n.ID, CPU: 12_000, Memory: 64 << 30, Devices: []scheduler.Grant{{DeviceID: n.Devices[d].ID, Share: 1000, Memory: 80 << 30}}}}})
			n.CPUFree -= 12_000
			n.MemFree -= 64 << 30
		}
		s.Nodes = append(s.Nodes, n)
	}
	for i := range pending {
		j := scheduler.Job{ID: fmt.Sprintf("job-%05d", i), Priority: 50, Submit: uint64(i), WaitedMS: 60_000, Q50: 3_600_000, Q90: int64(1+i%48) * 3_600_000,
			Roles: []scheduler.Role{{Name: "w", Count: 8, Task: scheduler.Request{CPU: 64_000, Memory: 512 << 30, GPUs: 8}}}}
		if i%3 > 0 {
			j.Roles[0].Count, j.Roles[0].Task.GPUs = 1, 4
		}
		s.Pending = append(s.Pending, j)
	}
	return s
}

// A pass over a full cluster of 10,000 nodes with 10,000 jobs waiting, the first of them a gang
// of 64 devices for which the earliest start is looked for among 78,500 ends.
func BenchmarkReservation10000Nodes(b *testing.B) {
	s := busyCluster(10_000, 10_000)
	var cache scheduler.Cache
	for b.Loop() {
		cache.Schedule(s, scheduler.Policy{NoPreempt: true})
	}
}

// The same with a reservation for each of the first 100.
func BenchmarkConservative10000Nodes(b *testing.B) {
	s := busyCluster(10_000, 1_000)
	var cache scheduler.Cache
	for b.Loop() {
		cache.Schedule(s, scheduler.Policy{NoPreempt: true, Backfill: scheduler.BackfillConservative})
	}
}

// The same with 8 jobs of higher priority that look for victims.
func BenchmarkPreemption10000Nodes(b *testing.B) {
	s := busyCluster(10_000, 8)
	for i := range s.Pending {
		s.Pending[i].Priority = 90
	}
	var cache scheduler.Cache
	for b.Loop() {
		if plan := cache.Schedule(s, scheduler.Policy{}); len(plan.Evictions) == 0 {
			b.Fatal("nobody is stopped")
		}
	}
}

// The same in 30 queues with quotas.
func BenchmarkQueues10000Nodes(b *testing.B) {
	s := busyCluster(10_000, 10_000)
	for q := range 30 {
		s.Queues = append(s.Queues, scheduler.Queue{Name: fmt.Sprint("q", q), Weight: 1,
			Limits: []scheduler.Limit{{Resource: "gpu", Nominal: 2_600_000, Borrow: -1, Lend: -1}}})
	}
	for i := range s.Running {
		s.Running[i].Queue, s.Running[i].User = fmt.Sprint("q", i%30), fmt.Sprint("u", i%500)
	}
	for i := range s.Pending {
		s.Pending[i].Queue, s.Pending[i].User = fmt.Sprint("q", i%30), fmt.Sprint("u", i%500)
	}
	var cache scheduler.Cache
	for b.Loop() {
		cache.Schedule(s, scheduler.Policy{NoPreempt: true})
	}
}
