package controller_test

import (
	"fmt"
	"testing"
	"time"

	pb "llmos/proto/llmos/v1"
	"llmos/server/controller"
)

// busy is a cluster of 10,000 nodes with 5,000 running jobs and 10,000 that wait for more
// than any node has.
func busy(b *testing.B) *rig {
	r := crowd(b, 10_000)
	for i := range 5000 {
		r.entry(submit(b, []string{fmt.Sprintf("run%d", i), "gpus=8"}))
	}
	r.loop.Step(controller.StateChanged{State: r.log.State()}, r.now)
	quiet(r)
	for i := range 10_000 {
		r.entry(submit(b, []string{fmt.Sprintf("wait%d", i), "gpus=9"}))
	}
	r.loop.Step(controller.StateChanged{State: r.log.State()}, r.now)
	quiet(r)
	return r
}

// BenchmarkBusy is what the loop costs on a large cluster: on a state that says nothing new,
// on a tick without anything due, on a message of progress, on a change of one job with the
// pass that follows, and for questions. The first pass of a minute renews predictions.
func BenchmarkBusy(b *testing.B) {
	r := busy(b)
	b.Run("state", func(b *testing.B) {
		for b.Loop() {
			r.entry() // costs nothing beside the rest
			r.loop.Step(controller.StateChanged{State: r.log.State()}, r.now)
			r.loop.Ready()
		}
	})
	b.Run("tick", func(b *testing.B) {
		for b.Loop() {
			r.now += time.Microsecond
			r.loop.Tick(r.now)
			r.loop.Ready()
			r.loop.NextTick()
		}
	})
	b.Run("progress", func(b *testing.B) {
		st := r.log.State()
		node := st.Task("run7-8.e1.r0")
		if node == nil {
			for j := range st.UnfinishedJobs() {
				for k := range st.JobTasks(j.Id, j.Epoch) {
					node = k
				}
			}
		}
		step := int64(0)
		for b.Loop() {
			step++
			r.loop.Step(controller.ProgressArrived{NodeID: node.NodeId, Progress: []*pb.Progress{{TaskId: node.Id, Step: step, Steps: 1 << 40,
				TimeMs: step, Sample: &pb.Sample{TimeMs: step, MemoryBytes: 1 << 20}}}}, r.now)
			r.loop.Ready()
		}
	})
	b.Run("pass", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			r.entry(submit(b, []string{fmt.Sprintf("more%d", r.index), "gpus=9"}))
			st := r.log.State()
			b.StartTimer()
			r.loop.Step(controller.StateChanged{State: st}, r.now)
			r.loop.Ready()
		}
	})
	b.Run("pass-renewed", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			r.now += 2 * time.Minute
			r.entry(submit(b, []string{fmt.Sprintf("more%d", r.index), "gpus=9"}))
			st := r.log.State()
			b.StartTimer()
			r.loop.Step(controller.StateChanged{State: st}, r.now)
			r.loop.Ready()
		}
	})
	b.Run("explain", func(b *testing.B) {
		for b.Loop() {
			r.loop.Explain("wait77-" + "5079")
		}
	})
	b.Run("plan", func(b *testing.B) {
		spec := submit(b, []string{"x", "gpus=1"}).GetSubmitJob().Spec
		for b.Loop() {
			r.loop.PlanJob(spec, "someone")
		}
	})
}
