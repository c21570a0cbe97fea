package main

import (
	"cmp"
	"fmt"
	"math/rand"
	"slices"
	"syscall"
	"time"

	"llmos/server/scheduler"
)

// The cluster: nodes of one machine type in racks and zones.
const (
	rackNodes  = 32
	zoneNodes  = 2048
	nodeGPUs   = 8
	nodeCPU    = 128_000 // millicores
	nodeMemory = 2 << 40
	gpuMemory  = 80 << 30
	versionOne = 1
)

// leader holds a cluster and its queue as the leader of a real one does, and is not timed
// but for the pass.
type leader struct {
	random  *rand.Rand
	work    workload
	cache   scheduler.Cache
	learner scheduler.Learner
	policy  scheduler.Policy
	nodes   []scheduler.Node
	buffers [2][]scheduler.Node // what passes see: nobody modifies the last one given
	turns   int
	version uint64
	dirty   map[int]bool // nodes that the other buffer does not show yet
	before  map[int]bool
	at      map[string]int
	running []*job
	queues  []scheduler.Queue
	leaves  []string
	pending []scheduler.Job
	submits int
	target  int64 // GPU thousandths that should be held after a pass
	held    int64
	last    []int64       // what the jobs of the last pass hold
	spent   time.Duration // by the last pass, by the clock
	cpu     time.Duration // the same, of this process alone
}

type job struct {
	value scheduler.Job
	role  scheduler.Role
	tasks []scheduler.TaskPlacement
	held  int64

	attempt scheduler.Running
}

func newLeader(nodes, full int, w workload, depth int, seed int64) *leader {
	l := &leader{random: rand.New(rand.NewSource(seed)), work: w, dirty: map[int]bool{}, before: map[int]bool{}, at: map[string]int{},
		version: versionOne, policy: scheduler.Policy{GangsMax: 1 << 20, TasksMax: 1 << 20}}
	for i := range nodes {
		l.nodes = append(l.nodes, newNode(i))
		l.at[l.nodes[i].ID] = i
	}
	l.buffers = [2][]scheduler.Node{slices.Clone(l.nodes), slices.Clone(l.nodes)}
	l.target = int64(nodes) * nodeGPUs * 1000 * int64(full) / 100
	if w.queues > 0 {
		l.queueTree(w.queues)
	}
	l.fill()
	for len(l.pending) < depth {
		l.submit()
	}
	if w.blocked {
		l.pass() // to the last device
	}
	l.policy = scheduler.Policy{GangsMax: w.perPass, TasksMax: 1 << 20}
	l.cache = scheduler.Cache{} // the first timed pass is cold
	if !w.blocked {
		l.makeRoom()
	}
	return l
}

func newNode(i int) scheduler.Node {
	n := scheduler.Node{ID: fmt.Sprintf("node-%05d", i), CPU: nodeCPU, CPUFree: nodeCPU, Memory: nodeMemory, MemFree: nodeMemory,
		PortMin: 20000, PortMax: 29999, Version: versionOne,
		Labels: map[string]string{"rack": fmt.Sprintf("r%03d", i/rackNodes), "zone": fmt.Sprintf("z%d", i/zoneNodes)}}
	for d := range nodeGPUs {
		n.Devices = append(n.Devices, scheduler.Device{ID: fmt.Sprintf("%s.%d", n.ID, d), Model: "H100-80GB", Memory: gpuMemory, MemFree: gpuMemory,
			ShareFree: 1000, Available: true, NUMA: int32(d / 4), Island: "nvlink-0"})
	}
	return n
}

// fill starts jobs of the kind until the target is reached, in plans of the scheduler
// itself, and then lets a fifth of them end and others start in several turns, so that the
// cluster is used as one that has been running for long.
func (l *leader) fill() {
	for l.held < l.target {
		before := l.held
		for left := l.target - l.held; left > 0 && len(l.pending) < 4096; {
			left -= shareOf(&l.submit().Roles[0])
		}
		l.pass()
		if l.held == before {
			break
		}
	}
	l.pending = nil
	for range 8 {
		for range len(l.running) / 20 {
			l.end(l.random.Intn(len(l.running)))
		}
		for left := l.target - l.held; left > 0; {
			left -= shareOf(&l.submit().Roles[0])
		}
		l.pass()
		l.pending = nil
	}
}

