package scheduler_test

import (
	"fmt"
	"math/rand"
	"reflect"
	"slices"
	"sort"
	"testing"

	"pgregory.net/rapid"

	"llmos/server/scheduler"
)

// TestCacheIsSchedule: through whatever happens to a cluster, a Cache gives the plans that
// Schedule gives without one.
func TestCacheIsSchedule(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var cache scheduler.Cache
		d := drawDice(t)
		s := d.demanding()
		d.queue(&s)
		version := uint64(1)
		for i := range s.Nodes {
			s.Nodes[i].Version = version
		}
		for range 2 + d.Intn(6) {
			policy := scheduler.Policy{GangsMax: of(d, 0, 2), NoPreempt: d.one(2)}
			cached, fresh := cache.Schedule(s, policy), scheduler.Schedule(s, policy)
			if !reflect.DeepEqual(cached.Placements, fresh.Placements) || !reflect.DeepEqual(cached.Waiting, fresh.Waiting) ||
				!reflect.DeepEqual(cached.Evictions, fresh.Evictions) || !reflect.DeepEqual(cached.Claims, fresh.Claims) {
				t.Fatalf("cached:\n%+v\n%+v\nfresh:\n%+v\n%+v", cached.Placements, cached.Waiting, fresh.Placements, fresh.Waiting)
			}
			for _, w := range fresh.Waiting {
				a, _ := cached.Explain(w.JobID)
				b, _ := fresh.Explain(w.JobID)
				if !reflect.DeepEqual(a, b) {
					t.Fatalf("cached: %+v\nfresh: %+v", a, b)
				}
			}
			s = d.happens(s, fresh, &version)
		}
	})
}

// TestCacheForLong: through many passes over machines of one kind, in which classes and logs
// are cut and used again, a cache gives the plans of Schedule.
func TestCacheForLong(t *testing.T) {
	var cache scheduler.Cache
	d := dice{rand.New(rand.NewSource(1))}
	var s scheduler.Snapshot
	for i := range 12 {
		n := scheduler.Node{ID: fmt.Sprintf("n%02d", i), CPU: 32_000, Memory: 64 << 30, PortMin: 20000, PortMax: 20100,
			Labels: map[string]string{"rack": fmt.Sprint(i / 4)}}
		for j := range 8 {
			n.Devices = append(n.Devices, scheduler.Device{ID: fmt.Sprint(n.ID, ".", j), Model: "A100-40", Memory: 40 << 30, NUMA: int32(j / 4), Available: true})
		}
		s.Nodes = append(s.Nodes, n)
	}
	version := uint64(1)
	for pass := range 800 {
		s.Nodes = slices.Clone(s.Nodes)
		for i := range s.Nodes {
			if pass == 0 || d.one(6) {
				free(&s.Nodes[i], &version)
			}
		}
		s.Pending = nil
		for i := range 2 + d.Intn(8) {
			s.Pending = append(s.Pending, d.job(i))
		}
		cached, fresh := cache.Schedule(s, scheduler.Policy{}), scheduler.Schedule(s, scheduler.Policy{})
		if !reflect.DeepEqual(cached.Placements, fresh.Placements) || !reflect.DeepEqual(cached.Waiting, fresh.Waiting) {
			t.Fatalf("pass %d: cached:\n%+v\nfresh:\n%+v", pass, cached.Placements, fresh.Placements)
		}
		d.apply(&s, fresh, &version)
	}
}

// free ends everything on a node.
func free(n *scheduler.Node, version *uint64) {
	n.CPUFree, n.MemFree, n.Ports = n.CPU, n.Memory, nil
	n.Devices = slices.Clone(n.Devices)
	for j := range n.Devices {
		n.Devices[j].ShareFree, n.Devices[j].MemFree = 1000, n.Devices[j].Memory
	}
	*version++
	n.Version = *version
}

// apply enters most placements of a plan into the nodes, which are the caller's own.
func (d dice) apply(s *scheduler.Snapshot, plan *scheduler.Plan, version *uint64) {
	book := newBook(scheduler.Snapshot{Pending: s.Pending})
	for _, p := range plan.Placements {
		if d.one(4) {
			continue
		}
		for rank, task := range p.Tasks {
			n := nodeCalled(*s, task.NodeID)
			request := requestsByRank(book.jobs[p.JobID], p.Counts)[rank]
			n.CPUFree -= request.CPU
			n.MemFree -= request.Memory
			n.Ports = append(slices.Clone(n.Ports), task.Ports...)
			slices.Sort(n.Ports)
			n.Devices = slices.Clone(n.Devices)
			for _, g := range task.Devices {
				d := &n.Devices[slices.IndexFunc(n.Devices, func(d scheduler.Device) bool { return d.ID == g.DeviceID })]
				d.ShareFree -= g.Share
				d.MemFree -= g.Memory
			}
			*version++
			n.Version = *version
		}
	}
}

