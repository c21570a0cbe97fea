package scheduler_test

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"llmos/server/scheduler"
)

// begun applies placements to the nodes of the snapshot and gives the attempts.
func begun(s *scheduler.Snapshot, placements []scheduler.Placement) []scheduler.Running {
	jobs := map[string]scheduler.Job{}
	for _, j := range s.Pending {
		jobs[j.ID] = j
	}
	var running []scheduler.Running
	for _, p := range placements {
		job := jobs[p.JobID]
		run := scheduler.Running{JobID: job.ID, Priority: job.Priority, Submit: job.Submit, StartedMS: 1}
		for rank, r := range requestsByRank(job, p.Counts) {
			task := p.Tasks[rank]
			run.Slots = append(run.Slots, scheduler.Slot{NodeID: task.NodeID, CPU: r.CPU, Memory: r.Memory, Ports: int32(len(task.Ports)), Devices: task.Devices})
		}
		for i := range run.Slots {
			hold(s, &run.Slots[i], -1)
			n := nodeCalled(*s, run.Slots[i].NodeID)
			for range p.Tasks[i].Ports {
				n.PortMax-- // as good as taking them
			}
		}
		running = append(running, run)
	}
	return running
}

// hold takes a slot's CPU, memory and devices from its node, or gives them back.
func hold(s *scheduler.Snapshot, slot *scheduler.Slot, sign int64) {
	n := nodeCalled(*s, slot.NodeID)
	n.CPUFree += sign * slot.CPU
	n.MemFree += sign * slot.Memory
	for _, g := range slot.Devices {
		for i := range n.Devices {
			if d := &n.Devices[i]; d.ID == g.DeviceID {
				d.ShareFree += int32(sign) * g.Share
				d.MemFree += sign * g.Memory
			}
		}
	}
}

// TestPreemptionOfParts: with shares and device memory, slices and conditions, what a plan
// claims is really there once its victims have stopped, and its owner is placed then.
func TestPreemptionOfParts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := drawDice(t)
		s := d.demanding()
		s.NowMS, s.Running = 1_000_000, nil
		for i := range s.Pending {
			s.Pending[i].Near, s.Pending[i].Rendezvous = nil, false
			for r := range s.Pending[i].Roles {
				s.Pending[i].Roles[r].Task.Ports = 0
			}
		}
		s.Running = begun(&s, scheduler.Schedule(s, scheduler.Policy{Holds: -1}).Placements)
		s.Pending = nil
		for i := range 1 + d.Intn(4) {
			job := d.job(20 + i)
			for range d.Intn(2) {
				d.demand(&job, s.Nodes)
			}
			job.Priority, job.Near, job.Rendezvous = 3+d.Int31n(2), nil, false
			for r := range job.Roles {
				job.Roles[r].Task.Ports = 0
			}
			s.Pending = append(s.Pending, job)
		}
		plan := scheduler.Schedule(s, scheduler.Policy{})
		book := newBook(s)
		for _, p := range plan.Placements {
			if err := book.take(p); err != nil {
				t.Fatalf("%s: %v", p.JobID, err)
			}
		}
		begun(&s, plan.Placements)
		stopped := map[string]bool{}
		for _, e := range plan.Evictions {
			if stopped[e.JobID] {
				t.Fatalf("%s is stopped twice", e.JobID)
			}
			stopped[e.JobID] = true
		}
		for i := range s.Running {
			for k := range s.Running[i].Slots {
				if stopped[s.Running[i].JobID] {
					hold(&s, &s.Running[i].Slots[k], 1)
				}
			}
		}
		var next []scheduler.Job
		for _, c := range plan.Claims {
			for _, j := range s.Pending {
				if j.ID == c.JobID {
					j.Claim = c.Claim
					next = append(next, j)
				}
			}
		}
		s.Pending, s.Running = next, nil
		second := scheduler.Schedule(s, scheduler.Policy{})
		book = newBook(s)
		for _, p := range second.Placements {
			if err := book.take(p); err != nil {
				t.Fatalf("%s, on its claim: %v", p.JobID, err)
			}
		}
		if len(second.Placements) != len(next) {
			t.Fatalf("%d of %d claims are used; %+v", len(second.Placements), len(next), next)
		}
	})
}

// TestDeadlineGoesFirst: a job that must start within ten minutes to meet its deadline goes
// before others of its priority, and of no higher one; one with time enough, or that has
// missed it, keeps its turn.
func TestDeadlineGoesFirst(t *testing.T) {
	const now, minute = int64(1_000_000_000), int64(60_000)
	for _, c := range []struct {
		name     string
		deadline int64
		length   int64
		priority int32
		want     string
	}{
		{"urgent", now + 20*minute, 15 * minute, 0, "b"},
		{"time enough", now + 60*minute, 15 * minute, 0, "a"},
		{"too late to meet it", now + 5*minute, 15 * minute, 0, "b"},
		{"missed", now - 1, 15 * minute, 0, "a"},
		{"of lower priority", now + 20*minute, 15 * minute, -1, "a"},
		{"of unknown length", now + 5*minute, 0, 0, "b"},
	} {
		role := []scheduler.Role{{Name: "w", Count: 1, Task: scheduler.Request{GPUs: 4, Model: someModels[0].name}}}
		for _, queues := range [][]scheduler.Queue{nil, {{Name: "q", Weight: 1}}} {
			s := scheduler.Snapshot{NowMS: now, Nodes: twoModels(4), Queues: queues, Pending: []scheduler.Job{
				{ID: "a", Queue: "q", Submit: 1, Roles: role},
				{ID: "b", Queue: "q", Submit: 2, Roles: role, DeadlineMS: c.deadline, Q90: c.length, Priority: c.priority}}}
			plan := scheduler.Schedule(s, scheduler.Policy{})
			if len(plan.Placements) != 1 || plan.Placements[0].JobID != c.want {
				t.Errorf("%s, with %d queues: placed %s, want %s", c.name, len(queues), fmt.Sprint(plan.Placements), c.want)
			}
		}
	}
}