func (l *leader) submit() *scheduler.Job {
	role := l.work.roles[l.random.Intn(len(l.work.roles))]
	if role.Task.CPU == 0 { // as its user likes
		role.Task.CPU = int64(max(1, role.Task.GPUs)) * 1000 * (1 + l.random.Int63n(14))
	}
	l.submits++
	j := scheduler.Job{ID: fmt.Sprintf("job-%d", l.submits), Priority: 50, Submit: uint64(l.submits), Attempt: 1, WaitedMS: 60_000,
		Roles: []scheduler.Role{role}, Rendezvous: role.Count > 1}
	if len(l.queues) > 0 {
		j.Queue = l.leaves[l.random.Intn(len(l.leaves))]
		j.User = fmt.Sprintf("%s-user%d", j.Queue, l.random.Intn(5))
		j.Q50 = 60_000 * (1 + l.random.Int63n(300))
		j.Q90 = 2 * j.Q50
	}
	l.learner.Arrive(&j)
	l.pending = append(l.pending, j)
	return &l.pending[len(l.pending)-1]
}

// nowMS is the time at which the measurement plays.
const nowMS = 1_800_000_000_000

// queueTree makes orgs of six teams each, with a guarantee for each team and borrowing.
func (l *leader) queueTree(leaves int) {
	share := int64(len(l.nodes)) * nodeGPUs * 1000 / int64(leaves)
	for i := range leaves {
		org := fmt.Sprintf("org%d", i/6)
		if i%6 == 0 {
			l.queues = append(l.queues, scheduler.Queue{Name: org, Weight: 1,
				Limits: []scheduler.Limit{{Resource: "gpu", Nominal: 6 * share, Borrow: -1, Lend: -1}}})
		}
		leaf := fmt.Sprintf("%s/team%d", org, i%6)
		l.leaves = append(l.leaves, leaf)
		l.queues = append(l.queues, scheduler.Queue{Name: leaf, Parent: org, Weight: 1,
			Limits: []scheduler.Limit{{Resource: "gpu", Nominal: share, Borrow: -1, Lend: -1}}})
	}
}

// attempts gives what runs, where the case has queues.
func (l *leader) attempts() []scheduler.Running {
	if len(l.queues) == 0 {
		return nil
	}
	slices.SortFunc(l.running, func(a, b *job) int { return cmp.Compare(a.value.Submit, b.value.Submit) }) // as the leader has them
	all := make([]scheduler.Running, len(l.running))
	for i := range l.running {
		all[i] = l.running[i].attempt
	}
	return all
}

func (j *job) makeAttempt() {
	v := &j.value
	j.attempt = scheduler.Running{JobID: v.ID, Name: "job", Queue: v.Queue, User: v.User, Priority: v.Priority, Epoch: 1, Submit: v.Submit,
		StartedMS: nowMS - v.Q50/2, EndQ50: nowMS + v.Q50/2, EndQ90: nowMS + v.Q90}
	for i := range j.tasks {
		j.attempt.Slots = append(j.attempt.Slots, scheduler.Slot{NodeID: j.tasks[i].NodeID, CPU: j.role.Task.CPU, Memory: j.role.Task.Memory,
			Ports: int32(len(j.tasks[i].Ports)), Devices: j.tasks[i].Devices})
	}
}

// turn is what happens between two passes.
func (l *leader) turn() {
	if l.work.blocked {
		return // all stays as it is, and the leader looks again
	}
	for range len(l.last) {
		l.submit()
	}
	l.makeRoom()
}

