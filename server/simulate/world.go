package simulate

import (
	"container/heap"
	"errors"
	"fmt"
	"time"

	"llmos/fsm"
	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
	"llmos/server/controller"
	"llmos/server/trace"
)

// world is one simulation under way.
type world struct {
	opts Options
	jobs []*job // by submit time
	byID map[string]*job

	log   *fsm.FSM
	index uint64
	loop  *controller.Controller
	now   time.Duration // virtual, from the first submit

	agents  map[string]*agent
	order   []*agent // by node
	talking []*agent // those with reports to send, in the order in which they got them
	ends    ends
	next    int // first job that is not submitted yet
	left    int // jobs that have not ended
	meter   *meter
}

const (
	clusterID = "c-51a51a51a51a"
	wallStart = 1_700_000_000_000         // Unix ms of virtual time 0
	forever   = 20 * 365 * 24 * time.Hour // no agent is ever silent
	retain    = time.Hour                 // finished jobs stay so long in the state
	retainMax = 512
	planEvery = time.Minute // passes that nothing but time asks for, while jobs wait
	idPrefix  = "sim"
)

func newWorld(o Options, p Policy) (*world, error) {
	w := &world{opts: o, log: fsm.New(), agents: map[string]*agent{}, byID: map[string]*job{}}
	for i, t := range shuffleTies(o.Jobs, o.Seed) {
		w.jobs = append(w.jobs, newJob(i, t))
	}
	if _, err := w.commit(&pb.Command{Op: &pb.Command_InitCluster{InitCluster: &pb.InitCluster{
		Meta: &pb.ClusterMeta{ClusterId: clusterID, Name: "simulated", StateVersion: fsm.StateVersion, CreatedMs: wallStart}}}}); err != nil {
		return nil, err
	}
	if err := w.configure(p); err != nil {
		return nil, err
	}
	w.loop = controller.New(controller.Config{LeaderID: "s-simulated", SilentAfter: forever, HeartbeatEvery: forever,
		RetainJobs: retain, RetainJobsMax: retainMax, RetainRequests: retain, CollectEvery: retain,
		VerifyEvery: forever, VerifyEntries: 1 << 60, PlanEvery: planEvery, Policy: p.Planner}, w.log.State(), 0)
	w.meter = newMeter(o.Nodes, w.jobs)
	for i := range o.Nodes {
		a := newAgent(w, i, &o.Nodes[i])
		w.agents[a.node.Id], w.order = a, append(w.order, a)
		w.loop.Step(controller.SessionOpened{NodeID: a.node.Id, Session: 1, Hello: &pb.Hello{Node: a.node, ClusterId: clusterID}}, 0)
	}
	if err := w.settle(); err != nil {
		return nil, err
	}
	return w, w.refuseImpossible()
}

// configure puts the policy and the queues of the trace into the replicated state.
func (w *world) configure(p Policy) error {
	if _, err := w.commit(&pb.Command{Op: &pb.Command_SetSchedulerConfig{SetSchedulerConfig: &pb.SetSchedulerConfig{Config: p.Config}}}); err != nil {
		return fmt.Errorf("set the policy: %w", err)
	}
	set := &pb.SetQueues{}
	seen := map[string]bool{"": true, "default": true}
	for _, j := range w.jobs {
		if !seen[j.trace.Queue] {
			seen[j.trace.Queue] = true
			set.Queues = append(set.Queues, &pb.Queue{Name: j.trace.Queue, Weight: 1})
		}
	}
	if len(set.Queues) == 0 {
		return nil
	}
	if _, err := w.commit(&pb.Command{Op: &pb.Command_SetQueues{SetQueues: set}}); err != nil {
		return fmt.Errorf("make the queues of the trace: %w", err)
	}
	return nil
}

