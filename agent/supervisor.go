package agent

import (
	"context"
	"fmt"
	"log/slog"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	"llmos/agent/device"
	"llmos/agent/exec"
	"llmos/agent/reconcile"
	pb "llmos/proto/llmos/v1"
)

const (
	newsMax       = 256             // news that wait for the loop; senders wait beyond it
	adoptPatience = 5 * time.Second // how long a session waits for the first look at all tasks
)

// supervisor owns the node's tasks: one loop that takes news and desired sets, asks
// reconcile what to do, and does it, with one goroutine for each live task. Its tasks
// outlive it.
type supervisor struct {
	runner  runner
	journal *journal
	outbox  *outbox
	log     *slog.Logger
	now     func() time.Time
	clean   *cleaner
	visits  *visits
	look    func(context.Context) (device.Use, error) // who uses the devices; nil: nobody knows
	keeper  *keeper                                   // nil: nothing is known of the devices
	overrun string                                    // see Config.Overrun

	news    chan any
	done    chan struct{}
	tasks   map[string]*task
	wanted  map[string]*pb.Assignment
	forget  map[string]bool
	known   bool
	index   uint64
	waiting map[string]string
	again   bool // act has changed what it saw
	work    sync.WaitGroup

	unproven int           // tasks whose fate an earlier run of the agent left open
	proven   chan struct{} // closed when there are none
	listed   atomic.Pointer[[]*pb.TaskReport]
	sampled  atomic.Pointer[[]sampleTarget]
	dirs     atomic.Pointer[[]string] // of every task that may have processes
	seen     atomic.Uint64            // index of the newest desired set
}

// News to the loop from sessions.
type (
	desiredNews struct {
		desired *pb.Desired
	}
	ackNews struct{ reports []*pb.TaskReport }
)

func newSupervisor(s site, driver *exec.Driver, j *journal, o *outbox, log *slog.Logger) *supervisor {
	v := &supervisor{journal: j, outbox: o, log: log, now: time.Now, clean: newCleaner(s, log), visits: newVisits(time.Now),
		news: make(chan any, newsMax), done: make(chan struct{}), tasks: map[string]*task{}, wanted: map[string]*pb.Assignment{},
		forget: map[string]bool{}, waiting: map[string]string{}, proven: make(chan struct{})}
	v.runner = runner{site: s, driver: driver, now: time.Now, post: v.post, warn: log.Warn}
	return v
}

// post hands news to the loop; false when it has ended.
func (v *supervisor) post(n any) bool {
	select {
	case v.news <- n:
		return true
	case <-v.done:
		return false
	}
}

// run adopts what the journal knows and then works until ctx ends. It joins its
// goroutines; the tasks run on.
func (v *supervisor) run(ctx context.Context) {
	defer v.work.Wait()
	defer close(v.done)
	assignments, index := v.journal.known()
	v.index = index
	v.seen.Store(index)
	v.unproven = len(assignments)
	for _, a := range assignments {
		id := a.GetTask().GetId()
		v.tasks[id] = &task{assignment: a, phase: reconcile.Unproven, unsettled: true}
		v.work.Go(func() { v.runner.adopt(ctx, a) })
	}
	for _, id := range v.clean.begin(assignments) {
		v.work.Go(func() { v.runner.evict(ctx, id) })
	}
	v.settled(0)
	v.measure(ctx)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case n := <-v.news:
			v.take(n)
			for range len(v.news) {
				v.take(<-v.news)
			}
		case <-timer.C:
		}
		next := v.act(ctx)
		if v.again {
			next = v.act(ctx)
		}
		v.publish()
		timer.Stop()
		if !next.IsZero() {
			timer.Reset(next.Sub(v.now()))
		}
	}
}

// settled counts tasks whose fate has become known.
func (v *supervisor) settled(n int) {
	if v.unproven -= n; v.unproven == 0 {
		v.publish()
		close(v.proven)
		v.unproven = -1
	}
}

// ready waits until the fate of every journaled task is known, but not for ever: what is
// not known then counts as running.
func (v *supervisor) ready(ctx context.Context) {
	patience := time.NewTimer(adoptPatience)
	defer patience.Stop()
	select {
	case <-ctx.Done():
	case <-v.proven:
	case <-patience.C:
		v.log.Warn("some tasks could not be looked at yet; they are taken as running")
	}
}

// take brings one piece of news into the record.
func (v *supervisor) take(n any) {
	switch n := n.(type) {
	case desiredNews:
		v.want(n)
	case ackNews:
		v.acknowledge(n.reports)
	case taskAttached:
		if t := v.tasks[n.id]; t != nil {
			t.handle = n.handle
			if t.phase == reconcile.Unproven {
				t.phase = reconcile.Starting // found; it can be stopped even while its shim says nothing
			}
			if t.phase == reconcile.Stopping {
				n.handle.Stop()
			}
		}
	case taskStatus:
		v.status(n)
	case taskSampled:
		if t := v.tasks[n.id]; t != nil && t.phase != reconcile.Ended {
			v.tell(t, func(p *pb.Progress) { p.Sample = n.sample })
		}
	case taskSaving:
		if t := v.tasks[n.id]; t != nil {
			t.saving = true
		}
	case taskExcess:
		v.exceeded(n)
	case taskWarned:
		v.warned(n)
	case tasksHurt:
		v.hurt(n)
	case reservation:
		n.held <- v.holder(n.devices)
	case taskEnded:
		v.ended(n.id, n.exit)
	case taskJudged:
		v.judged(n)
	}
}

