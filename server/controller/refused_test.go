package controller_test

import (
	"testing"
	"time"

	pb "llmos/proto/llmos/v1"
	"llmos/server/controller"
)

// TestRefusedStopsPause refuses every plan's evictions and every timer's commands, whatever
// they are, for ten seconds: the loop must not propose the same without end.
func TestRefusedStopsPause(t *testing.T) {
	for name, prepare := range map[string]string{
		"eviction": `submit_job{request_id:"r2" user:"u" spec{name:"urgent" priority:90 kind:JOB_KIND_BATCH roles{name:"w" count:1 command:"x" resources{gpus:2}}}}`,
		"drain":    `drain_node{node_id:"n-a" drain{since_ms:1700000000000 stop_at_ms:1700000000001 reason:"new disks"}}`,
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.do("hello n-a/1 gpus=2")
			r.do("settle")
			r.do("submit victim gpus=2")
			r.do("settle")
			r.do("report n-a/1 1 victim-1.e1.r0=RUNNING")
			r.do("settle")
			r.do("wait 10m")
			r.heard("n-a")
			r.do("settle")
			r.do("log " + prepare)
			proposals := 0
			for range 10 * 50 { // a commit takes 20 ms
				r.pass(20 * time.Millisecond)
				r.heard("n-a")
				r.flush()
				flight := r.flight
				r.flight = nil
				for _, p := range flight {
					proposals++
					results := r.entry() // the entry is applied, and what it asks for is refused
					for _, c := range p.Commands {
						results = append(results, refusal(c, r.index))
					}
					r.loop.Step(controller.StateChanged{State: r.log.State()}, r.now)
					r.loop.Step(controller.ProposalDone{ID: p.ID, Results: results}, r.now)
				}
			}
			if proposals == 0 || proposals > 20 {
				t.Errorf("%d proposals in ten seconds", proposals)
			}
		})
	}
}

func refusal(c *pb.Command, index uint64) *pb.Result {
	f := &pb.Fault{Kind: pb.ErrorKind_ERROR_KIND_CONFLICT, Message: "refused"}
	if c.GetApplyPlan() == nil {
		return &pb.Result{Index: index}
	}
	r := &pb.Result{Index: index}
	for range c.GetApplyPlan().Evictions {
		r.Evictions = append(r.Evictions, f)
	}
	return r
}

// TestPassesRest has a pass that took long: the next one waits as long, and is not forgotten.
func TestPassesRest(t *testing.T) {
	r := newRig(t)
	r.do("hello n-a/1 gpus=2")
	r.do("settle")
	r.do("submit one gpus=1")
	r.do("settle")
	r.loop.Passed()
	r.loop.Step(controller.PassTook{Took: 300 * time.Millisecond}, r.now)
	r.do("submit two gpus=1")
	if out := r.do("settle"); out != "" {
		t.Errorf("a pass ran at once:\n%s", out)
	}
	began := r.now
	at, ok := r.loop.NextTick()
	if !ok || at != began+300*time.Millisecond {
		t.Fatalf("the next tick is at %s, %v", at-began, ok)
	}
	r.pass(at - r.now)
	r.do("settle")
	placed := false
	for j := range r.log.State().UnfinishedJobs() {
		placed = placed || (j.Spec.Name == "two" && j.Epoch == 1)
	}
	if !placed {
		t.Error("the job was not placed after the rest")
	}
}
