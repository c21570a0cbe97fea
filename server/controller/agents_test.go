package controller_test

import (
	"fmt"
	"maps"
	"math/rand"
	"slices"
	"time"

	pb "llmos/proto/llmos/v1"
	"llmos/server/controller"
)

// fakeAgent is an agent as the contract describes it, with a journal that survives and
// messages that arrive late but in order.
type fakeAgent struct {
	node    string
	session uint64 // 0: not connected
	inbox   []*pb.ServerMessage
	outbox  []controller.Event
	seq     uint64
	unacked map[uint64]bool
	tasks   map[string]*fakeTask
}

type fakeTask struct {
	epoch   uint64
	state   pb.TaskState
	devices []string
}

// world is a cluster of one controller and some agents on a log whose outcomes, delays and
// failures follow a seed. It fails the test at the first broken promise.
type world struct {
	*rig
	random  *rand.Rand
	agents  []*fakeAgent
	started map[string]bool // task IDs
	next    uint64
	calm    bool // no faults any more
}

func (w *world) agent(node string) *fakeAgent {
	for _, a := range w.agents {
		if a.node == node {
			return a
		}
	}
	return nil
}

func (w *world) connect(a *fakeAgent) {
	w.next++
	a.session, a.seq, a.inbox, a.outbox, a.unacked = w.next, 0, nil, nil, map[uint64]bool{}
	hello := &pb.Hello{Node: makeNode(a.node, 8, 2), ClusterId: "c-000000000001"}
	for _, id := range slices.Sorted(maps.Keys(a.tasks)) {
		hello.Tasks = append(hello.Tasks, a.describe(id))
	}
	a.outbox = append(a.outbox, controller.SessionOpened{NodeID: a.node, Session: a.session, Hello: hello})
}

func (a *fakeAgent) describe(id string) *pb.TaskReport {
	t := a.tasks[id]
	r := &pb.TaskReport{TaskId: id, Epoch: t.epoch, State: t.state}
	if t.state == pb.TaskState_TASK_STATE_FAILED {
		r.ExitCode = 1
	}
	return r
}

func (a *fakeAgent) say(reports ...*pb.TaskReport) {
	if a.session == 0 {
		return // the next hello says it
	}
	a.seq++
	a.unacked[a.seq] = true
	a.outbox = append(a.outbox, controller.ReportsArrived{NodeID: a.node, Session: a.session, Seq: a.seq, Reports: reports})
}

// receive takes one message as a real agent would.
func (w *world) receive(a *fakeAgent, m *pb.ServerMessage) {
	switch m := m.Message.(type) {
	case *pb.ServerMessage_Acknowledge:
		for seq := range a.unacked {
			if seq <= m.Acknowledge.Seq {
				delete(a.unacked, seq)
			}
		}
	case *pb.ServerMessage_Desired:
		wanted := map[string]bool{}
		for _, order := range m.Desired.Assignments {
			wanted[order.Task.Id] = true
			w.obey(a, order)
		}
		if m.Desired.Full {
			for _, id := range slices.Sorted(maps.Keys(a.tasks)) {
				if !wanted[id] {
					w.halt(a, id)
				}
			}
		}
		for _, id := range m.Desired.Forget {
			if t := a.tasks[id]; t != nil && t.state == pb.TaskState_TASK_STATE_RUNNING {
				w.t.Fatalf("agent %s is told to forget %s, which runs", a.node, id)
			}
			delete(a.tasks, id)
		}
	}
}

func (w *world) obey(a *fakeAgent, order *pb.Assignment) {
	id := order.Task.Id
	if order.Task.Desired == pb.TaskDesired_TASK_DESIRED_STOP {
		if a.tasks[id] == nil { // never arrived: it never will
			a.tasks[id] = &fakeTask{epoch: order.Task.Epoch, state: pb.TaskState_TASK_STATE_STOPPED}
			a.say(a.describe(id))
			return
		}
		w.halt(a, id)
		return
	}
	if a.tasks[id] != nil {
		return
	}
	if w.started[id] {
		w.t.Fatalf("task %s is started twice", id)
	}
	w.started[id] = true
	t := &fakeTask{epoch: order.Task.Epoch, state: pb.TaskState_TASK_STATE_RUNNING}
	for _, g := range order.Allocation.Devices {
		t.devices = append(t.devices, g.DeviceId)
		for other, o := range a.tasks {
			if o.state == pb.TaskState_TASK_STATE_RUNNING && slices.Contains(o.devices, g.DeviceId) {
				w.t.Fatalf("device %s is held by %s and %s", g.DeviceId, other, id)
			}
		}
	}
	a.tasks[id] = t
	a.say(a.describe(id))
}

