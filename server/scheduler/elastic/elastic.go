// Package elastic decides how many GPUs each elastic job gets, on which nodes, and with
// which batch: the sizes at which the cluster completes work soonest, changed only where the
// change is worth its restart.
//
// It sees what jobs report of themselves: step times and synchronisation times of the sizes
// they ran with, their gradient noise if they measure it, their progress. It knows nothing
// of queues, quotas, devices' models, memory or processes: its caller hands it the nodes and
// the GPUs on them that elastic jobs may have, one call for each class of equal devices, and
// checks everything else. It is pure; the state it needs is in plain values that the caller
// keeps. server/scheduler, the controller and test/bench/elastic call it. DESIGN.md says why
// it is as it is.
package elastic

// Limits are what a job accepts.
type Limits struct {
	GPUsMin  int // fewest GPUs it runs on, at least 1
	GPUsMax  int // most; 0: no limit
	BatchMin int // samples; initial batch, in which progress is counted; 0: the batch is the job's own affair
	BatchMax int // samples; equal to BatchMin: the total batch is fixed
	LocalMin int // samples on one GPU at a time, fewest
	LocalMax int // and most: what its memory holds
}

// Noise is what a job reports of its gradients at its current batch: the squared norm of the
// expected gradient and the variance of a gradient over one initial batch (Pollux, OSDI'21,
// section 3.1). Both zero: unknown.
type Noise struct {
	Sqr float64
	Var float64
}

// Part is GPUs of one node.
type Part struct {
	Node string // identifier
	GPUs int
}

// Job is what is known of one elastic job at the time of a decision.
type Job struct {
	ID       string
	Weight   float64 // share of priority and queue; 1: ordinary; 0 counts as 1
	Limits   Limits
	Curve    *Curve  // speed by size, from its reports; never nil
	Done     float64 // progress, steps at the initial batch
	Left     float64 // steps still to do; see Remaining; below 0: unknown
	Widest   int     // most GPUs it ever ran on; 0: never ran
	RestartS float64 // what a restart costs, s
	SinceS   float64 // since what it has changed last, or it was submitted
	Rescued  bool    // what it has it got because it had waited too long; see Allocation
	Held     []Part  // what it has now, in rank order; nil: waits
}

// Node is a host and the GPUs on it that elastic jobs may have, those they hold included.
type Node struct {
	ID   string
	GPUs int
}

// Allocation is what one job is to have.
type Allocation struct {
	JobID   string
	Parts   []Part // in rank order; nil: nothing
	Split   Split  // the batch to run with; zero where the job has its own
	Changed bool   // differs from what the job holds: it restarts, or stops
	Rescued bool   // it waited longer than Policy.StarvedS, or is within its turn after that
}

func (j *Job) held() int {
	n := 0
	for _, p := range j.Held {
		n += p.GPUs
	}
	return n
}
