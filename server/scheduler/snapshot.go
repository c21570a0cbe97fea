package scheduler

import (
	"slices"
	"strings"

	"llmos/server/scheduler/fair"
	"llmos/server/scheduler/packing"
)

// Snapshot is everything a pass may know. Its slices are shared with the caller and with
// the plan, and nobody may modify them afterwards.
type Snapshot struct {
	NowMS        int64           // Unix milliseconds
	Nodes        []Node          // in any order; ties go to the lowest ID
	Pending      []Job           // in any order
	Running      []Running       // live attempts, in any order
	Queues       []Queue         // the queue tree, in any order; empty: no quotas, everyone equal
	Past         []Past          // decayed past usage by queue and user
	Reservations []Reservation   // advance reservations and maintenance windows, in any order
	Packing      *packing.Prices // what places are worth, learned by a Learner; nil: the terms of Weights score
	Sizes        []Size          // sizes that elastic jobs should have, pending or running, in any order
}

// Size is how many tasks of each role an elastic job should run with: a wish, which the pass
// fulfils when it places and nobody who waits wants the room. Package elastic finds them.
type Size struct {
	JobID  string
	Counts []int32 // by role
}

// NodeStatus says whether a node takes new work.
type NodeStatus int

// The node statuses. Only a ready node takes work.
const (
	NodeReady  NodeStatus = iota
	NodeSilent            // no session; it may come back
	NodeLost              // silent for so long that tasks were replaced
)

// Node is a host and what is free on it.
type Node struct {
	ID       string
	Name     string // for people
	Status   NodeStatus
	CPU      int64 // capacity, millicores
	CPUFree  int64
	Memory   int64 // capacity, bytes
	MemFree  int64
	PortMin  int32 // range of ports for tasks, inclusive; 0: none
	PortMax  int32
	Ports    []int32           // taken ones, ascending
	Devices  []Device          // in the order in which neighbours should be given out
	Labels   map[string]string // for topology domains and constraints
	Holdings []Holding         // what jobs hold here, for explanations

	Version  uint64  // grows when anything of the node changes; 0: unknown, it is always read anew
	Drained  bool    // by an operator, or unfit: no new work
	Unfit    bool    // its agent holds an error of its hardware against it; then it is drained too
	Holds    []Input // artifacts that lie here, by ID
	LinkRate float64 // measured bandwidth of its network in bytes per second; 0: unknown
}

// Input is an artifact that a job reads, or that a node holds.
type Input struct {
	ID    string
	Bytes int64
}

// Device is an accelerator and what is free of it.
type Device struct {
	ID        string
	Model     string
	Memory    int64 // capacity, bytes
	MemFree   int64
	ShareFree int32  // of 1,000
	Available bool   // healthy: takes new work
	NUMA      int32  // NUMA node; negative: unknown
	Island    string // devices of one island are joined by NVLink or its like; empty: unknown
	Profile   string // MIG profile of a slice; empty: a whole GPU
}

// Holding is what one job holds of a node.
type Holding struct {
	JobID string
	CPU   int64 // millicores
	Share int64 // thousandths of a device, summed
}

// Job is a pending job.
type Job struct {
	ID         string
	Priority   int32  // higher first
	Submit     uint64 // then by submit index
	Ordinal    uint32 // and order within it
	WaitedMS   int64  // since it was submitted
	Attempt    uint64 // epoch of the attempt that a placement would start; varies the ports
	Roles      []Role // ranks go through them in order
	Rendezvous bool   // rank 0 needs one port more

	Queue      string // leaf of the queue tree; empty: the tree is not used
	User       string
	Group      string  // ID of the array it belongs to; empty: none
	GroupMax   int32   // jobs of the group that may run at a time; 0: no bound
	LimitMS    int64   // run time in milliseconds after which it is stopped; 0: none
	Q50, Q90   int64   // predicted run time in milliseconds, quantiles; 0: unknown
	Index      float64 // orders jobs of equal priority under OrderIndex, lower first; positive
	DeadlineMS int64   // Unix milliseconds; 0: none
	NoPreempt  bool    // may not be stopped for another job once it runs, and so may not borrow

	Where       *Expr    // condition on nodes; nil: none
	Within      string   // required topology domain: "node", "rack", "zone" or another label; empty: none
	Prefer      string   // wished topology domain; empty: the smallest that holds the gang
	Spread      string   // required even spread of each role over this label, or "node"; empty: none
	Skew        int32    // tasks by which two domains may differ; at least 1 with Spread
	Near, Apart []string // names of jobs to share nodes with, or never to
	Avoid       []string // node IDs to use only when nothing else admits it
	Inputs      []Input  // artifacts it reads
	Reservation string   // advance reservation to run in; empty: none
	Claim       *Claim   // room kept for this attempt; nil: none
}

