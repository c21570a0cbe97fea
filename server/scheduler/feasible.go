package scheduler

import (
	"fmt"
	"strings"
)

// Cause is the kind of a Reason.
type Cause int

// The causes, the gravest first.
const (
	CauseNone       Cause = iota // nothing is in the way
	CauseNeverFits               // asks more than the registered nodes could ever give
	CauseNoModel                 // asks a GPU model that no node has
	CauseNoNodes                 // no node has joined
	CauseNotReady                // would fit, but nodes are silent or devices unhealthy
	CauseCapacity                // waits for devices, CPU, memory or ports that jobs hold
	CauseFragmented              // enough is free, but not together
	CauseCPU                     // devices are free, CPU beside them is not
	CauseMemory                  // devices are free, memory beside them is not
	CausePorts                   // no ports are left
	CauseBehind                  // what it needs is kept free for a job before it
	CauseNextPass                // a bound ended the pass before its turn
	CauseQuota                   // a quota or a limit of its queue or user is used up
	CauseArray                   // as many jobs of its array run as may
	CauseVictims                 // jobs are being stopped for it
	CauseRepair                  // it lost a node, and waits for a replacement
	CauseReserved                // nodes are reserved, and it may run into that time
	CauseConstraint              // what it asks of its nodes is met by none, or by none with room
)

var causeNames = [...]string{"none", "never-fits", "no-model", "no-nodes", "not-ready", "capacity", "fragmented",
	"cpu", "memory", "ports", "behind", "next-pass",
	"quota", "array", "victims", "repair", "reserved", "constraint"}

func (c Cause) String() string { return causeNames[c] }

// Reason says why a job waits: one dominant reason as a sentence without its full stop,
// what would change it, and what else is worth knowing. The zero value: nothing is wrong.
type Reason struct {
	Cause   Cause
	Text    string
	Remedy  string
	Field   string // of the job file that is in the way, such as placement.where; empty: none in particular
	Details []string
}

// Feasible says whether the nodes, empty, ready and healthy, could ever hold the job. The
// zero Reason means that nothing proves the contrary; CauseNeverFits, CauseNoModel and
// CauseConstraint mean that the job waits for ever unless nodes join; CauseNoNodes that there is nothing to
// compare it with yet. It reads only the capacities.
func Feasible(job Job, nodes []Node) Reason {
	if len(nodes) == 0 {
		return noNodes()
	}
	return feasibleOn(&job, byID(nodes))
}

func noNodes() Reason {
	return Reason{Cause: CauseNoNodes, Text: "no node has joined the cluster",
		Remedy: "start an agent on a host: llmos agent --join ADDRESS --token TOKEN"}
}

// feasible looks for a proof that the room, which holds capacities, cannot hold the job.
func (r *room) feasible(job *Job) Reason {
	groups := r.groupsOf(job, leastCounts(job))
	for i := range groups {
		role := &job.Roles[i]
		if reason := r.neverOne(job, role, &groups[i].shape); reason.Cause != CauseNone {
			return reason
		}
		if reason := r.neverAll(job, role, &groups[i]); reason.Cause != CauseNone {
			return reason
		}
	}
	return r.neverTogether(groups)
}

// subject opens a sentence about one task of a role.
func subject(job *Job, role *Role) string {
	s := "asks"
	if role.Count > 1 {
		s = "each task asks"
	}
	if len(job.Roles) > 1 {
		s = "role " + role.Name + ": " + s
	}
	return s
}

// neverOne proves that no node can hold a single task.
func (r *room) neverOne(job *Job, role *Role, s *shape) Reason {
	var admitted [4]bool // by predicate: some node admits the task as far as this one goes
	for node := range r.nodes {
		if r.fit(node, s) > 0 {
			return Reason{}
		}
		for i := range predicates {
			if !admitted[i] {
				admitted[i] = predicates[i].admits(r, node, s) > 0
			}
		}
	}
	for i := range predicates {
		if admitted[i] {
			continue
		}
		if i == byDevices {
			return r.neverDevices(job, role, s)
		}
		q := quantities[i]
		largest, total := r.extent(q)
		return never(fmt.Sprintf("%s %s; the largest node has %s, the cluster %s", subject(job, role), q.words(q.ask(s)), q.words(largest), q.words(total)),
			"ask less of one task, and spread the work over more tasks")
	}
	return never(fmt.Sprintf("%s %s together; no node has all of it", subject(job, role), r.allOf(role, s)),
		"ask less beside what is scarce; llmos nodes shows what each node has")
}

