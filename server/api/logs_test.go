package api

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	"llmos/proto/client"
	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
)

const testNode = "n-000000000001"

// transcript gathers what a reader of logs got, by task.
type transcript struct {
	mu      sync.Mutex
	text    map[string]string
	order   []string // tasks by their first chunk
	changed chan struct{}
	done    chan error
}

func (r *rig) read(c *client.Client, req *pb.ReadLogsRequest) *transcript {
	tr := &transcript{text: make(map[string]string), changed: make(chan struct{}), done: make(chan error, 1)}
	ctx := testContext(r.t)
	go func() {
		tr.done <- c.ReadLogs(ctx, req, func(chunk *pb.LogChunk) error {
			tr.mu.Lock()
			defer tr.mu.Unlock()
			if want := fmt.Sprintf(".r%d", chunk.Rank); !strings.HasSuffix(chunk.TaskId, want) {
				return fmt.Errorf("chunk of %s is tagged with rank %d", chunk.TaskId, chunk.Rank)
			}
			if _, seen := tr.text[chunk.TaskId]; !seen {
				tr.order = append(tr.order, chunk.TaskId)
			}
			tr.text[chunk.TaskId] += string(chunk.Data)
			close(tr.changed)
			tr.changed = make(chan struct{})
			return nil
		})
	}()
	return tr
}

// await waits until the task's text is as wanted.
func (tr *transcript) await(t *testing.T, ctx context.Context, task, want string) {
	t.Helper()
	for {
		tr.mu.Lock()
		got, changed := tr.text[task], tr.changed
		tr.mu.Unlock()
		if got == want {
			return
		}
		select {
		case <-changed:
		case err := <-tr.done:
			tr.done <- err
			tr.mu.Lock()
			got = tr.text[task]
			tr.mu.Unlock()
			if got != want {
				t.Fatalf("%s: the reading ended with %v at %q, want %q", task, err, got, want)
			}
		case <-ctx.Done():
			t.Fatalf("%s: stays at %q, want %q", task, got, want)
		}
	}
}

// running has one job of two ranks that runs on one fake agent.
func running(t *testing.T) (r *rig, a *fakeAgent, c *client.Client, id string) {
	r = newRig(t)
	leader, follower := r.server("s-000000000001"), r.server("s-000000000002")
	a = r.agent(testNode)
	r.node(testNode, "a", a.addr, 0)
	id = r.submit("x", 2)
	r.place(id, testNode)
	r.reportAll(id, testNode, taskRunning)
	return r, a, r.client("jane", follower, leader), id
}

// TestLogsInTurn reads what there is, rank after rank.
func TestLogsInTurn(t *testing.T) {
	r, a, c, id := running(t)
	a.write(taskID(id, 1, 1), "one\n")
	a.write(taskID(id, 1, 0), "zero\n")
	tr := r.read(c, &pb.ReadLogsRequest{JobId: "x", Rank: allRanks})
	if err := <-tr.done; err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(tr.order, tr.text); got != fmt.Sprintf("[%s %[2]s] map[%[1]s:zero\n %[2]s:one\n]", taskID(id, 1, 0), taskID(id, 1, 1)) {
		t.Errorf("got %s", got)
	}
	one := r.read(c, &pb.ReadLogsRequest{JobId: id, Rank: 1, Offset: 2})
	if err := <-one.done; err != nil || one.text[taskID(id, 1, 1)] != "e\n" {
		t.Errorf("got %q, %v", one.text, err)
	}
}

// TestLogsFollow reads a job from before it is placed, through an agent that breaks its
// streams, a leader change and a restart of the gang, to its end.
func TestLogsFollow(t *testing.T) {
	r := newRig(t)
	leader, other := r.server("s-000000000001"), r.server("s-000000000002")
	a := r.agent(testNode)
	r.node(testNode, "a", a.addr, 0)
	id := r.submit("x", 2)
	tr := r.read(r.client("jane", other, leader), &pb.ReadLogsRequest{JobId: "x", Rank: allRanks, Follow: true})
	ctx := testContext(t)
	first := taskID(id, 1, 0)
	r.place(id, testNode)
	a.write(first, "step 1\n")
	tr.await(t, ctx, first, "step 1\n")
	r.reportAll(id, testNode, taskRunning)
	a.update(func() { a.cuts = 1 })
	a.write(first, "step 2\n")
	tr.await(t, ctx, first, "step 1\nstep 2\n")
	a.write(first, "step 3\n")
	tr.await(t, ctx, first, "step 1\nstep 2\nstep 3\n")

	r.setLeader(other.id)
	a.write(first, "step 4\n")
	tr.await(t, ctx, first, "step 1\nstep 2\nstep 3\nstep 4\n")

	// Rank 1 fails; the gang is placed again.
	a.end(first)
	a.write(taskID(id, 1, 1), "out of memory\n")
	a.end(taskID(id, 1, 1))
	r.report(id, testNode, 1, taskFailed, 1)
	r.report(id, testNode, 0, taskStopped, 0)
	tr.await(t, ctx, taskID(id, 1, 1), "out of memory\n")
	r.place(id, testNode)
	for rank := range 2 {
		task := taskID(id, 2, rank)
		a.write(task, "again\n")
		tr.await(t, ctx, task, "again\n")
		a.end(task)
	}
	r.reportAll(id, testNode, taskRunning)
	r.reportAll(id, testNode, taskSucceeded)
	if err := <-tr.done; err != nil {
		t.Error(err)
	}
	if got := tr.text[first]; got != "step 1\nstep 2\nstep 3\nstep 4\n" {
		t.Errorf("rank 0 of attempt 1 in all: %q", got)
	}
}

