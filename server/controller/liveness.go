package controller

import (
	"fmt"
	"time"

	pb "llmos/proto/llmos/v1"
)

// liveness decides who is silent and whose tasks are lost. Only this leader's own clock
// and what reached this leader count: a new one grants every node the full time again.
type liveness struct {
	lane    lane
	started time.Duration
	heard   map[string]time.Duration // by node ID; absent: not since started
	scanAt  time.Duration            // when a look at all nodes is due
}

// livenessCommandsMax bounds one proposal; the rest follows in the next.
const livenessCommandsMax = 256

// hear notes a sign of life on a session.
func (c *Controller) hear(node string) {
	s := c.sessions[node]
	if s == nil {
		return
	}
	c.liveness.heard[node] = c.now
	if e := c.world.known[node]; e != nil && e.node.State != pb.NodeState_NODE_STATE_READY && s.phase == phaseLive {
		c.liveness.scanAt = min(c.liveness.scanAt, c.now)
	}
}

// silence is how long nothing has been heard of a node.
func (c *Controller) silence(node string) time.Duration {
	at, ok := c.liveness.heard[node]
	if !ok {
		at = c.liveness.started
	}
	return c.now - at
}

// watchLiveness looks at all nodes when something is due, and proposes what follows.
func (c *Controller) watchLiveness() {
	l := &c.liveness
	if c.now < l.scanAt || !l.lane.ready(c, true) {
		return
	}
	next := c.now + c.cfg.SilentAfter
	var commands []*pb.Command
	for _, e := range c.world.order {
		if len(commands) >= livenessCommandsMax {
			next = c.now
			break
		}
		found, due := c.judge(e.node)
		commands = append(commands, found...)
		if due > c.now {
			next = min(next, due)
		}
	}
	l.scanAt = next
	if len(commands) > 0 {
		c.propose(&l.lane, commands)
	}
}

// judge gives the commands that a node's silence calls for now, and the time of the next
// judgement if nothing is heard.
func (c *Controller) judge(n *pb.Node) (commands []*pb.Command, due time.Duration) {
	silence := c.silence(n.Id)
	heardAt := c.now - silence
	if silence < c.cfg.SilentAfter {
		s := c.sessions[n.Id]
		if n.State != pb.NodeState_NODE_STATE_READY && s != nil && s.phase == phaseLive {
			commands = append(commands, setNodeState(n.Id, pb.NodeState_NODE_STATE_READY, "it answers again"))
		}
		return commands, heardAt + c.cfg.SilentAfter
	}
	if n.State == pb.NodeState_NODE_STATE_READY {
		return append(commands, setNodeState(n.Id, pb.NodeState_NODE_STATE_SILENT,
			fmt.Sprintf("nothing was heard of it for %s", c.cfg.SilentAfter))), 0
	}
	lost := &pb.LoseTasks{NodeId: n.Id, Reason: fmt.Sprintf("node %s has been silent for %s", n.Name, silence.Truncate(time.Second))}
	for t := range c.st.NodeTasks(n.Id) {
		if terminal(t.State) {
			continue
		}
		at := heardAt + c.lostAfter(t.JobId)
		switch {
		case at <= c.now:
			lost.TaskIds = append(lost.TaskIds, t.Id)
		case due == 0 || at < due:
			due = at
		}
	}
	if len(lost.TaskIds) == 0 {
		return nil, due
	}
	commands = append(commands, &pb.Command{Op: &pb.Command_LoseTasks{LoseTasks: lost}})
	if n.State != pb.NodeState_NODE_STATE_LOST {
		commands = append(commands, setNodeState(n.Id, pb.NodeState_NODE_STATE_LOST, lost.Reason))
	}
	return commands, due
}

// lostAfter is how long a job's tasks on a silent node are waited for; never shorter than
// it takes to call a node silent.
func (c *Controller) lostAfter(jobID string) time.Duration {
	after := c.cfg.DefaultLostAfter
	if j := c.st.Job(jobID); j != nil && j.GetSpec().GetLostAfterMs() > 0 {
		after = time.Duration(j.Spec.LostAfterMs) * time.Millisecond
	}
	return max(after, c.cfg.SilentAfter)
}

func setNodeState(id string, s pb.NodeState, reason string) *pb.Command {
	return &pb.Command{Op: &pb.Command_SetNodeState{SetNodeState: &pb.SetNodeState{NodeId: id, State: s, Reason: reason}}}
}

// forgive takes out of every node's silence a time in which this loop stood still and heard
// nobody: a leader that was stopped for a minute must not wake and find every node lost.
func (l *liveness) forgive(gap time.Duration) {
	l.started += gap
	for id := range l.heard { // unordered: each entry moves by itself
		l.heard[id] += gap
	}
}
