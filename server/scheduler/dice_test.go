package scheduler_test

import (
	"fmt"
	"math/rand"

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
