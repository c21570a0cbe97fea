package main

import (
	"math/rand/v2"
	"strings"
	"testing"

	pb "llmos/proto/llmos/v1"
)

func wantSeen(t *testing.T, got []string, wants ...string) {
	t.Helper()
	all := strings.Join(got, "\n")
	for _, want := range wants {
		if !strings.Contains(all, want) {
			t.Errorf("not seen: %s\nin:\n%s", want, all)
		}
	}
	if len(got) != len(wants) {
		t.Errorf("%d violations seen, want %d:\n%s", len(got), len(wants), all)
	}
}

// TestJudgeSchedule: each promise of the scheduler broken in the evidence is seen.
func TestJudgeSchedule(t *testing.T) {
	const ok, failed = pb.JobState_JOB_STATE_SUCCEEDED, pb.JobState_JOB_STATE_FAILED
	jobs := map[string]*pb.JobView{}
	put := func(id string, state pb.JobState, change func(*pb.Job)) {
		j := &pb.Job{Id: id, State: state, Epoch: 1, Spec: &pb.JobSpec{}, StartedMs: 50, FinishedMs: 100}
		change(j)
		jobs[id] = &pb.JobView{Job: j}
	}
	after := func(on string, kind pb.DependencyKind, startMS int64) func(*pb.Job) {
		return func(j *pb.Job) {
			j.Spec.After, j.StartedMs = []*pb.Dependency{{Job: on, Kind: kind}}, startMS
		}
	}
	put("good", ok, func(j *pb.Job) { j.Epoch, j.Preemptions = 2, 1 })
	put("bad", failed, func(*pb.Job) {})
	put("kept", ok, func(j *pb.Job) { j.Claim = &pb.Claim{} })
	put("gone", ok, func(j *pb.Job) { j.Preemptions = 1 })
	put("array", ok, func(j *pb.Job) { j.Spec.Array, j.CopiesUnfinished = &pb.ArraySpec{Count: 2}, 1 })
	put("array_0", ok, func(j *pb.Job) { j.Parent, j.FinishedMs = "array", 120 })
	put("early", ok, after("good", pb.DependencyKind_DEPENDENCY_KIND_OK, 100))
	put("clock", ok, after("good", pb.DependencyKind_DEPENDENCY_KIND_ANY, 90))
	put("unmet", ok, after("bad", pb.DependencyKind_DEPENDENCY_KIND_OK, 100))
	put("fine", ok, after("bad", pb.DependencyKind_DEPENDENCY_KIND_FAILED, 100))
	lines := []line{{what: "start", job: "good"}, {what: "start", job: "early"}, {what: "end", job: "good"},
		{what: "start", job: "clock"}, {what: "start", job: "unmet"}, {what: "start", job: "fine"}}
	r := &report{}
	wantSeen(t, (&judge{}).schedule(jobs, lines, r), "kept has ended, and room is still kept", "gone was stopped 1 times",
		"array array ended with 1 copies unfinished", "array array ended before its copy array_0", "early started (line 2 of the diary) before good",
		"clock started 10 ms before good", "unmet ran (DEPENDENCY_KIND_OK) although bad is")
	if r.Preemptions != 2 || r.Dependents != 4 || r.Copies != 1 {
		t.Errorf("the report is %+v", r)
	}
	firm := &pb.JobView{Job: &pb.Job{Spec: &pb.JobSpec{NoPreempt: true}}, Events: []*pb.Event{
		{Kind: "job.preempted", Message: "attempt 1 is stopped because its node is drained or reserved"},
		{Kind: "job.preempted", Message: "attempt 2 is preempted by a higher priority"}}}
	wantSeen(t, spared("firm", firm), "firm must not be stopped for another job: attempt 2")
}

// TestObserver: what must never be seen is seen.
func TestObserver(t *testing.T) {
	array := &pb.JobView{Job: &pb.Job{Id: "a", Spec: &pb.JobSpec{Array: &pb.ArraySpec{Count: 9, Parallel: 1}}}}
	copied := &pb.JobView{Job: &pb.Job{Parent: "a", State: pb.JobState_JOB_STATE_RUNNING}}
	wantSeen(t, crowded([]*pb.JobView{array, copied}))
	wantSeen(t, crowded([]*pb.JobView{array, copied, copied}), "array a runs 2 copies at a time, 1 are allowed")
	held := func(milli int64) []*pb.QueueView {
		return []*pb.QueueView{{Queue: &pb.Queue{Name: "q", Limits: []*pb.QuotaLimit{{Resource: "gpu", Nominal: 2000, Borrow: 1000}}},
			Used: []*pb.QuotaLimit{{Resource: "gpu", Nominal: milli}}}}
	}
	wantSeen(t, beyondQuota(held(3000)))
	wantSeen(t, beyondQuota(held(3001)), "queue q holds 3001 of gpu: its quota is 2000 and it may borrow 1000")
}

// TestShapesFit: every job that is drawn can start when nothing else runs, so that a run that
// does not settle shows a defect of the product and not of the load.
func TestShapesFit(t *testing.T) {
	quota := map[string]int64{"": agents * gangMax * 1000}
	nominal := map[string]int64{"": agents * gangMax * 1000}
	for _, q := range queueTree(-1, 1) {
		quota[q.Name], nominal[q.Name] = q.Limits[0].Nominal+q.Limits[0].Borrow, q.Limits[0].Nominal
	}
	l := &load{self: "self", dir: "dir"}
	rng := rand.New(rand.NewPCG(1, 1))
	for range 2000 {
		spec := l.spec(rng, "before")
		least := spec.Roles[0].Count
		if m := spec.Roles[0].CountMin; m > 0 {
			least = m
		}
		need, bound := int64(least)*int64(spec.Roles[0].Resources.Gpus)*1000, quota[spec.Queue]
		if spec.NoPreempt {
			bound = nominal[spec.Queue]
		}
		if bound == 0 || need > bound {
			t.Fatalf("queue %q gives at most %d to a job that needs %d: %v", spec.Queue, bound, need, spec)
		}
	}
}
