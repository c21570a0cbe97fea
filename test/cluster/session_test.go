package cluster_test

import (
	"testing"

	"llmos/fsm/state"
	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
	"llmos/test/cluster"
)

// TestOneSessionForEachNode opens a second session for a node: the first is ended with the
// reason, and orders go to the second alone.
func TestOneSessionForEachNode(t *testing.T) {
	t.Parallel()
	c := cluster.Start(t, 1, cluster.WithTiming(steady()))
	agent := c.Agent("node", 4, 0)
	older := agent.Connect()
	newer := agent.Connect()
	wantKind(t, "the older session's end", older.AwaitEnd(), conflict)
	id := submit(t, c, job("one", 1, 1, 0), "")
	order := newer.Order(id, toRun)
	if got := older.Orders(); len(got) != 0 {
		t.Errorf("the ended session was ordered %v", got)
	}
	newer.Report(cluster.Seen(order.Task, running))
	if err := newer.Err(); err != nil {
		t.Errorf("the newer session ended: %v", err)
	}
	nodes := 0
	for n := range read(t, c).Nodes() {
		nodes++
		if n.State != pb.NodeState_NODE_STATE_READY {
			t.Errorf("node %s is %v: the older session's end counted against it", n.Name, n.State)
		}
	}
	if nodes != 1 {
		t.Errorf("%d nodes, want 1", nodes)
	}
}

// TestFollowersKeepNoSessions sends an agent to each follower: it is told who leads.
func TestFollowersKeepNoSessions(t *testing.T) {
	t.Parallel()
	c := cluster.Start(t, 3, cluster.WithTiming(steady()))
	agent := c.Agent("node", 4, 0)
	leader := c.Leader()
	for _, s := range followers(c, leader) {
		err := agent.Dial(s.Addr()).AwaitEnd()
		wantKind(t, "a follower's answer", err, notLeader)
		if addr := fault.From(err).Fault.LeaderAddr; addr != leader.Addr() {
			t.Errorf("%s says that %q leads, it is %s", s.Config.Name, addr, leader.Addr())
		}
	}
}

// TestReportsAreAcknowledgedAfterCommit cuts the leader off with an agent still connected to
// it. It can commit nothing now, so it may not acknowledge; the next leader has the report
// only when the agent, which kept it, sends it again.
func TestReportsAreAcknowledgedAfterCommit(t *testing.T) {
	t.Parallel()
	c := cluster.Start(t, 3, cluster.WithTiming(steady()))
	agent := c.Agent("node", 4, 0)
	session := agent.Connect()
	id := submit(t, c, job("one", 1, 1, 0), "")
	task := session.Order(id, toRun).Task
	leader := c.Leader()
	session.Report(cluster.Seen(task, running))
	if got := leader.Stale().Task(task.Id).State; got != running {
		t.Errorf("the acknowledged report is not in the leader's state: %v", got)
	}

	acked := session.Acked()
	c.Network.Cut(leader.Config.Listen)
	session.Send(cluster.Seen(task, succeeded))
	wantKind(t, "the session's end", session.AwaitEnd(), notLeader, unavailable)
	if session.Acked() != acked {
		t.Error("a report was acknowledged without a quorum")
	}
	if got := read(t, c).Task(task.Id).State; got != running {
		t.Errorf("the majority has the task as %v, without having been told", got)
	}
	again := agent.Connect(cluster.Seen(task, succeeded))
	again.AwaitForget(task.Id)
	c.Network.Mend(leader.Config.Listen)
	cluster.Wait(t, "the healed server to catch up", func() bool {
		return leader.Stale().Job(id).State == pb.JobState_JOB_STATE_SUCCEEDED
	})
	wantEmptyLedger(t, c.WaitSame())
}

// TestTasksSurviveTheLeader kills the leader while a task runs: the agent finds the next
// leader and nothing about the task has changed.
func TestTasksSurviveTheLeader(t *testing.T) {
	t.Parallel()
	c := cluster.Start(t, 3, cluster.WithTiming(steady()))
	agent := c.Agent("node", 4, 2)
	session := agent.Connect()
	id := submit(t, c, job("long", 2, 1, 1), "")
	session.Report(cluster.Seen(session.Order(id, toRun).Task, running))
	cluster.Wait(t, "both tasks", func() bool { return len(session.Orders()) == 2 })
	s := read(t, c)
	session.Report(reports(s, id, 1, running)...)
	killed := c.Leader()
	c.Kill(killed)
	session = agent.Connect(reports(s, id, 1, running)...)
	if got := session.Orders(); len(got) != 2 {
		t.Errorf("the next leader wants %v", got)
	}
	wantEpoch(t, read(t, c), id, 1)
	session.Report(reports(s, id, 1, succeeded)...)
	after := awaitState(t, c, "the job's end", func(s *state.State) bool { return s.Job(id).FinishedMs != 0 })
	if j := after.Job(id); j.State != pb.JobState_JOB_STATE_SUCCEEDED || j.Epoch != 1 {
		t.Errorf("the job is %v", j)
	}
	killed.Start()
	wantEmptyLedger(t, c.WaitSame())
}
