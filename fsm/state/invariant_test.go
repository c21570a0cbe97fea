package state

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	pb "llmos/proto/llmos/v1"
)

func must(t testing.TB, f *pb.Fault) {
	t.Helper()
	if f != nil {
		t.Fatal(f)
	}
}

// sample is a state with a waiting job, a running one with two tasks, one whose task is lost
// and fenced, and a finished one.
func sample(t testing.TB) *State {
	t.Helper()
	x := New().Begin(1, 1000)
	x.PutCluster(&pb.ClusterMeta{ClusterId: "c-1"})
	x.PutQueue(&pb.Queue{Name: DefaultQueue, Weight: 1})
	x.PutToken(&pb.JoinToken{Id: "t1", SecretSha256: []byte("hash"), Role: pb.MemberRole_MEMBER_ROLE_AGENT})
	node := &pb.Node{Id: "n-a", Name: "a", State: pb.NodeState_NODE_STATE_READY, CpuMilli: 8000, MemoryBytes: 100, PortMin: 20000, PortMax: 20009}
	for _, id := range []string{"g0", "g1", "g2"} {
		node.Devices = append(node.Devices, &pb.Device{Id: id, MemoryBytes: 80, Health: pb.DeviceHealth_DEVICE_HEALTH_OK})
	}
	must(t, x.PutNode(node))
	x.AddEvent(&pb.Event{Kind: "node.registered", NodeId: "n-a"})
	for _, name := range []string{"wait", "run", "lost", "done"} {
		id := JobID(name, x.NextInSequence(name))
		x.PutRequest(&pb.RequestRecord{RequestId: "r-" + name, JobId: id, TimeMs: 1000, Index: 1})
		must(t, x.PutJob(&pb.Job{Id: id, Spec: &pb.JobSpec{Name: name}, State: pb.JobState_JOB_STATE_PENDING, SubmitIndex: 1,
			SubmitOrdinal: x.NextSubmit(), SubmittedMs: 1000, RequestId: "r-" + name}))
		x.AddEvent(&pb.Event{Kind: "job.submitted", JobId: id})
	}
	placeSample(t, x, "run-1", "g0", 2, 20000, 20001)
	placeSample(t, x, "lost-1", "g1", 1, 20002)
	placeSample(t, x, "done-1", "g2", 1, 20003)
	endSample(t, x, "lost-1", pb.TaskState_TASK_STATE_LOST, pb.JobState_JOB_STATE_PENDING)
	endSample(t, x, "done-1", pb.TaskState_TASK_STATE_SUCCEEDED, pb.JobState_JOB_STATE_SUCCEEDED)
	x.Release(x.Task("done-1.e1.r0"))
	s := x.Commit()
	if err := Check(s); err != nil {
		t.Fatal(err)
	}
	return s
}

func placeSample(t testing.TB, x *Txn, jobID, device string, tasks int, ports ...int32) {
	t.Helper()
	must(t, x.PutAttempt(&pb.Attempt{JobId: jobID, Epoch: 1, State: pb.AttemptState_ATTEMPT_STATE_LIVE, WorldSize: int32(tasks)}))
	for rank := range int32(tasks) {
		task := &pb.Task{Id: TaskID(jobID, 1, rank), JobId: jobID, Epoch: 1, Rank: rank, NodeId: "n-a",
			State: pb.TaskState_TASK_STATE_ASSIGNED, Desired: pb.TaskDesired_TASK_DESIRED_RUN}
		must(t, x.PutTask(task))
		a := &pb.Allocation{TaskId: task.Id, JobId: jobID, Epoch: 1, NodeId: "n-a", CpuMilli: 1000, MemoryBytes: 10, Ports: ports[rank : rank+1],
			Devices: []*pb.DeviceGrant{{DeviceId: device, ShareMilli: 500, MemoryBytes: 40}}}
		must(t, x.Grant(task, a))
	}
	j := CopyJob(x.Job(jobID))
	j.State, j.Epoch = pb.JobState_JOB_STATE_RUNNING, 1
	must(t, x.PutJob(j))
}

