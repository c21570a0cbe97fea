package state

import (
	"fmt"
	"math"
	"slices"
	"testing"

	pb "llmos/proto/llmos/v1"
)

// TestUsage: days are read in order from any one, users may be called anything, and sums do not overflow.
func TestUsage(t *testing.T) {
	x := New().Begin(1, 9*DayMS)
	for _, day := range []int64{300, 2, 0, 299} {
		x.AddUsage(day, "q", "a\x00b", 1, 2, 3)
		x.AddUsage(day, "q", "a", 4, 5, 6)
	}
	x.AddUsage(300, "q", "a", math.MaxInt64, SatMul(math.MaxInt64/2, 3), 1)
	s := x.Commit()
	show := func(from int64) (out []string) {
		for u := range s.UsageDays(from) {
			out = append(out, fmt.Sprintf("%d %q %d %d %d", u.Day, u.User, u.GpuMilliMs, u.CpuMilliMs, u.Jobs))
		}
		return out
	}
	want := []string{`299 "a" 4 5 6`, `299 "a\x00b" 1 2 3`, `300 "a" 9223372036854775807 9223372036854775807 7`, `300 "a\x00b" 1 2 3`}
	if got := show(3); !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	if got := show(-1); len(got) != 8 {
		t.Errorf("%q", got)
	}
	for range s.UsageDays(0) { // an early end of a walk is heard
		break
	}
	x = s.Begin(2, 0)
	for _, u := range x.UsageBefore(299, 3) {
		x.ForgetUsage(u)
	}
	if x.UsageCount() != 5 || x.KnowsUsage(0, "q", "a") || !x.KnowsUsage(299, "q", "a") {
		t.Errorf("%d records are left", x.UsageCount())
	}
	if SatMul(1<<20, 1<<20) != 1<<40 || SatAdd(1, 2) != 3 {
		t.Error("small amounts are exact")
	}
}

// TestCopiesOfParents: copies are found by their parent and not by name, counted in their queue, and
// unsettled while a stop of their parent has not reached them; a restore finds the same.
func TestCopiesOfParents(t *testing.T) {
	x := New().Begin(1, 1000)
	x.NextInSequence("a")
	spec := &pb.JobSpec{Name: "a", Array: &pb.ArraySpec{Count: 2}}
	parent := &pb.Job{Id: "a-1", Spec: spec, State: pb.JobState_JOB_STATE_RUNNING, SubmitIndex: 1, SubmitOrdinal: x.NextSubmit(), Copies: 2, CopiesUnfinished: 2}
	must(t, x.PutJob(parent))
	for n := range int32(2) {
		must(t, x.PutJob(&pb.Job{Id: CopyID("a-1", n), Parent: "a-1", Spec: &pb.JobSpec{Name: "a"}, State: pb.JobState_JOB_STATE_PENDING,
			SubmitIndex: 1, SubmitOrdinal: x.NextSubmit(), ArrayIndex: n}))
	}
	s := x.Commit()
	if err := Check(s); err != nil {
		t.Fatal(err)
	}
	if s.FindJob("a").Id != "a-1" || s.Unsettled() || s.QueueCount(DefaultQueue) != (QueueCount{Pending: 2, Parents: 1}) || s.QueueCount(DefaultQueue).Unfinished() != 3 {
		t.Errorf("found %v; counted %v", s.FindJob("a"), s.QueueCount(DefaultQueue))
	}
	x = s.Begin(2, 2000)
	stopping := CopyJob(x.Job("a-1"))
	stopping.State, stopping.StopRequested = pb.JobState_JOB_STATE_STOPPING, true
	must(t, x.PutJob(stopping))
	s = x.Commit()
	r := NewRestorer()
	for rec := range s.Records() {
		if err := r.Add(rec); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range []*State{s, r.Finish(2, 2000)} {
		x := s.Begin(3, 3000)
		id, ended, ok := x.NextUnsettled()
		if id != "a-1" || ended || !ok || !s.Unsettled() || len(x.OpenCopies("a-1", -1)) != 2 {
			t.Errorf("unsettled is %s, ended=%t, %t", id, ended, ok)
		}
		for _, id := range x.OpenCopies("a-1", 9) {
			j := CopyJob(x.Job(id))
			j.State, j.StopRequested, j.FinishedMs = pb.JobState_JOB_STATE_CANCELLED, true, 3000
			must(t, x.PutJob(j))
		}
		if x.Commit().Unsettled() {
			t.Error("a stopped copy is still to be stopped")
		}
	}
}
