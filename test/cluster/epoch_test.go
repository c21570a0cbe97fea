package cluster_test

import (
	"testing"

	"llmos/fsm/state"
	pb "llmos/proto/llmos/v1"
	"llmos/test/cluster"
)

// TestStaleEpochIsRefused loses a node with a gang of two on it. The gang starts again on
// another node as epoch 2. What the first node then says about epoch 1 changes nothing but
// this: each task that it reports as ended gives up what it held, and not a moment sooner.
func TestStaleEpochIsRefused(t *testing.T) {
	t.Parallel()
	c := cluster.Start(t, 3, cluster.WithTiming(steady()))
	one := c.Agent("one", 4, 2)
	first := one.Connect()
	gang := job("gang", 2, 1, 1)
	gang.LostAfterMs = 100 // and so right after the node is silent
	id := submit(t, c, gang, "")
	cluster.Wait(t, "both tasks on the first node", func() bool { return len(first.Orders()) == 2 })
	first.Report(reports(read(t, c), id, 1, running)...)

	two := c.Agent("two", 4, 2)
	second := two.Connect()
	first.Mute()
	cluster.Wait(t, "the gang on the second node", func() bool { return len(second.Orders()) == 2 })
	s := read(t, c)
	wantEpoch(t, s, id, 2)
	for task := range s.JobTasks(id, 1) {
		if task.State != lost || s.Allocation(task.Id) == nil {
			t.Errorf("task %s of the silent node is %v with allocation %v, want lost and fenced", task.Id, task.State, s.Allocation(task.Id))
		}
	}
	second.Report(reports(s, id, 2, running)...)

	// The first node is back. Its tasks run on, which it says; and it claims the second one's.
	back := one.Connect(reports(s, id, 1, running)...)
	for _, o := range back.Orders() {
		if a := back.Order(id, toStop); a.Task.Epoch != 1 {
			t.Errorf("the returned node is to stop %s", o)
		}
	}
	back.Report(reports(s, id, 2, succeeded)...)                                     // not its tasks
	second.Report(&pb.TaskReport{TaskId: id + ".e2.r0", Epoch: 1, State: succeeded}) // not its epoch
	s = read(t, c)
	wantEpoch(t, s, id, 2)
	wantHeld(t, s, id, 1, 2)
	wantHeld(t, s, id, 2, 2)

	ended := reports(s, id, 1, succeeded)
	back.Report(ended[0])
	s = read(t, c)
	wantEpoch(t, s, id, 2)
	wantHeld(t, s, id, 1, 1)
	ended[1].State = stopped
	back.Report(ended[1])
	s = read(t, c)
	wantEpoch(t, s, id, 2)
	wantHeld(t, s, id, 1, 0)
	wantHeld(t, s, id, 2, 2)
	for task := range s.JobTasks(id, 1) {
		if task.State != lost {
			t.Errorf("task %s is %v after the stale reports, want lost", task.Id, task.State)
		}
		back.AwaitForget(task.Id)
	}

	second.Report(reports(s, id, 2, succeeded)...)
	if v := view(t, c, id); v.Job.State != pb.JobState_JOB_STATE_SUCCEEDED || v.Job.Epoch != 2 {
		t.Errorf("the job is %v", v.Job)
	}
	wantEmptyLedger(t, c.WaitSame())
}

// reports makes the reports of all tasks of an attempt in one state.
func reports(s *state.State, job string, epoch uint64, as pb.TaskState) (out []*pb.TaskReport) {
	for task := range s.JobTasks(job, epoch) {
		out = append(out, cluster.Seen(task, as))
	}
	return out
}

func wantEpoch(t *testing.T, s *state.State, id string, epoch uint64) {
	t.Helper()
	if j := s.Job(id); j.State != pb.JobState_JOB_STATE_RUNNING || j.Epoch != epoch {
		t.Errorf("the job is %v in epoch %d, want running in epoch %d: %s", j.State, j.Epoch, epoch, j.Reason)
	}
	if err := state.Check(s); err != nil {
		t.Error(err)
	}
}

// wantHeld counts the devices that the tasks of an attempt hold.
func wantHeld(t *testing.T, s *state.State, id string, epoch uint64, want int) {
	t.Helper()
	held := 0
	for task := range s.JobTasks(id, epoch) {
		held += len(s.Allocation(task.Id).GetDevices())
	}
	if held != want {
		t.Errorf("epoch %d holds %d devices, want %d", epoch, held, want)
	}
}
