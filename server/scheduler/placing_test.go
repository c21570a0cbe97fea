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

var someNames = []string{"store", "web", "shard"}

// dice draw a cluster by a seed. Drawn value by value, most clusters would be too small for
// anything to happen.
type dice struct{ *rand.Rand }

func drawDice(t *rapid.T) dice {
	return dice{rand.New(rand.NewSource(rapid.Int64().Draw(t, "seed")))}
}

// one says yes once in n times.
func (d dice) one(n int) bool { return d.Intn(n) == 0 }

func of[T any](d dice, choice ...T) T { return choice[d.Intn(len(choice))] }

// demanding is a snapshot in which nodes have labels, islands, NUMA nodes and slices, and
// jobs ask something of their nodes.
func (d dice) demanding() scheduler.Snapshot {
	var s scheduler.Snapshot
	for i := range 3 + d.Intn(6) {
		s.Nodes = append(s.Nodes, d.node(fmt.Sprintf("n%02d", i), true))
	}
	for i := range d.Intn(4) {
		run := scheduler.Running{JobID: fmt.Sprintf("r-%d", i), Name: of(d, someNames...), Ending: d.one(4)}
		for _, n := range s.Nodes {
			if d.one(3) {
				run.Slots = append(run.Slots, scheduler.Slot{NodeID: n.ID})
			}
		}
		s.Running = append(s.Running, run)
	}
	for i := range 2 + d.Intn(8) {
		job := d.job(i)
		for range d.Intn(3) {
			d.demand(&job, s.Nodes)
		}
		s.Pending = append(s.Pending, job)
	}
	return s
}

// node is mostly ready and free; furnished, it has what constraints ask about.
func (d dice) node(id string, furnished bool) scheduler.Node {
	n := scheduler.Node{ID: id, Name: "host-" + id, CPU: 1000 * (4 + d.Int63n(13)), Memory: (8 + d.Int63n(25)) << 30, PortMin: 20000, PortMax: 20000 + d.Int31n(8)}
	if d.one(8) {
		n.Status = of(d, scheduler.NodeSilent, scheduler.NodeLost)
	}
	n.CPUFree, n.MemFree = n.CPU, n.Memory
	if d.one(3) {
		n.CPUFree, n.MemFree = d.Int63n(n.CPU+1), d.Int63n(n.Memory+1)
	}
	for i := range d.Intn(6) {
		m := someModels[d.Intn(len(someModels))]
		dev := scheduler.Device{ID: fmt.Sprintf("%s.%d", id, i), Model: m.name, Memory: m.memory, MemFree: m.memory, ShareFree: 1000, Available: !d.one(10)}
		if d.one(5) {
			dev.ShareFree = 100 * d.Int31n(11)
			dev.MemFree = m.memory * int64(dev.ShareFree) / 1000
		}
		if furnished {
			dev.NUMA, dev.Island = d.Int31n(3)-1, of(d, "", "x", "y")
			if d.one(5) {
				dev.Profile = "1g.10gb"
			}
		}
		n.Devices = append(n.Devices, dev)
	}
	if !furnished {
		return n
	}
	n.Labels, n.Drained = map[string]string{}, d.one(10)
	for _, label := range []string{"rack", "zone", "disk"} {
		if v := d.Intn(4); v > 0 {
			n.Labels[label] = fmt.Sprint(label, v)
		}
	}
	if d.one(2) {
		n.Holds = []scheduler.Input{{ID: "corpus", Bytes: 1 << 40}}
	}
	return n
}

func (d dice) job(i int) scheduler.Job {
	job := scheduler.Job{ID: fmt.Sprintf("j%02d", i), Priority: d.Int31n(2), Submit: uint64(i), WaitedMS: of[int64](d, 0, 60_000)}
	world := int32(0)
	for range 1 + d.Intn(5)/3 {
		r := scheduler.Role{Name: "w", Count: 1 + d.Int31n(4), Task: scheduler.Request{CPU: 500 * d.Int63n(4), Memory: d.Int63n(4) << 30,
			GPUs: of[int32](d, 0, 1, 1, 2, 3), Ports: of[int32](d, 0, 0, 1)}}
		if r.Task.GPUs > 0 {
			r.Task.Model, r.Task.GPUMemory = of(d, "", "", "A100-40", "H100-80"), of[int64](d, 0, 0, 10<<30)
			if d.one(3) {
				r.Task.Share = 50 * (1 + d.Int31n(19))
			}
		}
		world += r.Count
		job.Roles = append(job.Roles, r)
	}
	job.Rendezvous = world > 1
	return job
}

func (d dice) expr(depth int) scheduler.Expr {
	several := func() []scheduler.Expr { return []scheduler.Expr{d.expr(depth - 1), d.expr(depth - 1)} }
	kind := d.Intn(5)
	if depth == 0 {
		kind = 4
	}
	switch kind {
	case 0:
		return scheduler.Expr{All: several()}
	case 1:
		return scheduler.Expr{Any: several()}
	case 2:
		e := d.expr(depth - 1)
		return scheduler.Expr{Not: &e}
	}
	m := &scheduler.Match{Key: of(d, "rack", "zone", "disk", "node", "gpu_model", "nothing")}
	for range d.Intn(4) {
		m.Values = append(m.Values, of(d, "rack1", "rack2", "zone1", "zone2", "disk1", "n00", "host-n01", "A100-40", "H100-80"))
	}
	return scheduler.Expr{Match: m}
}