// refuseImpossible counts out jobs that could not run on an empty cluster, which would wait
// for ever.
func (w *world) refuseImpossible() error {
	st := w.log.State()
	fits := map[string]bool{}
	possible := w.jobs[:0:0]
	for _, j := range w.jobs {
		key := j.shape()
		ok, known := fits[key]
		if !known {
			ok = controller.Feasible(st, j.spec(w.opts)).Text == ""
			fits[key] = ok
		}
		if ok {
			possible = append(possible, j)
			continue
		}
		w.meter.impossible++
	}
	w.jobs, w.left = possible, len(possible)
	w.meter.mix, w.meter.lookEvery = mixOf(possible), lookSpan(possible)
	if w.left == 0 {
		return fault.New(pb.ErrorKind_ERROR_KIND_INVALID, "none of the %d jobs fits on the cluster", w.meter.impossible).
			Hint("look at the device models and the size of the nodes").At("nodes", 0)
	}
	return nil
}

// run goes from one thing that happens to the next until every job has ended.
func (w *world) run() error {
	last := time.Duration(0) // something ran or came
	for w.left > 0 {
		at, ok := w.loop.NextTick()
		if w.next < len(w.jobs) {
			if t := w.jobs[w.next].submit; !ok || t < at {
				at, ok = t, true
			}
		}
		if len(w.ends) > 0 {
			if t := w.ends[0].at; !ok || t < at {
				at, ok = t, true
			}
		}
		if len(w.ends) > 0 || w.next < len(w.jobs) {
			last = at
		}
		if !ok || at-last > stallLimit {
			return fault.New(pb.ErrorKind_ERROR_KIND_INTERNAL, "%d jobs wait and nothing happens: %s", w.left, w.whyFirst()).
				Hint("this is a defect of the scheduler; please report it with the trace")
		}
		w.advance(max(at, w.now))
		w.submitDue()
		w.endDue()
		if err := w.settle(); err != nil {
			return err
		}
		w.fragments()
		w.opts.Progress(len(w.jobs)-w.left, len(w.jobs))
	}
	return nil
}

func (w *world) advance(at time.Duration) {
	w.meter.advance(at)
	w.now = at
	w.loop.Tick(at)
}

// submitDue submits what is due in one entry.
func (w *world) submitDue() {
	var due []*job
	var commands []*pb.Command
	for w.next < len(w.jobs) && w.jobs[w.next].submit <= w.now {
		j := w.jobs[w.next]
		w.next++
		due = append(due, j)
		commands = append(commands, &pb.Command{Op: &pb.Command_SubmitJob{SubmitJob: &pb.SubmitJob{Spec: j.spec(w.opts), User: j.trace.User}}})
	}
	if len(due) == 0 {
		return
	}
	for i, r := range w.entry(commands) {
		j := due[i]
		if f := r.GetFault(); f != nil { // such as a bound on waiting jobs
			w.meter.refused++
			w.left--
			j.refusal = f.Message
			continue
		}
		w.byID[r.JobId] = j
		w.meter.submitted(j)
	}
	w.loop.Step(controller.StateChanged{State: w.log.State()}, w.now)
}

// endDue lets the agents report the runs that end now.
func (w *world) endDue() {
	for len(w.ends) > 0 && w.ends[0].at <= w.now {
		e := heap.Pop(&w.ends).(end)
		if e.run.over {
			continue
		}
		e.run.over = true
		for _, t := range e.run.tasks {
			t.agent.say(w, &pb.TaskReport{TaskId: t.id, Epoch: e.run.epoch, State: pb.TaskState_TASK_STATE_SUCCEEDED})
		}
		w.finish(e.run)
	}
}

