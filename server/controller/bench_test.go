package controller_test

import (
	"fmt"
	"testing"

	pb "llmos/proto/llmos/v1"
	"llmos/server/controller"
)

// crowd is a cluster of many registered and connected nodes, without a word to print.
func crowd(b *testing.B, nodes int) *rig {
	r := newRig(b)
	for i := range nodes {
		id := fmt.Sprintf("n-%05d", i)
		r.loop.Step(controller.SessionOpened{NodeID: id, Session: 1, Hello: &pb.Hello{Node: makeNode(id, 64, 8)}}, r.now)
	}
	quiet(r)
	return r
}

// quiet commits until nothing is in flight and counts the orders to run a task.
func quiet(r *rig) (orders int) {
	for {
		for _, effect := range r.loop.Ready() {
			switch e := effect.(type) {
			case controller.Propose:
				r.flight = append(r.flight, e)
			case controller.Send:
				orders += len(e.Message.GetDesired().GetAssignments())
			}
		}
		if len(r.flight) == 0 {
			return orders
		}
		flight := r.flight
		r.flight = nil
		for _, p := range flight {
			results := r.entry(p.Commands...)
			r.loop.Step(controller.StateChanged{State: r.log.State()}, r.now)
			r.loop.Step(controller.ProposalDone{ID: p.ID, Results: results}, r.now)
		}
	}
}

// BenchmarkSubmitToAssignment is the controller's and the state machine's whole part of
// one job: submit, plan, assignment, running, end, release.
func BenchmarkSubmitToAssignment(b *testing.B) {
	for _, nodes := range []int{3, 1000, 5000} {
		b.Run(fmt.Sprintf("%dnodes", nodes), func(b *testing.B) {
			r := crowd(b, nodes)
			seq := map[string]uint64{}
			i := 0
			for b.Loop() {
				i++
				name := fmt.Sprintf("job%d", i)
				r.apply(submit(b, []string{name, "gpus=1"}))
				if quiet(r) == 0 {
					b.Fatal("nothing was assigned")
				}
				id := name + "-1.e1.r0"
				node := r.log.State().Task(id).NodeId
				seq[node]++
				r.loop.Step(controller.ReportsArrived{NodeID: node, Session: 1, Seq: seq[node],
					Reports: []*pb.TaskReport{{TaskId: id, Epoch: 1, State: pb.TaskState_TASK_STATE_SUCCEEDED}}}, r.now)
				quiet(r)
			}
		})
	}
}

// BenchmarkUnchangedState is the cost of a Ready on a state in which nothing concerns the
// controller, with 5,000 nodes and 1,000 pending jobs.
func BenchmarkUnchangedState(b *testing.B) {
	r := crowd(b, 5000)
	for i := range 1000 {
		r.apply(submit(b, []string{fmt.Sprintf("job%d", i), "gpus=9"}))
	}
	quiet(r)
	for b.Loop() {
		r.entry()
		r.loop.Step(controller.StateChanged{State: r.log.State()}, r.now)
		quiet(r)
	}
}
