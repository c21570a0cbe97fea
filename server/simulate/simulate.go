// Package simulate replays a recorded workload on a cluster that does not exist, in virtual
// time: the real state machine (package fsm, without Raft) and the real control loop
// (package controller) decide, and scripted agents do what they are told. What it measures
// are therefore the decisions of the product, not those of a model of it.
//
// A job runs for as long as the trace says that its work takes, on any devices. One that is
// stopped for another job goes on from its last checkpoint and pays for the restart. Messages
// take no time, and nothing fails. It reads no files and no clock: server/trace reads, the
// caller draws. llmos simulate and make bench-philly call it.
package simulate

import (
	"fmt"
	"math/rand"
	"time"

	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
	"llmos/server/trace"
)

// Options says what is simulated. A zero field means its default.
type Options struct {
	Nodes  []trace.Node
	Jobs   []trace.Job // by submit time, as trace.Read gives them
	Policy string      // a name of Policies; "fair"
	Seed   int64       // breaks ties: the order of jobs that are submitted at one time

	Checkpoint time.Duration // work between two checkpoints of a job; 10 min; negative: none is lost by a stop
	Restart    time.Duration // from the start of a job that goes on to its first useful step; 30 s; negative: 0

	Progress func(finished, all int) // called now and then; nil: not
}

// Defaults and bounds of Options.
const (
	CheckpointDefault = 10 * time.Minute
	RestartDefault    = 30 * time.Second
	stallLimit        = 400 * 24 * time.Hour // of virtual time in which nothing runs and nothing comes
	roundsMax         = 100_000              // of the control loop at one instant
)

func (o Options) withDefaults() (Options, error) {
	if len(o.Nodes) == 0 {
		return o, fault.New(pb.ErrorKind_ERROR_KIND_INVALID, "the cluster has no nodes").Hint("give a list of nodes or a shape such as 64x8xH100-80GB").At("nodes", 0)
	}
	if len(o.Jobs) == 0 {
		return o, fault.New(pb.ErrorKind_ERROR_KIND_INVALID, "the trace has no jobs that ran").Hint("a history needs jobs with a start and an end").At("trace", 0)
	}
	if o.Policy == "" {
		o.Policy = PolicyDefault
	}
	if o.Checkpoint == 0 {
		o.Checkpoint = CheckpointDefault
	}
	if o.Restart == 0 {
		o.Restart = RestartDefault
	}
	o.Restart = max(0, o.Restart)
	if o.Progress == nil {
		o.Progress = func(int, int) {}
	}
	return o, nil
}

// Run simulates one policy. Errors are faults: of a policy that does not exist, of a
// cluster on which no job fits, and of a control loop that does not come to rest.
func Run(o Options) (*Result, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	config, err := policyConfig(o.Policy)
	if err != nil {
		return nil, err
	}
	w, err := newWorld(o, config)
	if err != nil {
		return nil, err
	}
	if err := w.run(); err != nil {
		return nil, fmt.Errorf("simulate policy %s: %w", o.Policy, err)
	}
	return w.result(), nil
}

// shuffleTies changes the order of jobs that are submitted at the same time.
func shuffleTies(jobs []trace.Job, seed int64) []trace.Job {
	out := append([]trace.Job(nil), jobs...)
	random := rand.New(rand.NewSource(seed))
	for from := 0; from < len(out); {
		to := from + 1
		for to < len(out) && out[to].Submit == out[from].Submit {
			to++
		}
		if same := out[from:to]; seed != 0 && len(same) > 1 {
			random.Shuffle(len(same), func(a, b int) { same[a], same[b] = same[b], same[a] })
		}
		from = to
	}
	return out
}
