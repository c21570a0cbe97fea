// Package scheduler decides which pending jobs start now, and on which devices. Schedule
// is a pure function of a Snapshot and a Policy: plain values in, a Plan out, and the same
// values always give the same plan.
//
// It does not know the state tables, the log, time or the agents, commits nothing and
// remembers nothing between two passes. server/controller makes the snapshot, proposes the
// plan and lives with its refusal; dry runs, simulations and benchmarks call Schedule alike.
//
// A pass (round.go) goes through the pending jobs by priority and fair share (order.go), as
// far as quotas admit them (quota.go), and places each gang whole or not at all (gang.go) on
// the nodes that admit its tasks (filter.go) and lose least by them (score.go). Equal requests
// share one ranked list of nodes (index.go). A job that does not fit stops others that may be
// stopped for it (preempt.go) and has what they release kept for it (claim.go); or it lets
// later ones pass, until it has waited Policy.HoldAfterMS: then room is kept free for it, from
// the time at which it can start as far as run times are predicted (profile.go, backfill.go),
// else from now on (hold.go). Nodes that are reserved for a time are closed to jobs that would
// run into it (reserve.go). explain.go and waits.go say why a job still waits.
package scheduler

// Policy holds what an operator may change. The zero value of a field means its default.
type Policy struct {
	Order           Order    // among jobs of equal priority
	Backfill        Backfill // what may pass a blocked job
	NoPreempt       bool     // no job is stopped for another one
	MinRunMS        int64    // no job is stopped for another one before; 60,000; negative: at any time
	RestartMS       int64    // assumed cost of a restart when a job does not say; 30,000
	ClaimMS         int64    // how long room is kept for a job that preempts; 120,000
	ReservationsMax int      // blocked jobs with a reservation; 1, 100 when conservative, none under OrderIndex with preemption; negative: none

	HoldAfterMS int64   // wait in milliseconds after which a blocked job's nodes are held for it; 30,000
	Holds       int     // blocked jobs that may hold nodes at a time; 1; negative: none
	GangsMax    int     // jobs placed in one plan; 256
	TasksMax    int     // tasks placed in one plan, but for a single larger gang; 8,192
	Weights     Weights // of the placement score; see DefaultWeights

	thorough bool // no search for victims is cut short; for tests
}

// Order is the order among pending jobs of equal priority.
type Order int

// The orders.
const (
	OrderFair  Order = iota // by fair share over the queue tree, then by submit
	OrderFIFO               // by submit alone
	OrderIndex              // by Job.Index, lower first; running jobs of more than twice the index are stopped for it
)

// Backfill says which jobs may pass a blocked one.
type Backfill int

// The ways to backfill.
const (
	BackfillEASY         Backfill = iota // those that do not delay the first blocked job
	BackfillConservative                 // those that delay no blocked job before them
	BackfillNone                         // none: strict order
)

// Defaults of Policy.
const (
	HoldAfterMSDefault = 30_000
	HoldsDefault       = 1
	GangsMaxDefault    = 256
	TasksMaxDefault    = 8192

	MinRunMSDefault  = 60_000
	RestartMSDefault = 30_000
	ClaimMSDefault   = 120_000

	ReservationsMaxEASY         = 1
	ReservationsMaxConservative = 100
)

func (p Policy) withDefaults() Policy {
	if p.HoldAfterMS == 0 {
		p.HoldAfterMS = HoldAfterMSDefault
	}
	if p.Holds == 0 {
		p.Holds = HoldsDefault
	}
	if p.GangsMax <= 0 {
		p.GangsMax = GangsMaxDefault
	}
	if p.TasksMax <= 0 {
		p.TasksMax = TasksMaxDefault
	}
	if p.MinRunMS == 0 {
		p.MinRunMS = MinRunMSDefault
	}
	if p.RestartMS <= 0 {
		p.RestartMS = RestartMSDefault
	}
	if p.ClaimMS <= 0 {
		p.ClaimMS = ClaimMSDefault
	}
	if p.ReservationsMax == 0 {
		switch {
		case p.Backfill == BackfillConservative:
			p.ReservationsMax = ReservationsMaxConservative
		case p.Order == OrderIndex && !p.NoPreempt: // whoever has waited long stops others: nothing needs to be kept
			p.ReservationsMax, p.Holds = -1, -1
		default:
			p.ReservationsMax = ReservationsMaxEASY
		}
	}
	if p.Weights == (Weights{}) {
		p.Weights = DefaultWeights()
	}
	return p
}

// Plan is the outcome of one pass. It is immutable, and Explain may be called from any
// goroutine. It keeps the snapshot it was made from.
type Plan struct {
	Placements []Placement // in the order in which they must be applied
	Waiting    []Waiting   // every other pending job, in scheduling order
	Truncated  bool        // a bound of the policy ended the pass; another one would place more
	Limited    bool        // a bound ended the search for victims; once this plan is applied, another pass may find some
	Evictions  []Eviction  // attempts to be ended; applied before the placements
	Claims     []NewClaim  // room to be kept; applied after the evictions

	policy   Policy
	nowMS    int64
	jobs     []Job   // by rank
	turn     []int32 // by index in jobs: when its turn came
	nodes    []Node
	running  []Running
	ratio    float64
	keeps    []*keep
	claimed  string        // ID of a job for which room is claimed; empty: none
	placed   map[int]bool  // by index in jobs
	blocks   map[int]block // by index in jobs: what other than the room is in the way
	snapshot Snapshot
	outlook  outlook
	left     leftRoom // what is free after the placements, holds aside; made when asked for
}

// Changes says whether the plan does anything.
func (p *Plan) Changes() bool { return len(p.Placements)+len(p.Evictions)+len(p.Claims) > 0 }

// Placement places one job's gang.
type Placement struct {
	JobID  string
	Tasks  []TaskPlacement // by rank
	Counts []int32         // tasks of each role; nil: as the roles say
	Reason string          // of the decision, one sentence without its full stop
}

// Eviction ends a live attempt whole.
type Eviction struct {
	JobID  string
	Epoch  uint64
	Kind   EvictionKind
	For    string // ID of the job it makes room for; empty: none
	Reason string // one sentence without its full stop
}

// EvictionKind says why an attempt is ended. The values are those of the wire.
type EvictionKind int

// The kinds of evictions.
const (
	EvictPriority EvictionKind = iota + 1 // for a job of higher priority
	EvictReclaim                          // a queue takes back what it had lent
	EvictResize                           // to run with another count of tasks
	EvictDrain                            // its node is drained or reserved
	EvictFair                             // its turn is over; another of equal priority is next
	EvictForecast                         // it would have run out of memory or disk
)

// NewClaim keeps room for a job; a nil Claim clears what was kept.
type NewClaim struct {
	JobID  string
	Claim  *Claim
	Reason string
}

// TaskPlacement places one task.
type TaskPlacement struct {
	NodeID  string
	Devices []Grant
	Ports   []int32 // the rendezvous port first when the task holds it
}

// Grant is a device, or a share of one, given to a task.
type Grant struct {
	DeviceID string
	Share    int32  // of 1,000
	Memory   int64  // bytes
	Model    string // of the device, where it is known
}

// Waiting is a job that was not placed.
type Waiting struct {
	JobID   string
	Held    []string // IDs of the nodes on which something is kept free for it
	StartMS int64    // expected start, Unix milliseconds; 0: unknown
}

// Schedule places what it can of the pending jobs. It modifies nothing of the snapshot,
// and the plan keeps references to it.
func Schedule(s Snapshot, policy Policy) *Plan { return new(Cache).Schedule(s, policy) }