// makeRoom ends random jobs until a pass can place as many as it may without leaving the
// target behind.
func (l *leader) makeRoom() {
	var next int64
	for i := range l.pending[:min(len(l.pending), l.work.perPass)] {
		next += shareOf(&l.pending[i].Roles[0])
	}
	for l.held > max(0, l.target-next) && len(l.running) > 0 {
		l.end(l.random.Intn(len(l.running)))
	}
}

func (l *leader) end(i int) {
	j := l.running[i]
	l.running = slices.Delete(l.running, i, i+1)
	l.move(j, -1)
	l.learner.Leave(len(j.tasks))
}

// pass schedules and applies the plan; spent and cpu are of the scheduling alone, and of
// learning what places are worth when that is due.
func (l *leader) pass() (jobs, tasks int) {
	nodes, running := l.snapshot(), l.attempts()
	start, cpu := time.Now(), cpuTime()
	plan := l.cache.Schedule(scheduler.Snapshot{NowMS: nowMS + int64(l.turns), Nodes: nodes, Pending: l.pending, Running: running, Queues: l.queues,
		Packing: l.learner.Prices(nodes)}, l.policy)
	l.spent, l.cpu = time.Since(start), cpuTime()-cpu
	l.last = l.last[:0]
	placed := make(map[string]*scheduler.Placement, len(plan.Placements))
	for i := range plan.Placements {
		placed[plan.Placements[i].JobID] = &plan.Placements[i]
	}
	waiting := l.pending[:0] // in place: the plan is not asked again
	for i := range l.pending {
		p := placed[l.pending[i].ID]
		if p == nil {
			waiting = append(waiting, l.pending[i])
			continue
		}
		j := &job{value: l.pending[i], role: l.pending[i].Roles[0], tasks: p.Tasks}
		for _, t := range p.Tasks {
			for _, g := range t.Devices {
				j.held += int64(g.Share)
			}
		}
		j.makeAttempt()
		l.move(j, 1)
		l.running = append(l.running, j)
		l.last = append(l.last, j.held)
		tasks += len(p.Tasks)
	}
	l.pending = waiting
	return len(plan.Placements), tasks
}

// move takes (sign 1) or gives back (-1) what a job holds.
func (l *leader) move(j *job, sign int64) {
	l.held += sign * j.held
	for i := range j.tasks {
		at := l.at[j.tasks[i].NodeID]
		n := &l.nodes[at]
		n.CPUFree -= sign * j.role.Task.CPU
		n.MemFree -= sign * j.role.Task.Memory
		if !l.dirty[at] {
			n.Devices = slices.Clone(n.Devices)
			l.dirty[at] = true
			l.version++
			n.Version = l.version
		}
		for _, g := range j.tasks[i].Devices {
			for d := range n.Devices {
				if n.Devices[d].ID == g.DeviceID {
					n.Devices[d].ShareFree -= int32(sign) * g.Share
					n.Devices[d].MemFree -= sign * g.Memory
				}
			}
		}
		ports := slices.Clone(n.Ports)
		for _, p := range j.tasks[i].Ports {
			if place, found := slices.BinarySearch(ports, p); sign > 0 {
				ports = slices.Insert(ports, place, p)
			} else if found {
				ports = slices.Delete(ports, place, place+1)
			}
		}
		n.Ports = ports
	}
}

// snapshot gives the nodes as they are, in the buffer that the last pass did not get.
func (l *leader) snapshot() []scheduler.Node {
	l.turns++
	b := l.buffers[l.turns%2]
	for at := range l.before {
		b[at] = l.nodes[at]
	}
	for at := range l.dirty {
		b[at] = l.nodes[at]
	}
	l.before, l.dirty = l.dirty, l.before
	clear(l.dirty)
	return b
}

// cpuTime is what the process has used of processors, its garbage collection included.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func shareOf(r *scheduler.Role) int64 {
	share := int64(1000)
	if r.Task.Share > 0 {
		share = int64(r.Task.Share)
	}
	return int64(r.Count) * int64(r.Task.GPUs) * share
}