// happens gives a later snapshot: some placements are applied, some nodes changed, came or
// went, and other jobs wait.
func (d dice) happens(s scheduler.Snapshot, plan *scheduler.Plan, version *uint64) scheduler.Snapshot {
	next := s
	next.Nodes = slices.Clone(s.Nodes)
	d.apply(&next, plan, version)
	next.Pending = nil
	for i := range next.Nodes {
		n := &next.Nodes[i]
		*version++
		switch d.Intn(16) {
		case 0: // another machine
			*n = d.node(n.ID, true)
		case 1: // jobs ended
			free(n, version)
		case 2:
			n.CPUFree = d.Int63n(n.CPU + 1)
		case 3:
			n.Drained = !n.Drained
		case 4:
			n.Status = of(d, scheduler.NodeReady, scheduler.NodeReady, scheduler.NodeSilent)
		case 5:
			n.Labels = map[string]string{"rack": of(d, "rack1", "rack2")}
		case 6:
			n.Devices = slices.Clone(n.Devices)
			for j := range n.Devices {
				n.Devices[j].Available = !d.one(4)
			}
		default:
			continue
		}
		n.Version = of(d, *version, *version, 0)
	}
	if len(next.Nodes) > 0 && d.one(8) {
		next.Nodes = next.Nodes[1:]
	}
	if len(next.Running) > 0 && d.one(2) {
		next.Running = next.Running[1:]
	}
	for i := range 2 + d.Intn(8) {
		j := d.job(i)
		if len(s.Queues) > 0 {
			j.Queue, j.User = of(d, "a", "b"), of(d, "ann", "bob")
		}
		for range d.Intn(3) {
			d.demand(&j, next.Nodes)
		}
		next.Pending = append(next.Pending, j)
	}
	return next
}

// queue divides the cluster between two queues, mostly.
func (d dice) queue(s *scheduler.Snapshot) {
	if d.one(3) {
		return
	}
	for _, name := range []string{"a", "b"} {
		s.Queues = append(s.Queues, scheduler.Queue{Name: name, Weight: 1, RunningMax: 6, Limits: []scheduler.Limit{{Resource: "gpu", Nominal: 1000 * d.Int63n(8), Borrow: 4000, Lend: -1}}})
	}
	for i := range s.Running {
		s.Running[i].Queue, s.Running[i].User = of(d, "a", "b"), of(d, "ann", "bob")
		for j := range s.Running[i].Slots {
			s.Running[i].Slots[j].Devices = []scheduler.Grant{{Share: 1000}}
		}
	}
	for i := range s.Pending {
		s.Pending[i].Queue, s.Pending[i].User = of(d, "a", "b"), of(d, "ann", "bob")
		s.Pending[i].Q90 = of[int64](d, 0, 60_000, 600_000)
	}
}

// TestNamesDoNotMatter: with other node IDs, and jobs named otherwise, the same jobs start,
// on nodes that are as they were.
func TestNamesDoNotMatter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := drawDice(t)
		var s scheduler.Snapshot
		for i := range 1 + d.Intn(8) {
			s.Nodes = append(s.Nodes, d.node(fmt.Sprintf("n%02d", i), false))
			if i > 0 && d.one(2) {
				id := s.Nodes[i].ID
				s.Nodes[i] = s.Nodes[i-1] // alike
				s.Nodes[i].ID = id
			}
		}
		for i := range 1 + d.Intn(12) {
			s.Pending = append(s.Pending, d.job(i))
		}
		renamed := scheduler.Snapshot{Nodes: slices.Clone(s.Nodes), Pending: slices.Clone(s.Pending)}
		order := d.Perm(len(renamed.Nodes))
		for i := range renamed.Nodes {
			renamed.Nodes[i].ID = fmt.Sprintf("m%02d", order[i])
		}
		for i := range renamed.Pending {
			renamed.Pending[i].ID = fmt.Sprintf("k%02d", d.Intn(100)*100+i)
		}
		first, second := startedOn(s, scheduler.Schedule(s, scheduler.Policy{})), startedOn(renamed, scheduler.Schedule(renamed, scheduler.Policy{}))
		if !reflect.DeepEqual(first, second) {
			t.Fatalf("before: %v\nafter: %v", first, second)
		}
	})
}

// startedOn says by submit order which jobs start, and on what kinds of nodes.
func startedOn(s scheduler.Snapshot, plan *scheduler.Plan) []string {
	var lines []string
	for _, p := range plan.Placements {
		job := s.Pending[slices.IndexFunc(s.Pending, func(j scheduler.Job) bool { return j.ID == p.JobID })]
		var on []string
		for _, task := range p.Tasks {
			n := nodeCalled(s, task.NodeID)
			text := fmt.Sprint(n.CPU, n.CPUFree, n.Memory, n.MemFree)
			for _, d := range n.Devices {
				text += fmt.Sprint(" ", d.Model, d.ShareFree, d.Available)
			}
			on = append(on, text)
		}
		sort.Strings(on)
		lines = append(lines, fmt.Sprintf("%d: %v", job.Submit, on))
	}
	return lines
}
