package state

import (
	"fmt"
	"slices"
	"testing"

	pb "llmos/proto/llmos/v1"
)

// TestRollback: what is written after a savepoint leaves no trace in records, indexes or hash.
func TestRollback(t *testing.T) {
	s := sample(t)
	x := s.Begin(2, 2000)
	before := x.Savepoint()
	x.Release(x.Task("lost-1.e1.r0"))
	x.ForgetJob("done-1")
	x.NextSubmit()
	for n := range 3 * dirtyScanMax {
		x.AddEvent(&pb.Event{Message: fmt.Sprint(n)})
		x.PutQueue(&pb.Queue{Name: fmt.Sprint("q", n)})
	}
	x.Rollback(before)
	if x.NextSubmit() != 0 {
		t.Error("a submit was counted")
	}
	next := x.Commit()
	if next.Hash() != s.Hash() {
		t.Error("the hash differs")
	}
	if err := Check(next); err != nil {
		t.Error(err)
	}
	if got, want := len(slices.Collect(next.Records())), len(slices.Collect(s.Records())); got != want {
		t.Errorf("%d records, want %d", got, want)
	}
}

// TestHashIsOfTheRecords: the way to a state does not matter.
func TestHashIsOfTheRecords(t *testing.T) {
	token := func(id string) *pb.JoinToken { return &pb.JoinToken{Id: id} }
	x := New().Begin(1, 1)
	x.PutToken(token("a"))
	x.PutToken(token("b"))
	one := x.Commit()
	x = New().Begin(1, 1)
	x.PutToken(token("c"))
	x.PutToken(token("b"))
	x = x.Commit().Begin(2, 1)
	x.PutToken(token("a"))
	x.ForgetToken("c")
	two := x.Commit()
	if one.Hash() != two.Hash() || one.Hash() == New().Hash() {
		t.Errorf("%x and %x", one.Hash(), two.Hash())
	}
	x = two.Begin(3, 1)
	x.ForgetToken("a")
	x.ForgetToken("b")
	if x.Commit().Hash() != New().Hash() {
		t.Error("without records the hash is not that of the empty state")
	}
}

func TestTaskIDs(t *testing.T) {
	for _, id := range []string{"a-1.e1.r0", "x.e2-1.e18446744073709551615.r2147483647"} {
		if _, ok := taskIDKey(id); !ok {
			t.Errorf("%s is a task's ID", id)
		}
	}
	for _, id := range []string{"", "a-1", "a-1.e1", "a-1.r1", "a-1.e1.r", "a-1.e.r1", "a-1.e+1.r0", "a-1.e01.r0", "a-1.e1.r-1", "a-1.e1.r00",
		"a-1.e1.r2147483648", "a-1.e18446744073709551616.r0", "a-1.e1.r0 "} {
		if _, ok := taskIDKey(id); ok {
			t.Errorf("%q is no task's ID", id)
		}
	}
}

func TestValidID(t *testing.T) {
	for id, want := range map[string]bool{"a": true, "n-0123456789ab": true, "": false, "a b": false, "a\x00": false, "é": false, "\x7f": false,
		fmt.Sprintf("%0*d", IDBytesMax, 1): true, fmt.Sprintf("%0*d", IDBytesMax+1, 1): false} {
		if ValidID(id) != want {
			t.Errorf("%q: valid=%t", id, !want)
		}
	}
}

func TestReads(t *testing.T) {
	s := sample(t)
	if s.FindJob("run") != s.Job("run-1") || s.FindJob("run-1") == nil || s.FindJob("nobody") != nil || s.Task("nobody") != nil || s.Allocation("x") != nil {
		t.Error("jobs are found by name and ID")
	}
	var unfinished []string
	for j := range s.UnfinishedJobs() {
		unfinished = append(unfinished, j.Id)
	}
	if !slices.Equal(unfinished, []string{"wait-1", "run-1", "lost-1"}) || s.JobCount() != 4 {
		t.Errorf("unfinished: %v", unfinished)
	}
	for range s.Jobs() { // an early end of a walk is heard
		break
	}
	for range s.Records() {
		break
	}
	var held []string
	for k := range s.NodeTasks("n-a") {
		held = append(held, k.Id)
	}
	if !slices.Equal(held, []string{"lost-1.e1.r0", "run-1.e1.r0", "run-1.e1.r1"}) {
		t.Errorf("tasks of the node: %v", held)
	}
	if len(slices.Collect(s.Accounts())) != 1 || len(slices.Collect(s.Tokens())) != 1 || s.Token("t1") == nil || s.Request("r-run") == nil ||
		s.NodeByName("a") != s.Node("n-a") || s.NodeByName("b") != nil || s.Queue("default") == nil || len(slices.Collect(s.Queues())) != 1 {
		t.Error("a table is not read")
	}
	if len(s.NodeEvents("n-a")) != 1 || len(s.JobEvents("run-1")) != 1 || len(s.ClusterEvents()) != 0 {
		t.Error("events are read by what they are about")
	}
}
