package controller_test

import (
	"fmt"
	"math/rand"
	"testing"

	"llmos/fsm/state"
)

// TestPromises runs small clusters under faults, then lets the faults stop. All the while
// no task is started twice, no device is held by two running tasks, and the state's
// invariants hold; afterwards every job comes to an end and the ledger to zero.
func TestPromises(t *testing.T) {
	seeds := 25
	if testing.Short() {
		seeds = 10
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { runWorld(t, int64(seed)) })
	}
}

func runWorld(t *testing.T, seed int64) {
	w := &world{rig: newRig(t), random: rand.New(rand.NewSource(seed)), started: map[string]bool{}}
	for i := range 3 {
		w.agents = append(w.agents, &fakeAgent{node: fmt.Sprintf("n-%d", i), tasks: map[string]*fakeTask{}})
	}
	submits := 0
	for i := range 4000 {
		if i%200 == 0 {
			submits++
			w.apply(submit(t, []string{fmt.Sprintf("job%d", submits), fmt.Sprintf("count=%d", 1+w.random.Intn(3)),
				fmt.Sprintf("gpus=%d", w.random.Intn(3)), "retries=100", "lost=10000"}))
		}
		w.step()
		if i%50 == 0 {
			if err := state.Check(w.log.State()); err != nil {
				t.Fatalf("step %d: %v", i, err)
			}
			if err := w.loop.CheckSweep(); err != nil {
				t.Fatalf("step %d: %v", i, err)
			}
		}
	}
	w.calm = true
	for i := 0; w.unfinished() || !w.released(); i++ {
		w.step()
		if i > 60_000 {
			t.Fatalf("the cluster does not come to rest:\n%s%s", show(w.log.State()), w.describe())
		}
	}
	if err := state.Check(w.log.State()); err != nil {
		t.Fatal(err)
	}
	if len(w.started) == 0 {
		t.Fatal("nothing ever started")
	}
}

func (w *world) unfinished() bool {
	for range w.log.State().UnfinishedJobs() {
		return true
	}
	return false
}

// released says whether the ledger holds nothing and every agent has been told to forget.
func (w *world) released() bool {
	for range w.log.State().Allocations() {
		return false
	}
	for _, a := range w.agents {
		if len(a.tasks) > 0 {
			return false
		}
	}
	return true
}

func (w *world) describe() string {
	out := fmt.Sprintf("in flight: %d, now %s\n", len(w.flight), w.now)
	for _, a := range w.agents {
		out += fmt.Sprintf("agent %s session %d inbox %d outbox %d unacked %d:", a.node, a.session, len(a.inbox), len(a.outbox), len(a.unacked))
		for id, task := range a.tasks {
			out += fmt.Sprintf(" %s=%s", id, shortState(task.state))
		}
		out += "\n"
	}
	return out
}