func never(text, remedy string) Reason {
	return Reason{Cause: CauseNeverFits, Text: text, Remedy: remedy}
}

// allOf names everything that a task asks.
func (r *room) allOf(role *Role, s *shape) string {
	text := ""
	if s.gpus > 0 {
		text = devicesAsked(role) + ", "
	}
	return text + cpus(s.cpu) + " and " + bytes(s.memory) + " of memory"
}

// devicesAsked names the devices of one task.
func devicesAsked(role *Role) string {
	t := &role.Task
	switch {
	case t.Share > 0 && t.Share < deviceWhole && t.GPUs == 1:
		return decimal(int64(t.Share)) + " of a " + modelWord(t.wanted())
	case t.Share > 0 && t.Share < deviceWhole:
		return decimal(int64(t.Share)) + " of " + gpus(int64(t.GPUs), t.wanted())
	}
	return gpus(int64(t.GPUs), t.wanted())
}

// wanted names the devices that suit a task: a model, several, or a MIG profile; empty: any.
func (t *Request) wanted() string {
	switch {
	case t.Profile != "":
		return "MIG " + t.Profile
	case t.Models != nil:
		return strings.Join(t.Models, " or ")
	}
	return t.Model
}

func modelWord(model string) string {
	if model == "" {
		return "GPU"
	}
	return model + " GPU"
}

func (r *room) neverDevices(job *Job, role *Role, s *shape) Reason {
	whose := subject(job, role)
	largest, total := r.devicesMax(s)
	switch {
	case len(r.models) == 0:
		return never(fmt.Sprintf("%s %s; no node has any", whose, devicesAsked(role)),
			"add a node with GPUs, or ask for none")
	case s.model == noModel:
		return Reason{Cause: CauseNoModel, Text: fmt.Sprintf("%s %s; no node has that model, the cluster has %s", whose, devicesAsked(role), r.inventory()),
			Remedy: "ask for one of the models that llmos nodes shows, or leave gpu_model out"}
	case total == 0 && role.Task.Profile != "":
		return never(fmt.Sprintf("%s %s; no node has a slice of that profile", whose, devicesAsked(role)),
			"ask for a profile that llmos nodes shows, or for a share of a GPU instead")
	case s.numa && largest >= int64(s.gpus):
		return never(fmt.Sprintf("%s %s on one NUMA node; no NUMA node has so many", whose, devicesAsked(role)),
			"ask for fewer a task, or leave numa out")
	case total == 0:
		return never(fmt.Sprintf("%s %s of GPU memory on a device; the largest has %s", whose, bytes(s.gpuMemory), bytes(r.deviceMemoryMax(s.model))),
			"ask for less gpu_memory, or for another gpu_model")
	}
	return never(fmt.Sprintf("%s %s; the largest node has %d, the cluster %d", whose, devicesAsked(role), largest, total),
		fmt.Sprintf("ask for at most %d a task, and spread the work over more tasks", largest))
}

// devicesMax counts the devices that suit the shape: most on one node, and in all.
func (r *room) devicesMax(s *shape) (largest, total int64) {
	for node := range r.nodes {
		var here int64
		for _, d := range r.devicesOf(node) {
			if d.suits(s) {
				here++
			}
		}
		largest, total = max(largest, here), total+here
	}
	return largest, total
}

func (r *room) deviceMemoryMax(model int16) int64 {
	var most int64
	for _, k := range r.kinds {
		if model == anyModel || k.model == model {
			most = max(most, k.memory)
		}
	}
	return most
}

