package scheduler

import (
	"slices"
	"strings"
)

// Snapshot is everything a pass may know. Its slices are shared with the caller and with
// the plan, and nobody may modify them afterwards.
type Snapshot struct {
	Nodes   []Node // in any order; ties go to the lowest ID
	Pending []Job  // in any order
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
}

// Device is an accelerator and what is free of it.
type Device struct {
	ID        string
	Model     string
	Memory    int64 // capacity, bytes
	MemFree   int64
	ShareFree int32 // of 1,000
	Available bool  // healthy: takes new work
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
}

// Role is a group of equal tasks.
type Role struct {
	Name  string
	Count int32
	Task  Request
}

// Request is what one task asks for.
type Request struct {
	CPU       int64  // millicores
	Memory    int64  // bytes
	GPUs      int32  // devices
	Share     int32  // thousandths of each device; 0: whole devices
	GPUMemory int64  // bytes of each device; for whole devices a minimum size; for shares 0: in proportion
	Model     string // empty: any
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