// demand makes a job ask something of its nodes.
func (d dice) demand(j *scheduler.Job, nodes []scheduler.Node) {
	label := func() string { return of(d, "node", "rack", "zone", "disk") }
	switch d.Intn(10) {
	case 0:
		e := d.expr(2)
		j.Where = &e
	case 1:
		j.Within = label()
	case 2:
		j.Prefer = label()
	case 3:
		j.Spread, j.Skew = label(), 1+d.Int31n(2)
	case 4:
		j.Near = []string{of(d, someNames...)}
	case 5:
		j.Apart = []string{of(d, someNames...)}
		j.ID = fmt.Sprintf("%s-%d", of(d, someNames...), 100+j.Submit)
	case 6:
		for _, n := range nodes {
			if d.one(2) {
				j.Avoid = append(j.Avoid, n.ID)
			}
		}
	case 7:
		j.Inputs = []scheduler.Input{{ID: "corpus", Bytes: 1 << 40}}
	case 8:
		task := &j.Roles[0].Task
		task.NUMA = true
		if d.one(2) {
			task.Model, task.Models = "", []string{"A100-40", "T4-16"}
		} else if task.Share == 0 && task.GPUs > 0 {
			task.Model, task.GPUMemory, task.Profile = "", 0, "1g.10gb"
		}
	case 9:
		r := &j.Roles[0]
		r.Min = 1 + d.Int31n(r.Count)
	}
}

// meets evaluates a condition the plain way.
func meets(e *scheduler.Expr, n *scheduler.Node) bool {
	switch {
	case e.All != nil:
		return meets(&e.All[0], n) && meets(&e.All[1], n)
	case e.Any != nil:
		return meets(&e.Any[0], n) || meets(&e.Any[1], n)
	case e.Not != nil:
		return !meets(e.Not, n)
	}
	var have []string
	switch e.Match.Key {
	case "node":
		have = []string{n.ID, n.Name}
	case "gpu_model":
		for _, d := range n.Devices {
			have = append(have, d.Model)
		}
	default:
		if v, ok := n.Labels[e.Match.Key]; ok {
			have = []string{v}
		}
	}
	return slices.ContainsFunc(have, func(v string) bool { return len(e.Match.Values) == 0 || slices.Contains(e.Match.Values, v) })
}

func domain(n *scheduler.Node, label string) (string, bool) {
	if label == "node" {
		return n.ID, true
	}
	v, ok := n.Labels[label]
	return v, ok
}

// stands gives the nodes on which jobs of a name are: those that run, and those placed
// before in the plan.
func stands(s scheduler.Snapshot, before []scheduler.Placement, name string, ending bool) map[string]bool {
	on := map[string]bool{}
	for _, run := range s.Running {
		for _, slot := range run.Slots {
			if run.Name == name && (ending || !run.Ending) {
				on[slot.NodeID] = true
			}
		}
	}
	for _, p := range before {
		if len(p.JobID) > len(name) && p.JobID[:len(name)+1] == name+"-" {
			for _, task := range p.Tasks {
				on[task.NodeID] = true
			}
		}
	}
	return on
}

// broken says which constraint a placement breaks.
func broken(s scheduler.Snapshot, book *book, before []scheduler.Placement, p scheduler.Placement) error {
	job := book.jobs[p.JobID]
	domains := map[string]bool{}
	for _, task := range p.Tasks {
		n := &book.nodes[task.NodeID].node
		if job.Where != nil && !meets(job.Where, n) {
			return fmt.Errorf("%s does not meet where", n.ID)
		}
		if job.Within != "" {
			d, ok := domain(n, job.Within)
			if domains[d] = true; !ok || len(domains) > 1 {
				return fmt.Errorf("not within one %s", job.Within)
			}
		}
		for _, name := range job.Near {
			if !stands(s, before, name, false)[n.ID] {
				return fmt.Errorf("%s is not near %s", n.ID, name)
			}
		}
		for _, name := range job.Apart {
			if stands(s, before, name, true)[n.ID] {
				return fmt.Errorf("%s is not apart from %s", n.ID, name)
			}
		}
	}
	rank := 0
	for i, role := range job.Roles {
		count := role.Count
		if p.Counts != nil {
			count = p.Counts[i]
		}
		if count > role.Count || (role.Min == 0 && count != role.Count) || count < min(role.Count, max(1, role.Min)) {
			return fmt.Errorf("role %d has %d tasks", i, count)
		}
		if err := uneven(s, &job, &role, p.Tasks[rank:rank+int(count)]); err != nil {
			return err
		}
		rank += int(count)
	}
	return nil
}

