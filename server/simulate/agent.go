package simulate

import (
	"container/heap"
	"fmt"
	"slices"
	"time"

	pb "llmos/proto/llmos/v1"
	"llmos/server/trace"
)

// agent does what a real agent does, in no time and without a process: it says that tasks
// run, that they have ended, and that it has stopped them.
type agent struct {
	node    *pb.Node
	row     int // of the first device in the Gantt chart
	seq     uint64
	reports []*pb.TaskReport
	tasks   map[string]*run // by task ID
}

// run is one attempt of a job.
type run struct {
	job     *job
	epoch   uint64
	world   int
	tasks   []task
	started time.Duration
	live    bool // all of its tasks run
	over    bool
	devices []deviceUse
}

type task struct {
	id    string
	agent *agent
}

// deviceUse is a row of the Gantt chart.
type deviceUse struct {
	row   int
	milli int32
}

// end is the time at which a run will have done its job's work.
type end struct {
	at  time.Duration
	run *run
}

// ends is a heap by time, then by submit.
type ends []end

func (e ends) Len() int      { return len(e) }
func (e ends) Swap(a, b int) { e[a], e[b] = e[b], e[a] }
func (e ends) Less(a, b int) bool {
	if e[a].at != e[b].at {
		return e[a].at < e[b].at
	}
	return e[a].run.job.number < e[b].run.job.number
}
func (e *ends) Push(x any) { *e = append(*e, x.(end)) }
func (e *ends) Pop() any {
	last := (*e)[len(*e)-1]
	*e = (*e)[:len(*e)-1]
	return last
}

const gpuMemoryBytes = 80 << 30 // of a simulated device

func newAgent(w *world, number int, n *trace.Node) *agent {
	id := fmt.Sprintf("n-%06d", number)
	node := &pb.Node{Id: id, Name: n.Name, Addr: id + ":7301", BootId: "simulated", CpuMilli: n.CPUMilli, MemoryBytes: n.MemoryBytes,
		PortMin: 20000, PortMax: 29999, NumaNodes: 1}
	for i := range n.GPUs {
		node.Devices = append(node.Devices, &pb.Device{Id: fmt.Sprintf("%s.%03d", id, i), Kind: "gpu", Vendor: "scripted", Model: n.Model,
			MemoryBytes: gpuMemoryBytes, Health: pb.DeviceHealth_DEVICE_HEALTH_OK, Index: int32(i), NumaNode: -1})
	}
	return &agent{node: node, row: w.meter.rowOf[number], tasks: map[string]*run{}}
}

func (a *agent) say(w *world, r *pb.TaskReport) {
	if len(a.reports) == 0 {
		w.talking = append(w.talking, a)
	}
	ms := wallStart + w.now.Milliseconds()
	if r.State == pb.TaskState_TASK_STATE_RUNNING {
		r.StartedMs = ms
	} else {
		r.EndedMs = ms
	}
	a.reports = append(a.reports, r)
}

// receive takes one message.
func (a *agent) receive(w *world, m *pb.ServerMessage) {
	d := m.GetDesired()
	for _, order := range d.GetAssignments() {
		t := order.Task
		switch {
		case t.Desired == pb.TaskDesired_TASK_DESIRED_STOP:
			a.stop(w, t)
		case a.tasks[t.Id] == nil && t.State == pb.TaskState_TASK_STATE_ASSIGNED:
			a.start(w, order)
		}
	}
	for _, id := range d.GetForget() {
		delete(a.tasks, id)
	}
}

func (a *agent) start(w *world, order *pb.Assignment) {
	t := order.Task
	j := w.byID[t.JobId]
	r := w.meter.live[j]
	if r == nil || r.epoch != t.Epoch {
		r = &run{job: j, epoch: t.Epoch, world: int(order.Attempt.GetWorldSize())}
		w.meter.live[j] = r
	}
	a.tasks[t.Id] = r
	r.tasks = append(r.tasks, task{t.Id, a})
	for _, g := range order.Allocation.GetDevices() {
		i := slices.IndexFunc(a.node.Devices, func(d *pb.Device) bool { return d.Id == g.DeviceId })
		r.devices = append(r.devices, deviceUse{a.row + i, g.ShareMilli})
	}
	a.say(w, &pb.TaskReport{TaskId: t.Id, Epoch: t.Epoch, State: pb.TaskState_TASK_STATE_RUNNING})
	if len(r.tasks) == r.world {
		w.begin(r)
	}
}

// stop ends a task, and with the first of a gang the work of the run.
func (a *agent) stop(w *world, t *pb.Task) {
	r := a.tasks[t.Id]
	if r == nil { // it never came: it never will
		a.say(w, &pb.TaskReport{TaskId: t.Id, Epoch: t.Epoch, State: pb.TaskState_TASK_STATE_STOPPED})
		return
	}
	if r.over && !slices.ContainsFunc(r.tasks, func(x task) bool { return x.id == t.Id }) {
		return // reported already
	}
	if !r.over {
		r.over = true
		w.interrupt(r)
	}
	r.tasks = slices.DeleteFunc(r.tasks, func(x task) bool { return x.id == t.Id })
	a.say(w, &pb.TaskReport{TaskId: t.Id, Epoch: t.Epoch, State: pb.TaskState_TASK_STATE_STOPPED})
}

// begin starts the work of a run whose gang is complete.
func (w *world) begin(r *run) {
	j := r.job
	r.live, r.started = true, w.now
	j.runs++
	if j.firstRun < 0 {
		j.firstRun = w.now
	}
	w.meter.started(r)
	heap.Push(&w.ends, end{w.now + w.overhead(j) + j.work - j.saved, r})
}

// overhead is what a run spends before it goes on with the work.
func (w *world) overhead(j *job) time.Duration {
	if j.runs > 1 {
		return w.opts.Restart
	}
	return 0
}

// interrupt stops a run before its work is done: what lies behind the last checkpoint is lost.
func (w *world) interrupt(r *run) {
	j := r.job
	if !r.live {
		w.meter.interrupted(r, 0, 0)
		return
	}
	done := j.saved + max(0, w.now-r.started-w.overhead(j))
	kept := done
	if every := w.opts.Checkpoint; every > 0 {
		kept = max(j.saved, done/every*every)
	}
	j.saved = kept
	w.meter.interrupted(r, done-kept, w.opts.Restart)
}

// finish is the end of a job.
func (w *world) finish(r *run) {
	w.left--
	r.job.finished = w.now
	w.meter.finished(r)
}