// tell changes what the servers are told of a task's progress and demand.
func (v *supervisor) tell(t *task, change func(*pb.Progress)) {
	p := &pb.Progress{TaskId: t.id(), Rank: t.assignment.GetTask().GetRank()}
	if t.said != nil {
		p = proto.CloneOf(t.said)
	}
	change(p)
	t.said = p
	v.outbox.putProgress(p)
}

// want takes a desired set: the whole, or what has changed.
func (v *supervisor) want(n desiredNews) {
	d := n.desired
	if d.GetFull() {
		clear(v.wanted)
		v.known = true
	}
	for _, a := range d.GetAssignments() {
		v.wanted[a.GetTask().GetId()] = a
	}
	for _, id := range d.GetForget() {
		delete(v.wanted, id)
		if v.tasks[id] != nil {
			v.forget[id] = true
		}
	}
	v.index = max(v.index, d.GetIndex())
	v.seen.Store(v.index)
}

func (v *supervisor) acknowledge(reports []*pb.TaskReport) {
	for _, r := range reports {
		if t := v.tasks[r.GetTaskId()]; t != nil && !t.unreported && t.report().GetState() == r.GetState() {
			t.acked = true
		}
	}
}

func (v *supervisor) status(n taskStatus) {
	t := v.tasks[n.id]
	if t == nil || t.phase == reconcile.Ended {
		return
	}
	s := n.status
	if s.Identity != nil {
		t.cgroup = s.Identity.Cgroup
	}
	if s.Identity != nil && t.startedMS == 0 {
		t.startedMS = s.Identity.StartedMS
		v.change(t, max(t.phase, reconcile.Running))
	}
	if p := s.Progress; p != nil {
		v.tell(t, func(said *pb.Progress) {
			said.Step, said.Steps, said.Values, said.TimeMs = p.Step, p.Steps, p.Values, p.TimeMS
		})
	}
	if s.Exit != nil {
		v.ended(n.id, *s.Exit)
	}
}

func (v *supervisor) ended(id string, e exec.Exit) {
	t := v.tasks[id]
	if t == nil || t.phase == reconcile.Ended || t.judging {
		return
	}
	if e.State == exec.Failed && t.mayBeExcused() && v.keeper != nil {
		v.judge(t, e)
		return
	}
	v.conclude(t, e)
}

// conclude takes the end of a task for good.
func (v *supervisor) conclude(t *task, e exec.Exit) {
	id := t.id()
	if t.excuse != "" && (e.State == exec.Failed || e.State == exec.Stopped) {
		e.State, e.Reason = exec.Stopped, t.excuse
	}
	t.exit, t.handle = &e, nil
	v.change(t, reconcile.Ended)
	v.log.Info("task ended", "task", id, "state", string(e.State), "exit_code", e.Code, "reason", e.Reason)
}

// change brings a task into a phase that the servers must hear of.
func (v *supervisor) change(t *task, phase reconcile.Phase) {
	t.phase, t.unreported, t.acked = phase, true, false
	if t.unsettled {
		t.unsettled = false
		v.settled(1)
	}
}

// act asks reconcile and does what it says. It gives when to ask again.
func (v *supervisor) act(ctx context.Context) time.Time {
	v.again = false
	wanted := reconcile.Wanted{Known: v.known, Forget: v.forget, Assignments: sortedAssignments(v.wanted)}
	seen := make([]reconcile.Observed, 0, len(v.tasks))
	for _, id := range sortedIDs(v.tasks) {
		seen = append(seen, v.tasks[id].observed())
	}
	result := reconcile.Plan(wanted, seen, v.now())
	for id, why := range result.Waiting {
		if v.waiting[id] != why {
			v.log.Info("task waits", "task", id, "reason", why)
		}
	}
	v.waiting = result.Waiting
	v.begin(ctx, result.Actions)
	var cleaned []string
	for _, a := range result.Actions {
		t := v.tasks[a.TaskID]
		switch a.Kind {
		case reconcile.Stop:
			v.log.Info("stopping task", "task", a.TaskID, "reason", a.Reason)
			t.phase, t.stopAt = reconcile.Stopping, v.now()
			if t.handle != nil {
				t.handle.Stop()
			} else if t.abandon != nil {
				t.abandon()
			}
		case reconcile.Kill:
			t.killed = true
			if t.saving { // it has ended, and what it saved is being taken
				continue
			}
			v.log.Warn("killing task", "task", a.TaskID)
			if t.handle != nil {
				t.handle.Kill()
			}
		case reconcile.Report:
			t.unreported = false
			v.outbox.put(t.report())
		case reconcile.Clean:
			cleaned = append(cleaned, a.TaskID)
		}
	}
	v.cleaned(cleaned)
	return result.Next
}

