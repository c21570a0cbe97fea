package controller

import (
	"slices"

	"google.golang.org/protobuf/proto"

	"llmos/fsm/state"
	pb "llmos/proto/llmos/v1"
)

// session is a connected agent. It opens in steps: the node is registered and what the
// hello reports is committed; then, on a state that shows this, tasks that the hello does
// not know are proved lost; then it is live, is sent everything desired, and after that
// what changes.
type session struct {
	node  string
	id    uint64
	hello *pb.Hello
	phase phase
	after uint64 // index that the state must show before the next step
	acked uint64 // sequence of reports acknowledged
	taken uint64 // sequence of reports queued
	dirty bool   // something about its tasks may have changed
	known map[string]*knownTask

	holdings    *pb.Holdings // sent last
	holdingsDue bool         // they are to be sent even if they are the same: see copies.go

	haunted bool // it still runs tasks that the state is done with; see ghosts
}

type phase int

const (
	phaseRegistering phase = iota // the registration is queued or in flight
	phaseAdopting                 // registered; missing tasks are looked for once the state shows it
	phaseProving                  // missing tasks are being reported lost
	phaseStarting                 // the full desired set goes out next
	phaseLive
)

// knownTask is what the agent holds of a task.
type knownTask struct {
	sent    pb.TaskDesired // last sent; UNSPECIFIED: only known from a hello or report
	running bool           // the hello says that it runs
	ended   bool           // the agent's report of its end is committed
}

func (c *Controller) openSession(ev SessionOpened) {
	if old := c.sessions[ev.NodeID]; old != nil {
		c.dropSession(old)
	}
	s := &session{node: ev.NodeID, id: ev.Session, hello: ev.Hello, known: map[string]*knownTask{}}
	c.sessions[ev.NodeID] = s
	c.opening = append(c.opening, ev.NodeID)
	c.hear(ev.NodeID)
	var reports []*pb.TaskReport
	for _, r := range ev.Hello.GetTasks() {
		s.known[r.TaskId] = &knownTask{running: r.State == pb.TaskState_TASK_STATE_RUNNING}
		if r.State == pb.TaskState_TASK_STATE_RUNNING || terminal(r.State) {
			reports = append(reports, r)
		}
	}
	welcome := &pb.Welcome{ClusterId: c.st.Cluster().GetClusterId(), LeaderId: c.cfg.LeaderID,
		HeartbeatMs: c.cfg.HeartbeatEvery.Milliseconds()}
	if c.cfg.ServerAddrs != nil {
		welcome.ServerAddrs = c.cfg.ServerAddrs()
	}
	c.send(s, &pb.ServerMessage{Message: &pb.ServerMessage_Welcome{Welcome: welcome}})
	c.reports.add(&report{node: s.node, session: s.id, kind: reportHello, register: c.told(ev.Hello.GetNode()), reports: reports})
}

func (c *Controller) dropSession(s *session) {
	delete(c.sessions, s.node)
	c.copies.stale = true
	c.world.connected(s.node, false)
	c.opening = slices.DeleteFunc(c.opening, func(id string) bool { return id == s.node })
}

// sessionOf gives the session if it is still the node's.
func (c *Controller) sessionOf(node string, id uint64) *session {
	if s := c.sessions[node]; s != nil && s.id == id {
		return s
	}
	return nil
}

// advanceSessions takes opening sessions as far as the state allows.
func (c *Controller) advanceSessions() {
	c.opening = slices.DeleteFunc(c.opening, func(id string) bool {
		s := c.sessions[id]
		if c.st.Index() < s.after {
			return false
		}
		if s.phase == phaseAdopting {
			s.phase = phaseStarting
			if missing := c.missing(s); len(missing) > 0 {
				s.phase = phaseProving
				c.reports.add(&report{node: s.node, session: s.id, kind: reportMissing, reports: missing})
			}
		}
		if s.phase != phaseStarting {
			return false
		}
		s.phase, s.dirty = phaseLive, false
		c.sendFull(s)
		s.haunted, c.copies.stale = true, true
		c.welcomeWork(s)
		return true
	})
}

// welcomeWork lets the scheduler use the node once no ghost is left on it.
func (c *Controller) welcomeWork(s *session) {
	if s.haunted && !c.ghosts(s) {
		s.haunted = false
		c.world.connected(s.node, true)
		c.planning.wanted = true
	}
}

// ghosts says whether the agent still runs a task that holds nothing in the ledger, such
// as one of a node that had been removed. It is being stopped, and what it uses must not
// be given away before.
func (c *Controller) ghosts(s *session) bool {
	for id, k := range s.known { // unordered: any one decides
		if k.running && !k.ended && c.st.Allocation(id) == nil {
			return true
		}
	}
	return false
}

