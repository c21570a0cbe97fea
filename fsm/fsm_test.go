package fsm

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"llmos/fsm/state"
	pb "llmos/proto/llmos/v1"
)

func closed(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}

// TestChanged: every committed entry and every restore wakes who waits, and by then the new
// state is there.
func TestChanged(t *testing.T) {
	k := newTalk(t)
	changed := k.fsm.Changed()
	if closed(changed) {
		t.Fatal("closed before anything changed")
	}
	k.line("submit a")
	if !closed(changed) || k.fsm.State().Job("a-1") == nil {
		t.Error("an entry did not wake")
	}
	changed = k.fsm.Changed()
	k.fsm.Restore(state.New())
	if !closed(changed) || k.fsm.State().Job("a-1") != nil {
		t.Error("a restore did not wake")
	}
}

// TestWatchJob: a job's watch wakes for its own changes, and no other's.
func TestWatchJob(t *testing.T) {
	k := newTalk(t)
	absent := k.fsm.State().WatchJob("a-1")
	k.line("node n-a gpus=g0")
	k.line("submit a count=2")
	if !closed(absent) {
		t.Error("the watch of a job to come did not wake")
	}
	k.line("submit b")
	for _, c := range []struct {
		line string
		wake bool
	}{
		{"plan a-1 1 n-a//20000 n-a", true}, {"report n-a RUNNING a-1.e1.r0", true}, {"report n-a RUNNING a-1.e1.r0", false},
		{"stop b", false}, {"submit c", false}, {"report n-a RUNNING a-1.e1.r1", true}, {"lose n-a a-1.e1.r1", true}, {"stop a-1", true},
		{"report n-a STOPPED a-1.e1.r0", true}, {"report n-a STOPPED a-1.e1.r1", true}, {"nodestate n-a SILENT", false}, {"collect jobs=99999", true},
	} {
		watch := k.fsm.State().WatchJob("a-1")
		k.line(c.line)
		if closed(watch) != c.wake {
			t.Errorf("%s: woke=%t", c.line, !c.wake)
		}
	}
	k.line("submit d")
	watch := k.fsm.State().WatchJob("d-1")
	k.fsm.Restore(state.New())
	if !closed(watch) {
		t.Error("a restore did not wake the watch of a job")
	}
}

// TestRestoreManyWatches: a restore wakes the watches of more jobs than the radix tree tracks one
// by one, and a state given to two machines does not tie them together.
func TestRestoreManyWatches(t *testing.T) {
	e := &pb.Entry{TimeMs: 1}
	for range 9000 {
		e.Commands = append(e.Commands, submitCommand(words{set: map[string]string{"generate": "g"}}))
	}
	f := New()
	f.Apply(1, e)
	s := f.State()
	other := New()
	other.Restore(s)
	for _, machine := range []*FSM{f, other} {
		first, last := machine.State().WatchJob("g-1"), machine.State().WatchJob("g-9000")
		machine.Apply(2, &pb.Entry{TimeMs: 2, Commands: []*pb.Command{commands["stop"](nil, parseWords("stop g-1"))}})
		if !closed(first) || closed(last) {
			t.Errorf("a stop woke the job %t and another one %t", closed(first), closed(last))
		}
		machine.Restore(s)
		if !closed(last) {
			t.Error("a restore did not wake")
		}
	}
}

// TestHashAt keeps the last HashRingLen indexes, and only those that were applied.
func TestHashAt(t *testing.T) {
	f := New()
	for i := range uint64(HashRingLen) {
		f.Apply(2*i+1, &pb.Entry{TimeMs: int64(i)})
	}
	for _, c := range []struct {
		index uint64
		known bool
	}{{2*HashRingLen - 1, true}, {2*HashRingLen - 2, false}, {HashRingLen + 1, true}, {HashRingLen - 1, false}, {1, false}, {9 * HashRingLen, false}} {
		if _, ok := f.HashAt(c.index); ok != c.known {
			t.Errorf("index %d: known=%t", c.index, ok)
		}
	}
	f.Restore(state.New())
	if _, ok := f.HashAt(2*HashRingLen - 1); ok {
		t.Error("a restore kept the hashes of before")
	}
}

// TestOrder: an entry that comes twice or late is never applied.
func TestOrder(t *testing.T) {
	f := New()
	f.Apply(5, &pb.Entry{TimeMs: 1})
	before := f.State()
	results := f.Apply(5, &pb.Entry{TimeMs: 1, Commands: []*pb.Command{submitCommand(parseWords("submit a"))}})
	if err := f.Diverged(); !errors.Is(err, ErrDiverged) || !strings.Contains(err.Error(), "entry 5 comes after entry 5") {
		t.Errorf("diverged: %v", err)
	}
	if f.State() != before || results[0].Fault.GetKind() != pb.ErrorKind_ERROR_KIND_INTERNAL {
		t.Errorf("it was applied: %v", results)
	}
}

// TestIsolation: a state that a reader holds stays as it was, whatever is applied later.
func TestIsolation(t *testing.T) {
	k := told(t, "gang")
	old := k.fsm.State()
	before := written(t, old)
	for _, line := range []string{"submit later", "plan later-1 1 n-a", "report n-a RUNNING later-1.e1.r0", "node n-a gpus=g1", "nodestate n-b SILENT", "collect jobs=99999"} {
		k.line(line)
	}
	if string(written(t, old)) != string(before) {
		t.Error("a later entry changed a state that was committed before")
	}
}