// Expr is a condition on a node: exactly one of its fields is set.
type Expr struct {
	All, Any []Expr
	Not      *Expr
	Match    *Match
}

// Match asks that a label of the node has one of the values; without values, that it is
// there. The keys "node" (name or ID) and "gpu_model" (any device) are always there; the
// caller adds others, such as "os", to the labels.
type Match struct {
	Key    string
	Values []string
}

// Claim is room kept for a pending job on nodes.
type Claim struct {
	Kind    ClaimKind
	UntilMS int64 // Unix milliseconds; it binds nobody afterwards
	Slots   []Slot
	Counts  []int32 // tasks of each role of the attempt it is for; nil: as the roles say
}

// ClaimKind says why room is kept.
type ClaimKind int

// The kinds of claims.
const (
	ClaimRepair  ClaimKind = iota + 1 // slots that survived the loss of a node
	ClaimPreempt                      // what the victims of a preemption release
	ClaimResize                       // what an elastic job runs on next
)

// Slot is what one task holds of a node, or what is kept there for one.
type Slot struct {
	NodeID  string
	CPU     int64 // millicores
	Memory  int64 // bytes
	Ports   int32 // how many
	Devices []Grant
}

// Running is a live attempt.
type Running struct {
	JobID        string
	Name         string // of the job, for affinity
	Queue, User  string
	Group        string
	Priority     int32
	Epoch        uint64
	Submit       uint64 // its job's place in the order
	Ordinal      uint32
	Slots        []Slot // by rank
	StartedMS    int64  // Unix milliseconds; when it was placed
	CheckpointMS int64  // Unix milliseconds of its newest checkpoint; 0: none known
	RestartMS    int64  // cost of a restart in milliseconds
	MinRunMS     int64  // it is not stopped for another job before it has run so long
	EndQ50       int64  // predicted end, Unix milliseconds, quantiles; 0: unknown
	EndQ90       int64
	Index        float64 // as Job.Index
	Preemptions  int32   // attempts ended for other jobs before
	NoPreempt    bool
	Ending       bool      // it is being stopped: its slots are free soon
	Counts       []int32   // tasks of each role; nil: not known
	Elastic      []Elastic // of its elastic roles; nil: none
	Reservation  string
	Job          *Job   // as it would be placed anew, by which it may grow; nil: it does not grow
	Claim        *Claim // room kept for its job's next attempt while this one is being ended; nil: none
}

// Elastic is an elastic role of a running job.
type Elastic struct {
	Role     int // index in the job's roles
	Min, Max int32
	Count    int32 // now
}

// Queue is a node of the queue tree; see fair.Queue.
type Queue = fair.Queue

// Limit bounds one resource of a queue; see fair.Limit.
type Limit = fair.Limit

// Past is decayed past usage; see fair.Past.
type Past = fair.Past

// Reservation sets nodes aside for a span of time.
type Reservation struct {
	Name           string
	Maintenance    bool     // nobody runs there
	StartMS, EndMS int64    // Unix milliseconds
	NodeIDs        []string // whole nodes; empty: Nodes or GPUs of those that Where admits are found
	Nodes, GPUs    int32
	Where          *Expr
	Queue          string // its jobs may use it; empty: those that name it
}

// Role is a group of equal tasks.
type Role struct {
	Name  string
	Count int32 // of an elastic role the most
	Min   int32 // an elastic role starts with at least so many; 0: with Count
	Task  Request
}

// Request is what one task asks for.
type Request struct {
	CPU       int64    // millicores
	Memory    int64    // bytes
	GPUs      int32    // devices
	Share     int32    // thousandths of each device; 0: whole devices
	GPUMemory int64    // bytes of each device; for whole devices a minimum size; for shares 0: in proportion
	Model     string   // empty: any
	Models    []string // any of these; nil: as Model says
	Profile   string   // MIG profile; empty: whole GPUs and shares of them
	NUMA      bool     // all devices on one NUMA node
	Ports     int32
}

// deviceWhole is the share of a whole device.
const deviceWhole = 1000

func (j *Job) world() int {
	n := 0
	for _, r := range j.Roles {
		n += int(r.Count)
	}
	return n
}

// byID gives the nodes in ascending order of ID.
func byID(nodes []Node) []Node {
	order := func(a, b Node) int { return strings.Compare(a.ID, b.ID) }
	sorted := true
	for i := 1; i < len(nodes) && sorted; i++ { // by index: the values are large
		sorted = nodes[i-1].ID <= nodes[i].ID
	}
	if sorted {
		return nodes
	}
	nodes = slices.Clone(nodes)
	slices.SortStableFunc(nodes, order)
	return nodes
}