// missing gives a proof of loss for each task that ran, or may run, on the node according
// to the state but that the agent has no trace of. An assigned task that it does not know
// simply has not arrived yet. The state shows the registration, which came after all that
// earlier sessions had reported, so that a task it shows as assigned was never started.
func (c *Controller) missing(s *session) []*pb.TaskReport {
	var missing []*pb.TaskReport
	for t := range c.st.NodeTasks(s.node) {
		if s.known[t.Id] == nil && (t.State == pb.TaskState_TASK_STATE_RUNNING || t.State == pb.TaskState_TASK_STATE_LOST) {
			missing = append(missing, &pb.TaskReport{TaskId: t.Id, Epoch: t.Epoch, State: pb.TaskState_TASK_STATE_LOST,
				Reason: "the agent has no trace of it"})
		}
	}
	return missing
}

func (c *Controller) sendFull(s *session) {
	d := &pb.Desired{Index: c.st.Index(), Full: true}
	for t := range c.st.NodeTasks(s.node) {
		d.Assignments = append(d.Assignments, c.assignment(s, t))
	}
	d.Forget = c.forget(s)
	d.Holdings = c.heldBy(s.node)
	s.holdings = d.Holdings
	c.send(s, &pb.ServerMessage{Message: &pb.ServerMessage_Desired{Desired: d}})
}

// markDirty notes that a session may need to be told something.
func (c *Controller) markDirty(s *session) {
	if !s.dirty {
		s.dirty = true
		c.dirty = append(c.dirty, s.node)
	}
}

// dispatchDirty sends what changed to the nodes that a sweep or a commit marked, once the
// state shows what was committed.
func (c *Controller) dispatchDirty() {
	slices.Sort(c.dirty)
	c.dirty = slices.DeleteFunc(c.dirty, func(id string) bool {
		s := c.sessions[id]
		if s == nil || !s.dirty {
			return true
		}
		if s.phase != phaseLive {
			s.dirty = false
			return true // the full set will say it
		}
		if c.st.Index() < s.after {
			return false
		}
		s.dirty = false
		c.welcomeWork(s)
		c.sendChanged(s)
		return true
	})
}

func (c *Controller) sendChanged(s *session) {
	d := &pb.Desired{Index: c.st.Index()}
	for t := range c.st.NodeTasks(s.node) {
		if k := s.known[t.Id]; k == nil || k.sent != desiredOf(t) {
			d.Assignments = append(d.Assignments, c.assignment(s, t))
		}
	}
	d.Forget = c.forget(s)
	if len(d.Assignments) > 0 || len(d.Forget) > 0 {
		c.send(s, &pb.ServerMessage{Message: &pb.ServerMessage_Desired{Desired: d}})
	}
}

// desiredOf is what the agent should do about a task: a lost one, whose replacement may
// run already, must stop.
func desiredOf(t *pb.Task) pb.TaskDesired {
	if t.State == pb.TaskState_TASK_STATE_LOST {
		return pb.TaskDesired_TASK_DESIRED_STOP
	}
	return t.Desired
}

// assignment makes the order for one task and notes that it is sent.
func (c *Controller) assignment(s *session, t *pb.Task) *pb.Assignment {
	k := s.known[t.Id]
	if k == nil {
		k = &knownTask{}
		s.known[t.Id] = k
	}
	k.sent = desiredOf(t)
	if k.sent != t.Desired {
		t = proto.CloneOf(t)
		t.Desired = k.sent
	}
	a := &pb.Assignment{Task: t, Allocation: c.st.Allocation(t.Id), Attempt: c.st.Attempt(t.JobId, t.Epoch)}
	if j := c.st.Job(t.JobId); j != nil {
		a.JobName = state.JobName(j.GetSpec())
		a.Framework = j.GetSpec().GetFramework()
		if parent := c.st.Job(j.Parent); parent.GetSpec().GetArray() != nil {
			a.ArrayIndex, a.ArrayCount = j.ArrayIndex, parent.Spec.Array.Count
		}
		for _, r := range j.GetSpec().GetRoles() {
			if r.Name == t.Role {
				a.Role = r
			}
		}
		a.Checkpoint, a.Resume = checkpointSpec(j.GetSpec()), c.resumeOf(t, a.Attempt)
	}
	a.Peers = c.peers(t, a.Framework)
	if c.cfg.AttemptKey != nil {
		a.AttemptKey = c.cfg.AttemptKey(t.JobId, t.Epoch)
	}
	return a
}

// forget lists the tasks whose records the agent may drop: it has reported their end, that
// is committed, and they hold nothing. A task that the agent still runs although the state
// is done with it gets no mention: it is absent from the full set, which stops it.
func (c *Controller) forget(s *session) []string {
	var ids []string
	for id, k := range s.known { // unordered: sorted below
		if !k.ended {
			continue
		}
		if t := c.st.Task(id); t == nil || (terminal(t.State) && c.st.Allocation(id) == nil) {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	for _, id := range ids {
		delete(s.known, id)
	}
	return ids
}

func terminal(s pb.TaskState) bool {
	switch s {
	case pb.TaskState_TASK_STATE_SUCCEEDED, pb.TaskState_TASK_STATE_FAILED, pb.TaskState_TASK_STATE_STOPPED, pb.TaskState_TASK_STATE_LOST:
		return true
	}
	return false
}
