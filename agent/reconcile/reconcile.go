// Package reconcile decides what an agent does next: from what the servers want and what
// the agent sees, a list of actions. It is a function of its arguments: no clock, no I/O,
// no memory. It does not carry anything out; agent's supervisor does, and calls it again
// whenever one of the arguments has changed. Calling it twice without a change in between
// gives the same actions, so whatever an action starts must be visible in what is seen.
//
// Two promises are kept here. An attempt is executed at most once: a task is started only
// if it has never been seen. And an older epoch is fenced first: a task waits while the
// tree of an older attempt of its job, or of any task that holds its devices or ports,
// may still run.
package reconcile

import (
	"fmt"
	"time"

	pb "llmos/proto/llmos/v1"
)

// KillMargin is how long after the end of a task's grace the agent waits for the shim to
// have killed it, before it asks for the kill itself.
const KillMargin = 5 * time.Second

// WholeDevice is the share of a device that is held by itself alone, in thousandths.
const WholeDevice = 1000

// Phase is how far a task has come on this node. It only grows, but for Unproven, which a
// restart of the agent puts in place of Starting until the shim has been found.
type Phase int

// The phases.
const (
	Unproven Phase = iota // journaled by an earlier run of the agent; whether it runs is being found out
	Starting              // journaled and handed to a shim; no identity yet
	Running               // its first process has been identified
	Stopping              // told to stop
	Ended                 // its whole tree has gone and its end is recorded
)

// String names the phase.
func (p Phase) String() string {
	names := [...]string{"unproven", "starting", "running", "stopping", "ended"}
	if p < 0 || int(p) >= len(names) {
		return fmt.Sprintf("phase %d", int(p))
	}
	return names[p]
}

// Observed is one task as the agent sees it.
type Observed struct {
	Assignment   *pb.Assignment // the journaled one
	Phase        Phase
	StopAt       time.Time // when it was told to stop; zero before
	Killed       bool      // the agent has asked for the kill
	Unreported   bool      // its state has changed since it was last reported
	Acknowledged bool      // the servers have committed its present state
}

// Wanted is what the servers want of this node.
type Wanted struct {
	Known       bool             // a full set has arrived since the agent started
	Assignments []*pb.Assignment // by task ID; complete when Known
	Forget      map[string]bool  // ended tasks whose end is committed
}

// Kind is what an action does.
type Kind int

// The kinds of actions.
const (
	Start  Kind = iota // journal the assignment and start the task
	Void               // record that the task will not be started, as STOPPED
	Stop               // stop signal, grace, kill
	Kill               // kill now: the grace is over
	Report             // tell the servers the task's state
	Clean              // forget the task; its end is committed
)

// String names the kind.
func (k Kind) String() string {
	names := [...]string{"start", "void", "stop", "kill", "report", "clean"}
	if k < 0 || int(k) >= len(names) {
		return fmt.Sprintf("kind %d", int(k))
	}
	return names[k]
}

// Action is one thing to do.
type Action struct {
	Kind       Kind
	TaskID     string
	Assignment *pb.Assignment // of Start and Void
	Reason     string         // of Void and Stop, a sentence
}

// Result is what Plan gives.
type Result struct {
	Actions []Action
	Waiting map[string]string // task ID -> why it is not started yet
	Next    time.Time         // when time alone will change the result; zero: never
}

// Plan compares wanted and seen. Actions come in the order: what frees (stop, kill), then
// what starts, then reports and cleaning; within each, in the order of the arguments. seen
// must hold every task whose tree may exist, sorted by task ID.
func Plan(wanted Wanted, seen []Observed, now time.Time) Result {
	p := planner{wanted: wanted, seen: seen, now: now, result: Result{Waiting: map[string]string{}}}
	p.index()
	p.free()
	p.start()
	p.settle()
	return p.result
}

type planner struct {
	wanted Wanted
	seen   []Observed
	now    time.Time
	result Result

	byID     map[string]int            // task ID -> position in seen
	assigned map[string]*pb.Assignment // task ID -> wanted
	starting []*pb.Assignment          // started by this plan
}

func (p *planner) index() {
	p.byID = make(map[string]int, len(p.seen))
	for i, o := range p.seen {
		p.byID[taskID(o.Assignment)] = i
	}
	p.assigned = make(map[string]*pb.Assignment, len(p.wanted.Assignments))
	for _, a := range p.wanted.Assignments {
		p.assigned[taskID(a)] = a
	}
}

func taskID(a *pb.Assignment) string { return a.GetTask().GetId() }

func (p *planner) act(a Action) { p.result.Actions = append(p.result.Actions, a) }

// free stops what is not wanted to run, and kills what did not stop.
func (p *planner) free() {
	for _, o := range p.seen {
		switch o.Phase {
		case Starting, Running:
			if why := p.whyStop(o); why != "" {
				p.act(Action{Kind: Stop, TaskID: taskID(o.Assignment), Reason: why})
			}
		case Stopping:
			due := o.StopAt.Add(graceOf(o.Assignment) + KillMargin)
			if o.Killed {
				continue
			}
			if !p.now.Before(due) {
				p.act(Action{Kind: Kill, TaskID: taskID(o.Assignment)})
			} else if p.result.Next.IsZero() || due.Before(p.result.Next) {
				p.result.Next = due
			}
		}
	}
}

