package controller

import (
	"slices"

	pb "llmos/proto/llmos/v1"
)

// reporter commits what agents say. Everything goes through one queue and one proposal at
// a time, so that the reports of a node are committed in the order in which they came, and
// what piles up behind a proposal shares the next one.
type reporter struct {
	lane     lane
	queue    []*report
	flight   []*report
	commands int // of the proposal in flight
}

// report is one thing an agent said, or one proof about its tasks.
type report struct {
	node     string
	session  uint64
	seq      uint64 // of reportReports
	kind     reportKind
	register *pb.Node         // reportHello, reportInventory
	reports  []*pb.TaskReport // may be empty
	saved    []*pb.CheckpointReport
}

type reportKind int

const (
	reportHello reportKind = iota
	reportInventory
	reportReports
	reportMissing
)

// Bounds of one proposal, and of what one session may have waiting: an agent that sends
// more is not acknowledged and repeats it on its next session.
const (
	reportsPerProposal  = 4096 // task reports
	entriesPerProposal  = 512  // things said
	unackedPerSession   = 4096 // batches of reports
	reportsQueuedPerAll = 1 << 20
)

func (r *reporter) add(e *report) { r.queue = append(r.queue, e) }

func (c *Controller) reportsArrived(ev ReportsArrived) {
	s := c.sessionOf(ev.NodeID, ev.Session)
	switch {
	case s == nil:
		return
	case ev.Seq <= s.acked:
		c.acknowledge(s)
		return
	case ev.Seq <= s.taken, ev.Seq-s.acked > unackedPerSession, len(c.reports.queue) >= reportsQueuedPerAll:
		return
	}
	s.taken = ev.Seq
	c.reports.add(&report{node: ev.NodeID, session: ev.Session, seq: ev.Seq, kind: reportReports, reports: ev.Reports, saved: c.savedReports(ev.Checkpoints)})
}

func (c *Controller) acknowledge(s *session) {
	c.send(s, &pb.ServerMessage{Message: &pb.ServerMessage_Acknowledge{Acknowledge: &pb.Acknowledge{Seq: s.acked}}})
}

// proposeReports puts what has gathered into one proposal.
func (c *Controller) proposeReports() {
	r := &c.reports
	if len(r.queue) == 0 || !r.lane.ready(c, false) {
		return
	}
	n, reports := 0, 0
	for n < len(r.queue) && n < entriesPerProposal && (n == 0 || reports+r.queue[n].size() <= reportsPerProposal) {
		reports += r.queue[n].size()
		n++
	}
	r.flight = append([]*report(nil), r.queue[:n]...)
	r.queue = append([]*report(nil), r.queue[n:]...)
	var commands []*pb.Command
	for _, e := range r.flight {
		commands = append(commands, e.toCommands()...)
	}
	r.commands = len(commands)
	c.propose(&r.lane, commands)
}

// size is the number of single reports.
func (e *report) size() int { return len(e.reports) + len(e.saved) }

// toCommands gives one command per thing said, two for a hello with tasks, and one for each checkpoint.
func (e *report) toCommands() []*pb.Command {
	var commands []*pb.Command
	if e.register != nil {
		commands = append(commands, &pb.Command{Op: &pb.Command_RegisterNode{RegisterNode: &pb.RegisterNode{Node: e.register}}})
	}
	if len(e.reports) > 0 || e.register == nil && len(e.saved) == 0 {
		commands = append(commands, &pb.Command{Op: &pb.Command_ReportTasks{ReportTasks: &pb.ReportTasks{NodeId: e.node, Reports: e.reports}}})
	}
	for _, r := range e.saved {
		commands = append(commands, savedCommand(e.node, r))
	}
	return commands
}

// reportsDone follows up a proposal, or puts its parts back at the head of the queue.
// Reports that are committed twice are ignored by the state.
func (c *Controller) reportsDone(ev ProposalDone, applied bool) {
	r := &c.reports
	flight := r.flight
	r.flight = nil
	if !applied {
		r.queue = append(flight, r.queue...)
		return
	}
	results := ev.Results
	var acked []*session // in the order in which their reports came
	for _, e := range flight {
		n := len(e.toCommands())
		mine := results[:n]
		results = results[n:]
		s := c.sessions[e.node]
		if s == nil {
			continue
		}
		c.markDirty(s)
		s.after = max(s.after, r.lane.after)
		for _, t := range e.reports {
			s.noteReport(t)
		}
		if s.id != e.session {
			continue
		}
		switch e.kind {
		case reportHello:
			if fault := mine[0].GetFault(); fault != nil {
				c.effects = append(c.effects, CloseSession{NodeID: s.node, Session: s.id, Fault: fault})
				c.dropSession(s)
				continue
			}
			s.phase = phaseAdopting
		case reportMissing:
			s.phase = phaseStarting
		case reportReports:
			s.acked = max(s.acked, e.seq)
			if len(e.saved) > 0 {
				s.holdingsDue, c.copies.due = true, true
			}
			if !slices.Contains(acked, s) {
				acked = append(acked, s)
			}
		}
	}
	for _, s := range acked {
		c.acknowledge(s)
	}
}

// noteReport remembers that a committed report says what the agent holds of a task.
func (s *session) noteReport(t *pb.TaskReport) {
	if !terminal(t.State) {
		return
	}
	k := s.known[t.TaskId]
	if k == nil {
		k = &knownTask{}
		s.known[t.TaskId] = k
	}
	k.ended = true
}