// begin journals what the plan starts or voids, in one write, and only then begins it.
func (v *supervisor) begin(ctx context.Context, actions []reconcile.Action) {
	var fresh []*pb.Assignment
	for i, a := range actions {
		if a.Kind == reconcile.Start && v.keeper != nil {
			if why := v.keeper.refuse(a.Assignment); why != "" {
				v.log.Warn("a task is not started", "task", a.TaskID, "reason", why)
				actions[i].Kind, actions[i].Reason = reconcile.Void, why
			}
		}
		if a.Kind == reconcile.Start || a.Kind == reconcile.Void {
			fresh = append(fresh, a.Assignment)
		}
	}
	if len(fresh) == 0 {
		return
	}
	err := v.journal.assign(v.index, fresh)
	for _, a := range actions {
		if a.Kind != reconcile.Start && a.Kind != reconcile.Void {
			continue
		}
		id, assignment := a.TaskID, a.Assignment
		t := &task{assignment: assignment, phase: reconcile.Starting}
		v.tasks[id] = t
		switch {
		case err != nil:
			// Not journaled, so not started: a task may only run when its start is remembered.
			v.again = true
			v.log.Error("a task was not started because it could not be journaled", "task", id, "error", err)
			v.ended(id, exec.Exit{TaskID: id, State: exec.Failed, Code: exec.ExitCannotStart, EndedMS: v.now().UnixMilli(),
				Reason: fmt.Sprintf("node %s could not journal the task: %v", v.runner.site.nodeName, err)})
		case a.Kind == reconcile.Void:
			v.work.Go(func() { v.runner.void(id, a.Reason) })
		default:
			local := v.localWorld(assignment)
			staging, abandon := context.WithCancel(ctx)
			t.abandon = abandon
			v.work.Go(func() {
				defer abandon()
				v.runner.start(ctx, staging, assignment, local)
			})
		}
	}
}

// localWorld counts the tasks of the same attempt on this node.
func (v *supervisor) localWorld(a *pb.Assignment) int {
	n := 0
	for _, other := range v.wanted {
		if other.GetTask().GetJobId() == a.GetTask().GetJobId() && other.GetTask().GetEpoch() == a.GetTask().GetEpoch() {
			n++
		}
	}
	return max(n, int(a.GetTask().GetLocalRank())+1)
}

// cleaned forgets tasks whose end the servers have committed.
func (v *supervisor) cleaned(ids []string) {
	if len(ids) == 0 {
		return
	}
	if err := v.journal.clean(ids); err != nil {
		v.log.Warn("the journal keeps tasks that could be forgotten", "error", err)
	}
	for _, id := range ids {
		delete(v.tasks, id)
		delete(v.forget, id)
		v.outbox.forget(id)
		v.work.Go(func() { v.clean.retire(id) })
	}
}

// publish makes the list of tasks that a session's hello holds. A task that may run is in
// it as running: what is absent is taken as proof that it does not.
func (v *supervisor) publish() {
	list := make([]*pb.TaskReport, 0, len(v.tasks))
	var running []sampleTarget
	dirs := make([]string, 0, len(v.tasks))
	for _, id := range sortedIDs(v.tasks) {
		t := v.tasks[id]
		list = append(list, t.report())
		dirs = append(dirs, v.runner.site.dir(id))
		if t.phase == reconcile.Running {
			running = append(running, sampleTarget{id: id, cgroup: t.cgroup, dir: v.runner.site.dir(id),
				grants:    t.assignment.GetAllocation().GetDevices(),
				idleAfter: time.Duration(t.assignment.GetRole().GetIdleAfterMs()) * time.Millisecond})
		}
	}
	v.listed.Store(&list)
	v.sampled.Store(&running)
	v.dirs.Store(&dirs)
}

// list gives every task the node knows, by ID; the caller does not change it.
func (v *supervisor) list() []*pb.TaskReport {
	if l := v.listed.Load(); l != nil {
		return *l
	}
	return nil
}

func sortedIDs(m map[string]*task) []string {
	ids := make([]string, 0, len(m))
	for id := range m {
		ids = append(ids, id)
	}
	sort.Strings(ids)
	return ids
}

// sortedAssignments orders by task ID, so that ranks of a job start in their order.
func sortedAssignments(m map[string]*pb.Assignment) []*pb.Assignment {
	out := make([]*pb.Assignment, 0, len(m))
	for _, a := range m {
		out = append(out, a)
	}
	sort.Slice(out, func(a, b int) bool { return out[a].GetTask().GetId() < out[b].GetTask().GetId() })
	return out
}