// TestLostAttemptsEnd: a job whose nodes never last fails in the end, without a retry spent.
func TestLostAttemptsEnd(t *testing.T) {
	k := newTalk(t)
	k.line("node n-a")
	k.line("submit a retries=3")
	for n := 1; n <= lostAttemptsMax; n++ {
		if got := k.line(fmt.Sprintf("plan a-1 %d n-a", n)); !strings.Contains(got, "placed") {
			t.Fatal(got)
		}
		if got := k.line(fmt.Sprintf("report n-a LOST a-1.e%d.r0", n)); got != "ok\n" {
			t.Fatal(got)
		}
	}
	j := k.fsm.State().Job("a-1")
	if j.State != pb.JobState_JOB_STATE_FAILED || j.RetriesLeft != 3 || j.Reason != "rank 0: the node lost the task; 100 attempts were lost with their nodes" {
		t.Errorf("%v", j)
	}
	tasks := 0
	for epoch := uint64(1); epoch <= j.Epoch; epoch++ {
		for range k.fsm.State().JobTasks("a-1", epoch) {
			tasks++
		}
	}
	if tasks != state.TaskEpochsKept {
		t.Errorf("%d attempts keep their tasks, want %d", tasks, state.TaskEpochsKept)
	}
	if n := len(k.fsm.State().JobEvents("a-1")); n != state.EventsKept {
		t.Errorf("%d events are kept, want %d", n, state.EventsKept)
	}
}

// TestLimits meets the bounds that a conversation is too short for.
func TestLimits(t *testing.T) {
	many := func(n int, make func(i int) *pb.Command) *pb.Entry {
		e := &pb.Entry{TimeMs: 1}
		for i := range n {
			e.Commands = append(e.Commands, make(i))
		}
		return e
	}
	for _, c := range []struct {
		name  string
		entry *pb.Entry
		want  string
	}{
		{"tokens", many(tokensMax+1, func(i int) *pb.Command {
			return commands["token"](nil, words{args: []string{fmt.Sprint("t", i)}, set: map[string]string{"role": "user", "expires": "99"}})
		}), "the cluster has 10000 join tokens already"},
		{"gangs", many(1, func(int) *pb.Command {
			return &pb.Command{Op: &pb.Command_ApplyPlan{ApplyPlan: &pb.ApplyPlan{Gangs: make([]*pb.GangPlacement, gangsMax+1)}}}
		}), "the plan has 10001 gangs, at most 10000"},
		{"spec", many(1, func(int) *pb.Command {
			s := submitCommand(parseWords("submit a"))
			s.GetSubmitJob().Spec.Roles[0].Command = []string{strings.Repeat("x", specBytesMax)}
			return s
		}), "the job is 1048603 bytes long, at most 1048576"},
	} {
		results := New().Apply(1, c.entry)
		if f := results[len(results)-1].Fault; f.GetMessage() != c.want {
			t.Errorf("%s: %v", c.name, f)
		}
	}
}

// TestTextIsBounded: text of any length from outside is cut between characters.
func TestTextIsBounded(t *testing.T) {
	for n := textBytesMax - 4; n < textBytesMax+4; n++ {
		text := strings.Repeat("x", n) + "é漢😀"
		got := cut(text)
		if len(got) > textBytesMax || !strings.HasPrefix(text, got) || len(got) < min(len(text), textBytesMax-3) {
			t.Errorf("%d bytes became %d", len(text), len(got))
		}
	}
	if got := cut("a\xffb"); got != "a?b" {
		t.Errorf("%q", got)
	}
}

// TestHalfDoneCommandIsUndone: a command that meets a defect after it has written leaves no
// trace. The state is one that no log makes: a job that waits while its attempt is live.
func TestHalfDoneCommandIsUndone(t *testing.T) {
	r := state.NewRestorer()
	for _, rec := range []*pb.SnapshotRecord{
		{Record: &pb.SnapshotRecord_Job{Job: &pb.Job{Id: "a-1", Spec: &pb.JobSpec{Name: "a"}, State: pb.JobState_JOB_STATE_PENDING, Epoch: 1}}},
		{Record: &pb.SnapshotRecord_Attempt{Attempt: &pb.Attempt{JobId: "a-1", Epoch: 1, State: pb.AttemptState_ATTEMPT_STATE_LIVE, WorldSize: 1}}},
		{Record: &pb.SnapshotRecord_Task{Task: &pb.Task{Id: "a-1.e1.r0", JobId: "a-1", Epoch: 1, NodeId: "n-a", State: pb.TaskState_TASK_STATE_RUNNING}}},
		{Record: &pb.SnapshotRecord_Node{Node: &pb.Node{Id: "n-a", Name: "a", State: pb.NodeState_NODE_STATE_READY}}},
	} {
		if err := r.Add(rec); err != nil {
			t.Fatal(err)
		}
	}
	f := New()
	f.Restore(r.Finish(1, 1))
	before := f.State()
	results := f.Apply(2, &pb.Entry{TimeMs: 2, Commands: []*pb.Command{
		commands["report"](nil, parseWords("report n-a SUCCEEDED a-1.e1.r0"))}})
	if got := results[0].Fault.GetMessage(); got != "job a-1 cannot go from pending to succeeded" {
		t.Errorf("the fault says %q", got)
	}
	if f.State().Hash() != before.Hash() || f.State().Task("a-1.e1.r0").State != pb.TaskState_TASK_STATE_RUNNING {
		t.Error("the command was left half done")
	}
}
