package fsm

import (
	"bytes"
	"fmt"
	"testing"

	"llmos/fsm/state"
	pb "llmos/proto/llmos/v1"
)

// settled applies empty entries until nothing is unsettled, and gives how many it took. Half way
// the machine goes on from a snapshot.
func settled(t *testing.T, k *talk) (entries int) {
	t.Helper()
	for k.fsm.State().Unsettled() {
		if entries++; entries > 100 {
			t.Fatal("it never settles")
		}
		if entries == 2 {
			s, err := Read(bytes.NewReader(written(t, k.fsm.State())))
			if err != nil {
				t.Fatal(err)
			}
			k.fsm.Restore(s)
		}
		k.index++
		k.fsm.Apply(k.index, &pb.Entry{TimeMs: k.timeMS})
	}
	if err := state.Check(k.fsm.State()); err != nil {
		t.Error(err)
	}
	return entries
}

func countStates(s *state.State) map[pb.JobState]int {
	out := map[pb.JobState]int{}
	for j := range s.Jobs() {
		out[j.State]++
	}
	return out
}

// submitMany submits jobs in one entry.
func (k *talk) submitMany(n int, set func(i int) map[string]string) {
	e := &pb.Entry{TimeMs: k.timeMS}
	for i := range n {
		e.Commands = append(e.Commands, submitCommand(words{set: set(i)}))
	}
	k.index++
	k.fsm.Apply(k.index, e)
}

// TestLongChain: a chain of jobs that wait for each other is cancelled a bounded number an entry.
func TestLongChain(t *testing.T) {
	k := newTalk(t)
	const length = 3*settleMax + 10
	k.submitMany(length, func(i int) map[string]string {
		set := map[string]string{"generate": "x"}
		if i > 0 {
			set["after"] = fmt.Sprintf("x-%d", i)
		}
		return set
	})
	k.line("stop x-1")
	s := k.fsm.State()
	if got := countStates(s); got[pb.JobState_JOB_STATE_CANCELLED] != settleMax+1 || !s.Unsettled() {
		t.Errorf("after one entry: %v", got)
	}
	for range 3 { // what others have still to hear of is not forgotten
		k.timeMS++
		k.line("collect jobs=99999")
	}
	k.submitMany(1, func(int) map[string]string {
		return map[string]string{"generate": "y", "after": fmt.Sprintf("x-%d", length)}
	})
	entries := settled(t, k)
	if got := countStates(k.fsm.State()); got[pb.JobState_JOB_STATE_PENDING] != 0 {
		t.Errorf("after %d more entries: %v", entries, got)
	}
}

// TestManyWait: however many wait for one job, an entry tells a bounded number of them.
func TestManyWait(t *testing.T) {
	k := newTalk(t)
	const n = 2*settleMax + 500
	k.line("node n-a")
	k.line("submit first")
	k.submitMany(n, func(int) map[string]string { return map[string]string{"generate": "w", "after": "first"} })
	k.line("plan first-1 1 n-a")
	k.line("report n-a SUCCEEDED first-1.e1.r0")
	k.line("collect jobs=99999")
	if k.fsm.State().Job("first-1") == nil {
		t.Error("a job was forgotten before all had heard of its end")
	}
	if entries := settled(t, k); entries < 1 {
		t.Errorf("it took %d more entries", entries)
	}
	for j := range k.fsm.State().Jobs() {
		if len(j.BlockedBy) > 0 || j.Epoch == 0 && j.ReadyMs == 0 {
			t.Fatalf("%v still waits for another", j)
		}
	}
}

// TestLargeArray: an array of the largest size is made in one command, stopped a bounded number an
// entry, and forgotten with its copies.
func TestLargeArray(t *testing.T) {
	k := newTalk(t)
	k.submitMany(1, func(int) map[string]string {
		return map[string]string{"generate": "a", "array": fmt.Sprint(arrayCopiesMax)}
	})
	if n := k.fsm.State().QueueCount(state.DefaultQueue); n.Pending != arrayCopiesMax || n.Parents != 1 {
		t.Fatalf("%v", n)
	}
	k.index++
	k.fsm.Apply(k.index, &pb.Entry{TimeMs: k.timeMS, Commands: []*pb.Command{commands["stop"](nil, parseWords("stop a-1 reason=enough"))}})
	if entries := settled(t, k); entries != arrayCopiesMax/settleMax-1 {
		t.Errorf("it took %d more entries", entries)
	}
	j := k.fsm.State().Job("a-1")
	if j.State != pb.JobState_JOB_STATE_CANCELLED || j.CopiesFailed != arrayCopiesMax || j.Reason != "stopped: enough" {
		t.Errorf("%v", j)
	}
	for range arrayCopiesMax/collectLimit + 1 {
		k.index++
		k.fsm.Apply(k.index, &pb.Entry{TimeMs: k.timeMS, Commands: []*pb.Command{commands["collect"](nil, parseWords("collect jobs=99999"))}})
	}
	if n := k.fsm.State().JobCount(); n != 0 {
		t.Errorf("%d jobs are left", n)
	}
}

// TestArrayBounds: what an array would take of the state is bounded.
func TestArrayBounds(t *testing.T) {
	k := newTalk(t)
	submit := func(count int32, bytes, after int) string {
		c := submitCommand(words{set: map[string]string{"generate": "a", "array": fmt.Sprint(count)}})
		spec := c.GetSubmitJob().Spec
		spec.Roles[0].Command = []string{string(make([]byte, bytes))}
		for i := range after {
			spec.After = append(spec.After, &pb.Dependency{Job: fmt.Sprint("x", i)})
		}
		return k.apply([]*pb.Command{c})
	}
	if got := submit(10_000, 7000, 0); got != "INVALID array.count: the copies of the array would take 70300000 bytes, at most 67108864 "+
		"(hint: make the job's text shorter, or fewer copies)\n" {
		t.Error(got)
	}
	if got := submit(10_000, 1, 11); got != "INVALID after: 10000 copies that wait for 11 jobs each are too many "+
		"(hint: let one job wait for the others, and the array for that one)\n" {
		t.Error(got)
	}
	if got := submit(1, 1, dependenciesMax+1); got != "INVALID after: the job waits for 65 jobs, at most 64\n" {
		t.Error(got)
	}
}

// TestManyAttempts: a job may be resized any number of times, and a bounded number of its attempts
// is kept.
func TestManyAttempts(t *testing.T) {
	k := newTalk(t)
	k.line("node n-a")
	k.line("submit a min=1 count=2")
	apply := func(line string) {
		w := parseWords(line)
		k.index++
		if r := k.fsm.Apply(k.index, &pb.Entry{TimeMs: k.timeMS, Commands: []*pb.Command{commands[w.verb](k, w)}})[0]; r.Fault != nil {
			t.Fatal(r.Fault)
		}
	}
	const attempts = state.AttemptsKept + 10
	for n := 1; n <= attempts; n++ {
		apply(fmt.Sprintf("plan a-1 %d n-a counts=1", n))
		apply(fmt.Sprintf("plan evict a-1 %d RESIZE", n))
		apply(fmt.Sprintf("report n-a STOPPED a-1.e%d.r0", n))
	}
	s := k.fsm.State()
	kept := 0
	for range s.Attempts("a-1") {
		kept++
	}
	if j := s.Job("a-1"); j.Resizes != attempts || j.Epoch != attempts || kept != state.AttemptsKept {
		t.Errorf("%d attempts are kept of %v", kept, j)
	}
	if err := state.Check(s); err != nil {
		t.Error(err)
	}
}
