package scheduler

import (
	"fmt"
	"math/rand"
	"reflect"
	"testing"

	"pgregory.net/rapid"

	"llmos/server/scheduler/fair"
)

// TestUsageIsTheSum: however attempts come, go, change and change places, the sums are those
// of counting each one, and the tree that gets the sums admits what one does that gets each.
func TestUsageIsTheSum(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		random := rand.New(rand.NewSource(rapid.Int64().Draw(t, "seed")))
		var u usage
		var running []Running
		for range 6 {
			running = runOn(random, running)
			u.update(running)
			queues := []fair.Queue{{Name: "q0", Weight: 1, RunningMax: 4, UserShareMax: 3000, Limits: []fair.Limit{{Resource: "gpu", Nominal: 4000, Borrow: 2000, Lend: 1000}}},
				{Name: "q1", Weight: 1, Limits: []fair.Limit{{Resource: "gpu:A", Nominal: 2000, Borrow: -1, Lend: -1}}}}
			each, sums := fair.New(queues, nil, fair.Demand{Share: 16_000}), fair.New(queues, nil, fair.Demand{Share: 16_000})
			for i := range running {
				each.Start(each.Leaf(running[i].Queue), running[i].User, running[i].Demand())
			}
			u.book(sums)
			for range 20 {
				queue, user, d := fmt.Sprint("q", random.Intn(3)), fmt.Sprint("u", random.Intn(3)), fair.Demand{Share: 500 * random.Int63n(12)}
				a, b := each.Admits(each.Leaf(queue), user, d, false), sums.Admits(sums.Leaf(queue), user, d, false)
				if !reflect.DeepEqual(a, b) {
					t.Fatalf("one by one: %+v\nsums: %+v", a, b)
				}
			}
		}
	})
}

// runOn gives the attempts of a later snapshot.
func runOn(random *rand.Rand, running []Running) []Running {
	next := append([]Running(nil), running...)
	for range random.Intn(4) {
		if len(next) > 0 {
			at := random.Intn(len(next))
			next = append(next[:at:at], next[at+1:]...)
		}
	}
	for range random.Intn(5) {
		run := Running{JobID: fmt.Sprint("j", random.Intn(50)), Epoch: uint64(random.Intn(2)), Queue: fmt.Sprint("q", random.Intn(3)), User: fmt.Sprint("u", random.Intn(3))}
		for range random.Intn(3) {
			run.Slots = append(run.Slots, Slot{CPU: 1000, Devices: []Grant{{Share: 1000, Model: []string{"", "A", "B"}[random.Intn(3)]}}})
		}
		next = append(next, run)
	}
	if random.Intn(4) == 0 {
		random.Shuffle(len(next), func(i, j int) { next[i], next[j] = next[j], next[i] })
	}
	if len(next) > 0 && random.Intn(3) == 0 {
		next[0].User = "u0"
	}
	return next
}