func endSample(t testing.TB, x *Txn, jobID string, task pb.TaskState, job pb.JobState) {
	t.Helper()
	k := CopyTask(x.Task(TaskID(jobID, 1, 0)))
	k.State = task
	if task == pb.TaskState_TASK_STATE_LOST {
		k.Desired = pb.TaskDesired_TASK_DESIRED_STOP
	}
	must(t, x.PutTask(k))
	a := CopyAttempt(x.Attempt(jobID, 1))
	a.State, a.EndedMs = pb.AttemptState_ATTEMPT_STATE_ENDED, 1000
	must(t, x.PutAttempt(a))
	j := CopyJob(x.Job(jobID))
	j.State = job
	if JobFinished(job) {
		j.FinishedMs = 1000
	}
	must(t, x.PutJob(j))
}

// edited writes a changed record past every guard.
func edited[T proto.Message](table *editTable[T], key []byte, change func(T)) {
	rec := proto.CloneOf(table.rec(key))
	change(rec)
	table.putRec(key, rec)
}

// TestCheckNotices breaks every invariant, and demands that Check names it.
func TestCheckNotices(t *testing.T) {
	task := func(jobID string) []byte { return taskKey(jobID, 1, 0) }
	for _, c := range []struct {
		want   string
		damage func(*Txn)
	}{
		{"I1: node n-a has no account", func(x *Txn) { x.accounts.removeRec([]byte("n-a")) }},
		{"I1: node n-a has 9000 of 8000 millicores allocated", func(x *Txn) {
			edited(&x.accounts, []byte("n-a"), func(a *pb.NodeAccount) { a.CpuAllocated = 9000 })
		}},
		{"I1: node n-a has -1 of 100 bytes allocated", func(x *Txn) {
			edited(&x.accounts, []byte("n-a"), func(a *pb.NodeAccount) { a.MemoryAllocated = -1 })
		}},
		{"I1: the account of node n-a does not agree with the node", func(x *Txn) {
			edited(&x.accounts, []byte("n-a"), func(a *pb.NodeAccount) { a.Available = false })
		}},
		{"I2: device g0 of node n-a has 1001 of 1000 shares allocated", func(x *Txn) {
			edited(&x.accounts, []byte("n-a"), func(a *pb.NodeAccount) { a.Devices[0].ShareAllocated = 1001 })
		}},
		{"I2: device g0 of node n-a has 81 of 80 bytes allocated", func(x *Txn) {
			edited(&x.accounts, []byte("n-a"), func(a *pb.NodeAccount) { a.Devices[0].MemoryAllocated = 81 })
		}},
		{"I2: page g0 of node n-a is out of order", func(x *Txn) {
			edited(&x.accounts, []byte("n-a"), func(a *pb.NodeAccount) { a.Devices[0], a.Devices[1] = a.Devices[1], a.Devices[0] })
		}},
		{"I2: device g0 of node n-a is failed", func(x *Txn) {
			edited(&x.nodes, []byte("n-a"), func(n *pb.Node) { n.Devices[0].Health = pb.DeviceHealth_DEVICE_HEALTH_FAILED })
		}},
		{"I3: node n-a: allocations hold 3000 millicores", func(x *Txn) {
			edited(&x.accounts, []byte("n-a"), func(a *pb.NodeAccount) { a.CpuAllocated = 2000 })
		}},
		{"I3: device g1 of node n-a: allocations hold 500 thousandths", func(x *Txn) {
			edited(&x.accounts, []byte("n-a"), func(a *pb.NodeAccount) { a.Devices[1].ShareAllocated = 0 })
		}},
		{"I4: port 20000 of node n-a is held by", func(x *Txn) {
			edited(&x.allocations, task("lost-1"), func(a *pb.Allocation) { a.Ports[0] = 20000 })
		}},
		{"I4: port 20009 of node n-a is allocated to nobody", func(x *Txn) {
			edited(&x.accounts, []byte("n-a"), func(a *pb.NodeAccount) { a.PortsAllocated = append(a.PortsAllocated, 20009) })
		}},
		{"I5: live task run-1.e1.r0 holds no allocation", func(x *Txn) { x.Release(x.Task("run-1.e1.r0")) }},
		{"I5: task lost-1.e1.r0 is failed and holds an allocation", func(x *Txn) {
			edited(&x.tasks, task("lost-1"), func(k *pb.Task) { k.State = pb.TaskState_TASK_STATE_FAILED })
		}},
		{"I5: the allocation of task lost-1.e1.r0 is of job run-1", func(x *Txn) {
			edited(&x.allocations, task("lost-1"), func(a *pb.Allocation) { a.JobId = "run-1" })
		}},
		{"I6: device g0 of node n-a is held by [run-1.e1.r0 run-1.e1.r1]", func(x *Txn) {
			edited(&x.allocations, task("run-1"), func(a *pb.Allocation) { a.Devices[0].ShareMilli = 1000 })
		}},
		{"I7: job run-1 is at epoch 2, and its newest attempt is 1", func(x *Txn) {
			edited(&x.jobs, []byte("run-1"), func(j *pb.Job) { j.Epoch = 2 })
		}},
		{"I7: attempt 1 of job lost-1 is ending, and is not the newest", func(x *Txn) {
			edited(&x.jobs, []byte("lost-1"), func(j *pb.Job) { j.Epoch = 2 })
			edited(&x.attempts, attemptKey("lost-1", 1), func(a *pb.Attempt) { a.State = pb.AttemptState_ATTEMPT_STATE_ENDING })
		}},
		{"I8: job wait-1 is running", func(x *Txn) {
			edited(&x.jobs, []byte("wait-1"), func(j *pb.Job) { j.State = pb.JobState_JOB_STATE_RUNNING })
		}},
		{"I8: job run-1 is stopping, with stop_requested=false", func(x *Txn) {
			edited(&x.jobs, []byte("run-1"), func(j *pb.Job) { j.State = pb.JobState_JOB_STATE_STOPPING })
		}},
		{"I8: job wait-1 has 3 of 0 retries left", func(x *Txn) {
			edited(&x.jobs, []byte("wait-1"), func(j *pb.Job) { j.RetriesLeft = 3 })
		}},
		{"I9: task run-1.e1.r0 is stopped, and its attempt is live", func(x *Txn) {
			edited(&x.tasks, task("run-1"), func(k *pb.Task) { k.State = pb.TaskState_TASK_STATE_STOPPED })
		}},
		{"I9: task run-1.e1.r0 is asked to run, and its attempt is ending", func(x *Txn) {
			edited(&x.attempts, attemptKey("run-1", 1), func(a *pb.Attempt) { a.State = pb.AttemptState_ATTEMPT_STATE_ENDING })
		}},
		{"I9: attempt 1 of job run-1 is ended with 2 live tasks", func(x *Txn) {
			edited(&x.attempts, attemptKey("run-1", 1), func(a *pb.Attempt) { a.State = pb.AttemptState_ATTEMPT_STATE_ENDED })
		}},
		{"I9: attempt 1 of job run-1 has 1 tasks of 2", func(x *Txn) { x.tasks.removeRec(taskKey("run-1", 1, 1)) }},
		{"I10: job run-1 is failed, and its task run-1.e1.r0 holds an allocation", func(x *Txn) {
			edited(&x.jobs, []byte("run-1"), func(j *pb.Job) { j.State = pb.JobState_JOB_STATE_FAILED })
		}},
		{"I10: job done-1 is succeeded and has no time of its end", func(x *Txn) {
			edited(&x.jobs, []byte("done-1"), func(j *pb.Job) { j.FinishedMs = 0 })
		}},
		{"I11: index unfinished", func(x *Txn) { x.unfinished.remove(orderKey(x.Job("wait-1"))) }},
		{"I11: index tallies", func(x *Txn) { x.tallies.put(attemptKey("run-1", 1), tally{live: 1}) }},
		{"I11: index nodeTasks", func(x *Txn) { x.nodeTasks.remove(nodeTaskKey("n-a", task("lost-1"))) }},
		{"I11: index requestTimes", func(x *Txn) { x.requestTimes.put([]byte("later"), "r") }},
		{"I12: the state hash is", func(x *Txn) { x.hash.add(sum{1}) }},
		{"I13: job x-1 is called", func(x *Txn) {
			edited(&x.jobs, []byte("wait-1"), func(j *pb.Job) { j.Id = "x-1" })
		}},
		{"I13: job wait-1 has a number that is not below 1", func(x *Txn) {
			x.sequences.putRec([]byte("wait"), &pb.NameSequence{Name: "wait", Next: 1})
		}},
		{"I13: request r-wait of job wait-1 is not remembered", func(x *Txn) { x.ForgetRequest("r-wait") }},
		{"I14: job wait-1 was changed at index 99, and the state is at 2", func(x *Txn) {
			edited(&x.jobs, []byte("wait-1"), func(j *pb.Job) { j.ModifyIndex = 99 })
		}},
		{"I15: 65 events are kept of c", func(x *Txn) {
			for n := range uint32(EventsKept + 1) {
				e := &pb.Event{Index: 1, Ordinal: 1000 + n}
				x.diary.putRec(eventKey(e), e)
			}
		}},
		{`I16: token t1 was used by "n-b" at 0`, func(x *Txn) {
			edited(&x.tokens, []byte("t1"), func(k *pb.JoinToken) { k.UsedBy = "n-b" })
		}},
		{"I17: jobs wait-1 and run-1 are unfinished and have one name", func(x *Txn) {
			edited(&x.jobs, []byte("run-1"), func(j *pb.Job) { j.Spec.Name = "wait" })
			j := x.Job("run-1")
			x.unfinished.put(orderKey(j), j)
		}},
		{"I8: job wait-1 is scheduled", func(x *Txn) {
			edited(&x.jobs, []byte("wait-1"), func(j *pb.Job) { j.State = pb.JobState_JOB_STATE_SCHEDULED })
		}},
		{"I11: index queueCounts", func(x *Txn) { x.queueCounts.put([]byte("default"), QueueCount{Pending: 9}) }},
		{"I11: index dependents", func(x *Txn) { x.dependents.put(terminated("run-1", "wait-1"), "wait-1") }},
		{"I11: index unsettled", func(x *Txn) { x.leave(unsettledEnd, "done-1") }},
		{"I11: index claims", func(x *Txn) { x.claims.put([]byte("wait-1"), "wait-1") }},
		{"I18: room is kept for job run-1, which is running with its attempt live", func(x *Txn) {
			edited(&x.jobs, []byte("run-1"), func(j *pb.Job) { j.Claim = &pb.Claim{Kind: pb.ClaimKind_CLAIM_KIND_REPAIR, UntilMs: 9} })
		}},
		{`I18: room is kept for job wait-1 on node "n-x", which does not exist`, func(x *Txn) {
			edited(&x.jobs, []byte("wait-1"), func(j *pb.Job) {
				j.Claim = &pb.Claim{Kind: pb.ClaimKind_CLAIM_KIND_REPAIR, UntilMs: 9, Slots: []*pb.ClaimSlot{{NodeId: "n-x"}}}
			})
		}},
		{"I18: the room kept for job wait-1 is of kind 0, until 0", func(x *Txn) {
			edited(&x.jobs, []byte("wait-1"), func(j *pb.Job) { j.Claim = &pb.Claim{} })
		}},
		{`I19: queue a/b is below queue "a"`, func(x *Txn) { x.PutQueue(&pb.Queue{Name: "a/b", Parent: "a", Weight: 1}) }},
		{"I19: queue a has a weight of 0", func(x *Txn) { x.PutQueue(&pb.Queue{Name: "a"}) }},
		{"I19: queue a has 1 of gpu, and guarantees 2", func(x *Txn) {
			x.PutQueue(&pb.Queue{Name: "a", Weight: 1, Limits: []*pb.QuotaLimit{{Resource: "gpu", Nominal: 1}}})
			x.PutQueue(&pb.Queue{Name: "a/b", Parent: "a", Weight: 1})
			x.PutQueue(&pb.Queue{Name: "a/b/c", Parent: "a/b", Weight: 1, Limits: []*pb.QuotaLimit{{Resource: "gpu", Nominal: 2}}})
		}},
		{"I19: queue default has queues below it", func(x *Txn) { x.PutQueue(&pb.Queue{Name: "default/a", Parent: "default", Weight: 1}) }},
		{"I19: there is no queue default", func(x *Txn) { x.ForgetQueue("default") }},
		{"I19: queue x has unfinished jobs, and takes none", func(x *Txn) {
			edited(&x.jobs, []byte("wait-1"), func(j *pb.Job) { j.Spec.Queue = "x" })
			x.queueCounts.put([]byte("x"), QueueCount{Pending: 1})
		}},
		{"I20: job run-1 is running and waits for [wait-1]", func(x *Txn) {
			edited(&x.jobs, []byte("run-1"), func(j *pb.Job) { j.BlockedBy = []string{"wait-1"} })
		}},
		{`I20: job wait-1 waits for job "nobody-1", which does not exist`, func(x *Txn) {
			edited(&x.jobs, []byte("wait-1"), func(j *pb.Job) {
				j.BlockedBy, j.Spec.After = []string{"nobody-1"}, []*pb.Dependency{{Job: "nobody-1"}}
			})
		}},
		{`I21: job wait-1 is a copy of "run-1", which makes none`, func(x *Txn) {
			edited(&x.jobs, []byte("wait-1"), func(j *pb.Job) { j.Parent = "run-1" })
		}},
		{"I21: job wait-1 makes no copies, and has 3", func(x *Txn) {
			edited(&x.jobs, []byte("wait-1"), func(j *pb.Job) { j.Copies = 3 })
		}},
		{"I21: array wait-1 of 2 copies is running, and there are 0, 0 of them unfinished", func(x *Txn) {
			edited(&x.jobs, []byte("wait-1"), func(j *pb.Job) {
				j.State, j.Copies, j.CopiesUnfinished, j.Spec.Array = pb.JobState_JOB_STATE_RUNNING, 2, 0, &pb.ArraySpec{Count: 2}
			})
		}},
		{"I21: job wait-1 has 1 copies, 1 unfinished and 0 failed, and there are 0, 0 and 0", func(x *Txn) {
			edited(&x.jobs, []byte("wait-1"), func(j *pb.Job) {
				j.State, j.Copies, j.CopiesUnfinished, j.Spec.Cron = pb.JobState_JOB_STATE_SCHEDULED, 1, 1, &pb.CronSpec{}
			})
		}},
		{"I22: reservation v of 1 nodes and 0 devices is from 9 to 9", func(x *Txn) {
			x.PutReservation(&pb.Reservation{Name: "v", StartMs: 9, EndMs: 9, Nodes: 1})
		}},
		{"I22: reservation v is of nothing", func(x *Txn) { x.PutReservation(&pb.Reservation{Name: "v", StartMs: 8, EndMs: 9}) }},
		{`I22: reservation v is of node "n-x"`, func(x *Txn) {
			x.PutReservation(&pb.Reservation{Name: "v", StartMs: 8, EndMs: 9, NodeIds: []string{"n-x"}})
		}},
		{`I23: on day 7 "ann" used 1, 1 through queue q for 1 jobs`, func(x *Txn) { x.AddUsage(7, "q", "ann", 1, 1, 1) }},
		{"I23: job wait-1 used -1, ran 0 ms", func(x *Txn) {
			edited(&x.jobs, []byte("wait-1"), func(j *pb.Job) { j.GpuMilliMs = -1 })
		}},
		{"I23: job wait-1 avoids 17 nodes", func(x *Txn) {
			edited(&x.jobs, []byte("wait-1"), func(j *pb.Job) { j.Avoid = make([]*pb.AvoidedNode, AvoidedNodesMax+1) })
		}},
	} {
		s := sample(t)
		x := s.Begin(2, 1000)
		c.damage(x)
		err := Check(x.Commit())
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v\nwant %s", err, c.want)
		}
	}
}

// TestInvariantsAreNumbered: numbers count up and every one has a sentence and a broken case above.
func TestInvariantsAreNumbered(t *testing.T) {
	for i, text := range Invariants() {
		number, sentence, _ := strings.Cut(text, ": ")
		if number != invariants[i].name || len(sentence) < 20 {
			t.Errorf("%q", text)
		}
	}
}
