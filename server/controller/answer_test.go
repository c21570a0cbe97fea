package controller_test

import (
	"fmt"
	"testing"

	pb "llmos/proto/llmos/v1"
)

// TestDryRunSeesNewestState asks between a state and Ready, as a user does right after a submit.
func TestDryRunSeesNewestState(t *testing.T) {
	r := newRig(t)
	r.do("hello n-a/1 gpus=1")
	r.do("settle")
	r.apply(submit(t, []string{"first", "gpus=1"}))
	if answer := r.loop.PlanJob(submit(t, []string{"second", "gpus=1"}).GetSubmitJob().Spec, "someone"); answer.StartsNow {
		t.Error("the job would start before the one that was submitted before it")
	}
}

// TestDryRunBeside runs dry runs on other goroutines while the loop goes on; the race
// detector says whether they share anything that changes.
func TestDryRunBeside(t *testing.T) {
	r := newRig(t)
	for i := range 4 {
		r.do(fmt.Sprintf("hello n-%d/1 gpus=2", i))
	}
	r.do("settle")
	done := make(chan *pb.PlanJobResponse)
	spec := submit(t, []string{"x", "gpus=2"}).GetSubmitJob().Spec
	const rounds = 20
	for i := range rounds {
		run := r.loop.DryRun(spec, "someone")
		go func() { done <- run() }()
		r.do(fmt.Sprintf("submit job%d gpus=2", i))
		r.do("settle")
	}
	started := 0
	for range rounds {
		if answer := <-done; answer.StartsNow {
			started++
		} else if answer.Explanation.GetReason() == "" {
			t.Error("no start and no reason")
		}
	}
	if started == 0 {
		t.Error("nothing would have started")
	}
}