func (w *world) halt(a *fakeAgent, id string) {
	if t := a.tasks[id]; t.state == pb.TaskState_TASK_STATE_RUNNING {
		t.state = pb.TaskState_TASK_STATE_STOPPED
		a.say(a.describe(id))
	}
}

// end lets one running task end by itself.
func (w *world) end(a *fakeAgent, state pb.TaskState) {
	for _, id := range slices.Sorted(maps.Keys(a.tasks)) {
		if t := a.tasks[id]; t.state == pb.TaskState_TASK_STATE_RUNNING {
			t.state = state
			a.say(a.describe(id))
			return
		}
	}
}

// step lets one thing happen.
func (w *world) step() {
	a := w.agents[w.random.Intn(len(w.agents))]
	switch p := w.random.Intn(100); {
	case p < 20:
		if len(a.outbox) > 0 {
			ev := a.outbox[0]
			a.outbox = a.outbox[1:]
			w.loop.Step(ev, w.now)
		}
	case p < 40:
		if len(a.inbox) > 0 {
			m := a.inbox[0]
			a.inbox = a.inbox[1:]
			w.receive(a, m)
		}
	case p < 65:
		w.outcome()
	case p < 75:
		w.end(a, pb.TaskState_TASK_STATE_SUCCEEDED)
	case p < 85:
		w.pass(time.Duration(w.random.Intn(300)) * time.Millisecond)
		if a.session != 0 && len(a.outbox) == 0 {
			w.loop.Step(controller.Heard{NodeID: a.node}, w.now)
		}
	case p < 88:
		if a.session == 0 {
			w.connect(a)
		}
	default:
		if !w.calm {
			w.fault(a, p)
		}
	}
	w.collectEffects()
}

func (w *world) fault(a *fakeAgent, p int) {
	switch p {
	case 88:
		w.end(a, pb.TaskState_TASK_STATE_FAILED)
	case 89, 90: // the stream breaks; what was under way on it is gone
		if a.session != 0 {
			w.loop.Step(controller.SessionClosed{NodeID: a.node, Session: a.session}, w.now)
			a.session = 0
		}
	case 91: // the host dies and comes back later with its journal
		for _, id := range slices.Sorted(maps.Keys(a.tasks)) {
			if t := a.tasks[id]; t.state == pb.TaskState_TASK_STATE_RUNNING {
				t.state = pb.TaskState_TASK_STATE_FAILED
			}
		}
		a.session = 0
	case 92:
		w.pass(time.Duration(w.random.Intn(30)) * time.Second)
	case 93: // leader change: what is in flight may still be applied, before or after
		for _, f := range w.flight {
			if w.random.Intn(2) == 0 {
				w.entry(f.Commands...)
			}
		}
		w.lead()
		for _, a := range w.agents {
			a.session = 0
		}
	case 94:
		if jobs := slices.Collect(w.log.State().UnfinishedJobs()); len(jobs) > 0 {
			w.apply(stop(jobs[w.random.Intn(len(jobs))].Id))
		}
	}
}

// outcome ends the oldest proposal, mostly well.
func (w *world) outcome() {
	if len(w.flight) == 0 {
		return
	}
	f := w.flight[0]
	w.flight = w.flight[1:]
	done := controller.ProposalDone{ID: f.ID}
	how := w.random.Intn(20)
	if w.calm || how > 0 {
		done.Results = w.entry(f.Commands...)
	}
	if !w.calm && how < 2 {
		done.Results, done.Err = nil, fmt.Errorf("no outcome")
	}
	changed := controller.StateChanged{State: w.log.State()}
	if w.random.Intn(2) == 0 { // the outcome may be known before the state is seen
		w.loop.Step(done, w.now)
		w.collectEffects()
		w.loop.Step(changed, w.now)
		return
	}
	w.loop.Step(changed, w.now)
	w.loop.Step(done, w.now)
}

func (w *world) collectEffects() {
	for _, effect := range w.loop.Ready() {
		switch e := effect.(type) {
		case controller.Propose:
			w.flight = append(w.flight, e)
		case controller.Send:
			if a := w.agent(e.NodeID); a.session == e.Session {
				a.inbox = append(a.inbox, e.Message)
			}
		case controller.CloseSession:
			w.t.Fatalf("session of %s is refused: %s", e.NodeID, e.Fault.Message)
		}
	}
}