// inventory lists the models with their counts.
func (r *room) inventory() string {
	counts := make([]int64, len(r.models))
	for i := range r.devices {
		if k := r.devices[i].kind; k < 0 || r.kinds[k].profile == "" {
			counts[r.devices[i].model]++
		}
	}
	var parts []string
	for i, name := range r.models {
		parts = append(parts, fmt.Sprintf("%d %s", counts[i], name))
	}
	return listed(parts, 5)
}

// neverAll proves that the nodes cannot hold all tasks of one role at once.
func (r *room) neverAll(job *Job, role *Role, g *group) Reason {
	fits := r.fitsUpTo(&g.shape, int64(g.count))
	if fits >= int64(g.count) {
		return Reason{}
	}
	prefix := ""
	if len(job.Roles) > 1 {
		prefix = "role " + role.Name + ": "
	}
	s := &g.shape
	if _, total := r.devicesMax(s); s.gpus > 0 && s.share == 0 && total < int64(g.count)*int64(s.gpus) {
		all := int64(g.count) * int64(s.gpus)
		return never(fmt.Sprintf("%sasks %s in all, %d tasks of %d; the cluster has %d", prefix, gpus(all, role.Task.wanted()), g.count, s.gpus, total),
			fmt.Sprintf("ask for fewer tasks, or add nodes with %s", gpus(all-total, role.Task.wanted())))
	}
	return never(fmt.Sprintf("%sasks %d tasks of %s at once; the cluster's nodes hold at most %d", prefix, g.count, r.allOf(role, s), fits),
		"ask for fewer or smaller tasks, or add nodes")
}

// fitsUpTo counts the tasks of a shape that the nodes admit, and may stop at enough.
func (r *room) fitsUpTo(s *shape, enough int64) int64 {
	var fits int64
	for node := 0; node < len(r.nodes) && fits < enough; node++ {
		fits += int64(r.fit(node, s))
	}
	return fits
}

// neverTogether proves that the roles' sums exceed the cluster's.
func (r *room) neverTogether(groups []group) Reason {
	if len(groups) < 2 {
		return Reason{}
	}
	var share, free int64
	for _, g := range groups {
		share += int64(g.count) * g.shape.deviceShare()
	}
	for i := range r.nodes {
		free += r.nodes[i].share
	}
	if share > free {
		return never(fmt.Sprintf("its roles ask %s GPUs together; the cluster has %s", decimal(share), decimal(free)),
			"ask for fewer tasks, or add nodes")
	}
	for _, i := range []int{byCPU, byMemory} {
		q := quantities[i]
		var asked int64
		for _, g := range groups {
			asked += int64(g.count) * q.ask(&g.shape)
		}
		if _, total := r.extent(q); asked > total {
			return never(fmt.Sprintf("its roles ask %s together; the cluster has %s", q.words(asked), q.words(total)),
				"ask for fewer tasks, or add nodes")
		}
	}
	return Reason{}
}

// quantity is a resource that is a mere amount of a node.
type quantity struct {
	cause Cause // when it is short beside free devices
	ask   func(*shape) int64
	free  func(*nodeRoom) int64
	words func(int64) string
	held  func(*Holding) int64
}

// quantities is indexed as predicates; devices are more than an amount.
var quantities = [...]quantity{
	byCPU: {CauseCPU, func(s *shape) int64 { return s.cpu }, func(n *nodeRoom) int64 { return n.cpu }, cpus,
		func(h *Holding) int64 { return h.CPU }},
	byMemory: {CauseMemory, func(s *shape) int64 { return s.memory }, func(n *nodeRoom) int64 { return n.memory },
		func(n int64) string { return bytes(n) + " of memory" }, func(h *Holding) int64 { return h.CPU + h.Share }},
	byPorts: {CausePorts, func(s *shape) int64 { return int64(s.ports) }, func(n *nodeRoom) int64 { return int64(n.ports) }, ports,
		func(h *Holding) int64 { return h.CPU + h.Share }},
}

// extent gives the most of a quantity that is free on one usable node, and the sum.
func (r *room) extent(q quantity) (most, total int64) {
	for i := range r.nodes {
		if r.nodes[i].usable {
			free := q.free(&r.nodes[i])
			most, total = max(most, free), total+free
		}
	}
	return most, total
}