// settle carries out effects until the control loop has none left at this instant.
func (w *world) settle() error {
	for range roundsMax {
		w.flushReports()
		effects := w.loop.Ready()
		if len(effects) == 0 && len(w.talking) == 0 {
			return w.log.Diverged()
		}
		for _, effect := range effects {
			switch e := effect.(type) {
			case controller.Propose:
				results := w.entry(e.Commands)
				w.loop.Step(controller.StateChanged{State: w.log.State()}, w.now)
				w.loop.Step(controller.ProposalDone{ID: e.ID, Results: results}, w.now)
			case controller.Send:
				w.agents[e.NodeID].receive(w, e.Message)
			case controller.CloseSession:
				return fault.Of(e.Fault)
			}
		}
	}
	return fault.New(pb.ErrorKind_ERROR_KIND_INTERNAL, "the control loop does not come to rest at %s", w.now).
		Hint("this is a defect of the scheduler; please report it with the trace")
}

func (w *world) flushReports() {
	talking := w.talking
	w.talking = nil
	for _, a := range talking {
		a.seq++
		w.loop.Step(controller.ReportsArrived{NodeID: a.node.Id, Session: 1, Seq: a.seq, Reports: a.reports}, w.now)
		a.reports = nil
	}
}

func (w *world) entry(commands []*pb.Command) []*pb.Result {
	w.index++
	return w.log.Apply(w.index, &pb.Entry{TimeMs: wallStart + w.now.Milliseconds(), Proposer: "s-simulated", Commands: commands})
}

// commit applies one command and gives its fault as an error.
func (w *world) commit(command *pb.Command) (*pb.Result, error) {
	r := w.entry([]*pb.Command{command})[0]
	if f := r.GetFault(); f != nil {
		return nil, fault.Of(f)
	}
	return r, w.log.Diverged()
}

// whyFirst explains the first job that waits.
func (w *world) whyFirst() string {
	for j := range w.log.State().UnfinishedJobs() {
		if j.State == pb.JobState_JOB_STATE_PENDING {
			reason := w.loop.Explain(j.Id).GetReason()
			return fmt.Sprintf("job %s waits because %s", w.byID[j.Id].trace.Name, reason)
		}
	}
	return errors.New("none is pending").Error()
}

// job is one job of the trace.
type job struct {
	trace    trace.Job
	number   int
	user     int // index in the meter
	submit   time.Duration
	work     time.Duration
	saved    time.Duration // of the work, by the last checkpoint
	firstRun time.Duration // when it first ran; negative: not yet
	finished time.Duration
	held     time.Duration // its devices, over all runs
	runs     int
	waiting  time.Duration // since; negative: it does not wait
	refusal  string
	crowd    float64 // integral of the number of jobs in the system at its submit; see fairness
}

func newJob(number int, t trace.Job) *job {
	return &job{trace: t, number: number, submit: time.Duration(t.Submit) * time.Millisecond,
		work: time.Duration(t.Duration) * time.Millisecond, firstRun: -1, waiting: -1}
}

func (j *job) shape() string {
	t := &j.trace
	return fmt.Sprint(t.Tasks, t.GPUs, t.GPUMilli, t.CPUMilli, t.MemoryBytes, t.Models)
}

// priorityNormal is that of a job file that does not say.
const priorityNormal = 50

// spec is the job as a user would submit it.
func (j *job) spec(o Options) *pb.JobSpec {
	t := &j.trace
	r := &pb.Resources{CpuMilli: t.CPUMilli, MemoryBytes: t.MemoryBytes, Gpus: int32(t.GPUs)}
	if t.GPUs > 0 && t.GPUMilli < 1000 {
		r.GpuShareMilli = int32(t.GPUMilli)
	}
	switch len(t.Models) {
	case 0:
	case 1:
		r.GpuModel = t.Models[0]
	default:
		r.GpuModels = t.Models
	}
	return &pb.JobSpec{GenerateName: idPrefix, Kind: pb.JobKind_JOB_KIND_BATCH, Queue: t.Queue, Priority: priorityNormal,
		CheckpointEveryMs: max(0, o.Checkpoint.Milliseconds()), RestartMs: o.Restart.Milliseconds(),
		Roles: []*pb.RoleSpec{{Name: "worker", Count: int32(t.Tasks), Command: []string{"true"}, Resources: r}}}
}