// whyStop says why a live task is to be stopped; empty: it is not. What is not known to
// be unwanted runs on: losing the servers never ends a task.
func (p *planner) whyStop(o Observed) string {
	id := taskID(o.Assignment)
	a, found := p.assigned[id]
	switch {
	case found && a.GetTask().GetDesired() == pb.TaskDesired_TASK_DESIRED_STOP:
		return "the servers asked it to stop"
	case found:
	case p.wanted.Known:
		return "the servers no longer know it"
	}
	job, epoch := o.Assignment.GetTask().GetJobId(), o.Assignment.GetTask().GetEpoch()
	for _, w := range p.wanted.Assignments {
		if w.GetTask().GetJobId() == job && w.GetTask().GetEpoch() > epoch {
			return fmt.Sprintf("attempt %d of job %s has replaced attempt %d", w.GetTask().GetEpoch(), job, epoch)
		}
	}
	return ""
}

// graceOf is the time a task has between the stop signal and the kill.
func graceOf(a *pb.Assignment) time.Duration {
	const fallback = 10 * time.Second
	if ms := a.GetRole().GetGraceMs(); ms > 0 {
		return time.Duration(ms) * time.Millisecond
	}
	return fallback
}

// start starts what is wanted and has never been seen, unless something is in its way.
func (p *planner) start() {
	for _, a := range p.wanted.Assignments {
		id := taskID(a)
		if _, known := p.byID[id]; known || p.wanted.Forget[id] {
			continue
		}
		if a.GetTask().GetDesired() == pb.TaskDesired_TASK_DESIRED_STOP {
			p.act(Action{Kind: Void, TaskID: id, Assignment: a, Reason: "stopped before it was started"})
			continue
		}
		if newer := p.newerEpoch(a); newer > 0 {
			why := fmt.Sprintf("attempt %d of job %s has replaced attempt %d", newer, a.GetTask().GetJobId(), a.GetTask().GetEpoch())
			p.act(Action{Kind: Void, TaskID: id, Assignment: a, Reason: why})
			continue
		}
		if why := p.inTheWay(a); why != "" {
			p.result.Waiting[id] = why
			continue
		}
		p.starting = append(p.starting, a)
		p.act(Action{Kind: Start, TaskID: id, Assignment: a})
	}
}

// newerEpoch gives the epoch of a newer attempt of the job that is wanted or was seen; 0: none.
func (p *planner) newerEpoch(a *pb.Assignment) uint64 {
	newest := a.GetTask().GetEpoch()
	look := func(other *pb.Assignment) {
		if other.GetTask().GetJobId() == a.GetTask().GetJobId() {
			newest = max(newest, other.GetTask().GetEpoch())
		}
	}
	for _, o := range p.seen {
		look(o.Assignment)
	}
	for _, w := range p.wanted.Assignments {
		look(w)
	}
	if newest == a.GetTask().GetEpoch() {
		return 0
	}
	return newest
}

// inTheWay says what keeps a task from starting; empty: nothing.
func (p *planner) inTheWay(a *pb.Assignment) string {
	shares := map[string]int32{}
	check := func(other *pb.Assignment) string {
		if a.GetTask().GetJobId() == other.GetTask().GetJobId() && a.GetTask().GetEpoch() > other.GetTask().GetEpoch() {
			return fmt.Sprintf("task %s of an older attempt has not ended yet", taskID(other))
		}
		if port := samePort(a.GetAllocation(), other.GetAllocation()); port > 0 {
			return fmt.Sprintf("task %s still holds port %d", taskID(other), port)
		}
		for _, grant := range other.GetAllocation().GetDevices() {
			shares[grant.GetDeviceId()] += grant.GetShareMilli()
		}
		for _, grant := range a.GetAllocation().GetDevices() {
			if held := shares[grant.GetDeviceId()]; held > 0 && held+grant.GetShareMilli() > WholeDevice {
				return fmt.Sprintf("task %s still holds device %s", taskID(other), grant.GetDeviceId())
			}
		}
		return ""
	}
	for _, o := range p.seen {
		if o.Phase == Ended {
			continue
		}
		if why := check(o.Assignment); why != "" {
			return why
		}
	}
	for _, other := range p.starting {
		if why := check(other); why != "" {
			return why
		}
	}
	return ""
}

// samePort gives a port that both allocations hold; 0: none.
func samePort(a, b *pb.Allocation) int32 {
	for _, x := range a.GetPorts() {
		for _, y := range b.GetPorts() {
			if x == y {
				return x
			}
		}
	}
	return 0
}

// unwanted reports whether the servers have said that they know no such task.
func (p *planner) unwanted(id string) bool {
	_, found := p.assigned[id]
	return p.wanted.Known && !found
}

// settle reports what the servers do not know yet and forgets what they have recorded.
func (p *planner) settle() {
	for _, o := range p.seen {
		id := taskID(o.Assignment)
		switch {
		case o.Phase == Ended && (p.wanted.Forget[id] || p.unwanted(id) && o.Acknowledged):
			p.act(Action{Kind: Clean, TaskID: id})
		case o.Unreported && (o.Phase == Ended || o.Phase == Running || o.Phase == Stopping):
			p.act(Action{Kind: Report, TaskID: id})
		}
	}
}