// TestLogsOfADeadNode gives the other ranks and then says what is missing.
func TestLogsOfADeadNode(t *testing.T) {
	for _, follow := range []bool{false, true} {
		r, a, c, id := running(t)
		b := r.agent("n-000000000002")
		r.node("n-000000000002", "b", b.addr, 0)
		two := r.submit("two", 2)
		rec := r.f.State().Job(two)
		r.must(&pb.Command{Op: &pb.Command_ApplyPlan{ApplyPlan: &pb.ApplyPlan{Gangs: []*pb.GangPlacement{{
			JobId: two, Epoch: rec.Epoch + 1, Tasks: []*pb.TaskPlacement{
				{NodeId: "n-000000000002", Ports: []int32{20001}}, {NodeId: testNode}},
		}}}}})
		a.write(taskID(two, 1, 1), "alive\n")
		a.end(taskID(two, 1, 1))
		b.stop()
		now := int64(1)
		for rank, node := range []string{"n-000000000002", testNode} {
			r.must(&pb.Command{Op: &pb.Command_ReportTasks{ReportTasks: &pb.ReportTasks{NodeId: node, Reports: []*pb.TaskReport{
				{TaskId: taskID(two, 1, rank), Epoch: 1, State: taskSucceeded, StartedMs: now, EndedMs: now}}}}})
		}
		tr := r.read(c, &pb.ReadLogsRequest{JobId: "two", Rank: allRanks, Follow: follow})
		err := <-tr.done
		wantKind(t, "a dead node", err, kindNotFound)
		if words := fault.From(err).Error(); !strings.Contains(words, "rank 0") || !strings.Contains(words, "node b") || !strings.Contains(words, "does not answer") {
			t.Errorf("follow %v: the fault says %q", follow, words)
		}
		if tr.text[taskID(two, 1, 1)] != "alive\n" {
			t.Errorf("follow %v: the other rank gave %q", follow, tr.text)
		}
		_ = id
	}
}

// TestLogsOfASilentAgent cuts off an agent that accepts the call and says nothing.
func TestLogsOfASilentAgent(t *testing.T) {
	r, a, c, id := running(t)
	a.update(func() { a.hung = true })
	tr := r.read(c, &pb.ReadLogsRequest{JobId: id, Rank: 0})
	wantKind(t, "a hung agent", <-tr.done, kindNotFound)
}

// TestLogsOfATaskThatNeverRan is no fault: there is nothing to show.
func TestLogsOfATaskThatNeverRan(t *testing.T) {
	r := newRig(t)
	server := r.server("s-000000000001")
	a := r.agent(testNode)
	r.node(testNode, "a", a.addr, 0)
	id := r.submit("x", 1)
	c := r.client("jane", server)
	for _, follow := range []bool{false, true} {
		if follow {
			r.place(id, testNode)
			r.report(id, testNode, 0, pb.TaskState_TASK_STATE_RUNNING, 0)
			a.end(taskID(id, 1, 0))
			r.report(id, testNode, 0, taskSucceeded, 0)
		}
		if err := <-r.read(c, &pb.ReadLogsRequest{JobId: id, Rank: allRanks, Follow: follow}).done; err != nil {
			t.Errorf("follow %v: %v", follow, err)
		}
	}
}

// TestLogsRefused says what is wrong with a request.
func TestLogsRefused(t *testing.T) {
	r, _, c, id := running(t)
	for name, x := range map[string]struct {
		req  *pb.ReadLogsRequest
		kind pb.ErrorKind
	}{
		"a rank too high":     {&pb.ReadLogsRequest{JobId: id, Rank: 2}, kindNotFound},
		"a negative rank":     {&pb.ReadLogsRequest{JobId: id, Rank: -2}, kindInvalid},
		"a negative offset":   {&pb.ReadLogsRequest{JobId: id, Offset: -1}, kindInvalid},
		"an offset for all":   {&pb.ReadLogsRequest{JobId: id, Rank: allRanks, Offset: 1}, kindInvalid},
		"an attempt to come":  {&pb.ReadLogsRequest{JobId: id, Epoch: 9}, kindNotFound},
		"a job that is not":   {&pb.ReadLogsRequest{JobId: "y"}, kindNotFound},
		"a job without a ID":  {&pb.ReadLogsRequest{}, kindInvalid},
		"more than one reads": {&pb.ReadLogsRequest{JobId: r.submit("wide", followMost+1), Rank: allRanks, Follow: true}, kindLimit},
	} {
		wantKind(t, name, <-r.read(c, x.req).done, x.kind)
	}
}