// uneven checks the spread of one role: the domains that count are those with a node in
// service that meets the conditions and could hold a task if it were empty.
func uneven(s scheduler.Snapshot, job *scheduler.Job, role *scheduler.Role, tasks []scheduler.TaskPlacement) error {
	if job.Spread == "" {
		return nil
	}
	counts := map[string]int{}
	for i := range s.Nodes {
		n := &s.Nodes[i]
		d, ok := domain(n, job.Spread)
		if !ok {
			continue
		}
		suit := int32(0)
		for j := range n.Devices {
			if n.Devices[j].Available && suits(role.Task, &n.Devices[j]) {
				suit++
			}
		}
		inScope := job.Where == nil || meets(job.Where, n)
		if job.Within != "" {
			mine, _ := domain(nodeCalled(s, tasks[0].NodeID), job.Within)
			its, has := domain(n, job.Within)
			inScope = inScope && has && its == mine
		}
		for _, name := range append(slices.Clone(job.Near), job.Apart...) {
			_ = name
			inScope = false // which nodes count is not checked here: those used are below
		}
		if inScope && n.Status == scheduler.NodeReady && !n.Drained && n.CPU >= role.Task.CPU && n.Memory >= role.Task.Memory && (role.Task.GPUs == 0 || suit >= role.Task.GPUs) {
			counts[d] += 0
		}
	}
	for _, task := range tasks {
		d, ok := domain(nodeCalled(s, task.NodeID), job.Spread)
		if !ok {
			return fmt.Errorf("%s is in no domain of %s", task.NodeID, job.Spread)
		}
		counts[d]++
	}
	low, high := 1<<30, 0
	for _, n := range counts {
		low, high = min(low, n), max(high, n)
	}
	if len(job.Avoid) > 0 { // a first try leaves domains of avoided nodes out
		low = max(low, high-int(job.Skew))
	}
	if high-low > int(job.Skew) {
		return fmt.Errorf("spread %v over %s", counts, job.Spread)
	}
	return nil
}

func nodeCalled(s scheduler.Snapshot, id string) *scheduler.Node {
	return &s.Nodes[slices.IndexFunc(s.Nodes, func(n scheduler.Node) bool { return n.ID == id })]
}

// TestConstraintsHold: no placement breaks what its job asks of nodes and devices, gangs are
// whole, and who waits is told why.
func TestConstraintsHold(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawDice(t).demanding()
		plan := scheduler.Schedule(s, scheduler.Policy{Holds: -1, NoPreempt: true})
		book := newBook(s)
		for i, p := range plan.Placements {
			if err := book.take(p); err != nil {
				t.Fatalf("job %s: %v", p.JobID, err)
			}
			if err := broken(s, book, plan.Placements[:i], p); err != nil {
				t.Fatalf("job %s: %v\n%+v\n%+v", p.JobID, err, book.jobs[p.JobID], p)
			}
		}
		for _, w := range plan.Waiting {
			reason, ok := plan.Explain(w.JobID)
			if !ok || reason.Cause == scheduler.CauseNone || reason.Text == "" || reason.Remedy == "" {
				t.Fatalf("job %s waits with reason %+v", w.JobID, reason)
			}
		}
	})
}

// TestSubmitRefusesOnlyTheImpossible: what Feasible refuses is not placed on the same nodes,
// empty and ready.
func TestSubmitRefusesOnlyTheImpossible(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawDice(t).demanding()
		for i := range s.Nodes {
			n := &s.Nodes[i]
			n.Status, n.Drained, n.CPUFree, n.MemFree = scheduler.NodeReady, false, n.CPU, n.Memory
			for j := range n.Devices {
				d := &n.Devices[j]
				d.Available, d.ShareFree, d.MemFree = true, 1000, d.Memory
			}
		}
		for _, job := range s.Pending {
			reason := scheduler.Feasible(job, s.Nodes)
			plan := scheduler.Schedule(scheduler.Snapshot{Nodes: s.Nodes, Pending: []scheduler.Job{job}, Running: s.Running}, scheduler.Policy{})
			if len(plan.Placements) > 0 && reason.Cause != scheduler.CauseNone {
				t.Fatalf("%+v is placed although %s", job, reason.Text)
			}
		}
	})
}

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

// happens gives a later snapshot: some placements are applied, some nodes changed, came or
// went, and other jobs wait.
func (d dice) happens(s scheduler.Snapshot, plan *scheduler.Plan, version *uint64) scheduler.Snapshot {
	next := s
	next.Nodes = slices.Clone(s.Nodes)
	next.Pending = nil
	book := newBook(s)
	for _, p := range plan.Placements {
		if d.one(4) {
			continue
		}
		for rank, task := range p.Tasks {
			n := nodeCalled(next, task.NodeID)
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
	for i := range next.Nodes {
		n := &next.Nodes[i]
		*version++
		switch d.Intn(16) {
		case 0: // another machine
			*n = d.node(n.ID, true)
		case 1: // jobs ended
			n.CPUFree, n.MemFree, n.Ports = n.CPU, n.Memory, nil
			n.Devices = slices.Clone(n.Devices)
			for j := range n.Devices {
				n.Devices[j].ShareFree, n.Devices[j].MemFree = 1000, n.Devices[j].Memory
			}
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
