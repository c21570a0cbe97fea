package scheduler

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// holdersShown bounds the jobs that a reason names.
const holdersShown = 3

// Explain says why a job of the snapshot was not placed. ok is false when the plan knows
// no such pending job, or placed it. The cost is one look at every node.
func (p *Plan) Explain(jobID string) (reason Reason, ok bool) {
	i := slices.IndexFunc(p.jobs, func(j Job) bool { return j.ID == jobID })
	if i < 0 || p.placed[i] {
		return Reason{}, false
	}
	p.left.busy.Lock() // what would start is tried out in the room
	defer p.left.busy.Unlock()
	return p.inTime(i, p.because(i)), true
}

// because gives the dominant reason: something other than room, or what room it lacks.
func (p *Plan) because(i int) Reason {
	if b, ok := p.blocks[i]; ok {
		return p.waits(&p.jobs[i], &b)
	}
	return p.explain(&p.jobs[i])
}

// namesOf gives the names of the nodes of which something is kept.
func (p *Plan) namesOf(k *keep) []string {
	var names []string
	for _, node := range k.nodesOf() {
		names = append(names, p.nodes[node].called())
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func (n *Node) called() string { return cmp.Or(n.Name, n.ID) }

func (p *Plan) explain(job *Job) Reason {
	r := p.after()
	if len(r.spec) == 0 {
		return noNodes()
	}
	if reason := p.view(viewRegistered).couldHold(job); reason.Cause != CauseNone {
		return reason
	}
	if reason := r.notReady(job, p.view(viewEmpty)); reason.Cause != CauseNone {
		return reason
	}
	return p.noRoom(job)
}

// noRoom explains a job that would fit on the nodes that are ready if they were empty.
func (p *Plan) noRoom(job *Job) Reason {
	r := p.after()
	for i, g := range r.groupsOf(job, leastCounts(job)) {
		if r.fitsUpTo(&g.shape, int64(g.count)) < int64(g.count) {
			return p.short(job, &job.Roles[i], &g)
		}
	}
	if reason := p.misplaced(job); reason.Cause != CauseNone {
		return reason
	}
	if reason := p.apartInSpace(job); reason.Cause != CauseNone {
		return reason
	}
	return p.fitsButWaits(job)
}

// fitsButWaits explains a job whose roles all find room, each by itself.
func (p *Plan) fitsButWaits(job *Job) Reason {
	if reason, ok := p.behindKept(job); ok {
		return reason
	}
	if p.Truncated {
		return Reason{Cause: CauseNextPass, Text: "its turn comes in the next scheduling pass", Remedy: "nothing needs to be done"}
	}
	if len(job.Roles) > 1 {
		return Reason{Cause: CauseFragmented, Text: "each of its roles would fit by itself, but not all of them together", Remedy: "it starts when more is released"}
	}
	return Reason{Cause: CausePorts, Text: "no node has room for rank 0 with a free port for the rendezvous", Remedy: "widen the agents' port range"}
}

// notReady explains a job that would fit if every registered node were ready and every
// device healthy.
func (r *room) notReady(job *Job, empty *room) Reason {
	if job.Where != nil {
		defer empty.reopen(empty.close(empty.condition(job.Where).nodes))
	}
	var silent, drained, unfit []string
	sick := 0
	for i := range r.spec {
		n := &r.spec[i]
		switch {
		case n.Status != NodeReady:
			silent = append(silent, n.called())
			continue
		case n.Unfit:
			unfit = append(unfit, n.called())
			continue
		case n.Drained:
			drained = append(drained, n.called())
			continue
		}
		for j := range n.Devices {
			if !n.Devices[j].Available {
				sick++
			}
		}
	}
	away := awayWords(silent, drained, unfit)
	if len(silent)+len(drained)+len(unfit) == len(r.spec) {
		return Reason{Cause: CauseNotReady, Text: "no node is ready: " + away, Remedy: awayRemedy(silent, drained)}
	}
	missing := false
	for _, g := range empty.groupsOf(job, leastCounts(job)) {
		missing = missing || empty.fitsUpTo(&g.shape, int64(g.count)) < int64(g.count)
	}
	switch {
	case !missing:
		return Reason{}
	case len(drained) > 0:
		return Reason{Cause: CauseNotReady, Text: "fits only with nodes that take no work: " + away,
			Remedy: "bring these nodes back, or add others; llmos drain NODE --undo ends a drain"}
	case len(unfit) > 0:
		return Reason{Cause: CauseNotReady, Text: "fits only with nodes that take no work: " + away,
			Remedy: "llmos nodes says what is wrong with them; llmos repair NODE when it is put right"}
	case len(silent) > 0:
		return Reason{Cause: CauseNotReady, Text: "fits only with nodes that do not answer: " + away, Remedy: "bring these nodes back, or add others"}
	case sick > 0:
		return Reason{Cause: CauseNotReady, Text: fmt.Sprintf("fits only with devices that are not healthy: %s of ready nodes take no work", plural(int64(sick), "device")),
			Remedy: "llmos nodes shows what is wrong with them"}
	}
	return Reason{}
}

// awayWords names the nodes that take no work.
func awayWords(silent, drained, unfit []string) string {
	var parts []string
	if len(silent) > 0 {
		parts = append(parts, listed(silent, holdersShown)+silentVerb(len(silent)))
	}
	if len(drained) > 0 {
		verb := " are drained"
		if len(drained) == 1 {
			verb = " is drained"
		}
		parts = append(parts, listed(drained, holdersShown)+verb)
	}
	if len(unfit) > 0 {
		verb := " are unfit"
		if len(unfit) == 1 {
			verb = " is unfit"
		}
		parts = append(parts, listed(unfit, holdersShown)+verb)
	}
	return strings.Join(parts, ", ")
}

func awayRemedy(silent, drained []string) string {
	switch {
	case len(silent)+len(drained) == 0:
		return "llmos nodes says what is wrong with them; llmos repair NODE when it is put right"
	case len(silent) == 0:
		return "end the drain: llmos drain NODE --undo"
	}
	return "start the agents again; llmos nodes shows since when they are silent"
}

func silentVerb(n int) string {
	if n == 1 {
		return " is silent"
	}
	return " are silent"
}

// short explains a role that does not find room now though it would on empty nodes.
func (p *Plan) short(job *Job, role *Role, g *group) Reason {
	r, s := p.after(), &g.shape
	if s.gpus > 0 {
		if reason := p.shortOfDevices(role, g); reason.Cause != CauseNone {
			return reason
		}
	}
	for _, i := range []int{byCPU, byMemory, byPorts} {
		q := quantities[i]
		if s.gpus > 0 {
			if most, short := r.mostBeside(s, g.count, i); short {
				return Reason{Cause: q.cause,
					Text:   fmt.Sprintf("%s free, but not enough %s beside: %s %s, the most free there is %s", gpusAre(r.freeDevices(s), role.Task.wanted()), predicates[i].name, subject(job, role), q.words(q.ask(s)), q.words(most)),
					Remedy: "ask for less of it, or wait until tasks on these nodes end"}
			}
			continue
		}
		if r.admitted(s, i) < int64(g.count) {
			return p.shortOf(i, g)
		}
	}
	return Reason{Cause: CauseFragmented, Text: "enough is free in all, but no node has the CPUs and the memory that it asks together",
		Remedy: "it starts when more is released on one node"}
}

// admitted sums what the predicate alone admits on the usable nodes.
func (r *room) admitted(s *shape, predicate int) int64 {
	var sum int64
	for node := range r.nodes {
		if r.nodes[node].usable {
			sum += int64(predicates[predicate].admits(r, node, s))
		}
	}
	return sum
}

// mostBeside says whether the devices and this quantity together admit fewer than count
// tasks, and how much of it is free on a node with devices for one.
func (r *room) mostBeside(s *shape, count, predicate int) (most int64, short bool) {
	var sum int64
	for node := range r.nodes {
		if !r.nodes[node].usable {
			continue
		}
		if devices := admitsDevices(r, node, s); devices > 0 {
			most = max(most, quantities[predicate].free(&r.nodes[node]))
			sum += int64(min(devices, predicates[predicate].admits(r, node, s)))
		}
	}
	return most, sum < int64(count)
}

// freeDevices counts the whole devices that suit the shape and are free.
func (r *room) freeDevices(s *shape) int64 {
	var free int64
	for i := range r.devices {
		if d := &r.devices[i]; d.available && d.isWhole() && d.suits(s) && r.nodes[r.nodeOf(i)].usable {
			free++
		}
	}
	return free
}

// nodeOf finds the node of a device.
func (r *room) nodeOf(device int) int {
	node, _ := slices.BinarySearchFunc(r.nodes, int32(device), func(n nodeRoom, at int32) int {
		if n.last <= at {
			return -1
		}
		return 1
	})
	return node
}

func (p *Plan) shortOfDevices(role *Role, g *group) Reason {
	r, s := p.after(), &g.shape
	if s.share != 0 {
		return p.shortOfShares(role, g)
	}
	free, need := r.freeDevices(s), int64(g.count)*int64(s.gpus)
	if free < need {
		return Reason{Cause: CauseCapacity,
			Text:   fmt.Sprintf("needs %s; %s%s", freeGPUs(need, role.Task.wanted()), areFree(free), p.heldBy(s, func(h *Holding) int64 { return h.Share })),
			Remedy: fmt.Sprintf("it starts when %s released; a higher priority would put it before other pending jobs", gpusAre(need-free, role.Task.wanted()))}
	}
	fits := r.admitted(s, byDevices)
	switch {
	case fits == 0:
		return Reason{Cause: CauseFragmented, Text: fmt.Sprintf("%s free but no node has %d together", gpusAre(free, role.Task.wanted()), s.gpus),
			Remedy: "it starts when the tasks on one node end, or ask for more tasks with fewer GPUs each"}
	case fits < int64(g.count):
		return Reason{Cause: CauseFragmented, Text: fmt.Sprintf("%s free but only %d of the %d tasks find %d together on a node", gpusAre(free, role.Task.wanted()), fits, g.count, s.gpus),
			Remedy: "it starts when the tasks on more nodes end, or ask for more tasks with fewer GPUs each"}
	}
	return Reason{}
}

func gpusAre(n int64, model string) string {
	if n == 1 {
		return gpus(n, model) + " is"
	}
	return gpus(n, model) + " are"
}

func freeGPUs(n int64, model string) string {
	if model != "" {
		return plural(n, "free "+model+" GPU")
	}
	return plural(n, "free GPU")
}

func (p *Plan) shortOfShares(role *Role, g *group) Reason {
	r, s := p.after(), &g.shape
	fits := r.admitted(s, byDevices)
	if fits >= int64(g.count) {
		return Reason{}
	}
	each := devicesAsked(role)
	if s.gpuMemory > 0 {
		each += " with " + bytes(s.gpuMemory)
	}
	text := fmt.Sprintf("needs %s; no device has that much free", each)
	if g.count > 1 {
		text = fmt.Sprintf("needs %d times %s; the devices have room for %d", g.count, each, fits)
	}
	return Reason{Cause: CauseCapacity, Text: text + p.heldBy(s, func(h *Holding) int64 { return h.Share }),
		Remedy: "it starts when shares are released; a higher priority would put it before other pending jobs"}
}

// shortOf explains a task without GPUs.
func (p *Plan) shortOf(predicate int, g *group) Reason {
	q, s := quantities[predicate], &g.shape
	most, total := p.after().extent(q)
	need := int64(g.count) * q.ask(s)
	if total < need {
		return Reason{Cause: CauseCapacity, Text: fmt.Sprintf("needs %s; %s are free%s", q.words(need), q.words(total), p.heldBy(s, q.held)),
			Remedy: "it starts when enough is released; a higher priority would put it before other pending jobs"}
	}
	return Reason{Cause: CauseFragmented, Text: fmt.Sprintf("%s are free in all but too little together: a task asks %s, the most free on one node is %s", q.words(total), q.words(q.ask(s)), q.words(most)),
		Remedy: "it starts when tasks on one node end, or ask for smaller tasks"}
}

// heldBy names the jobs that hold most of what the shape waits for, this plan's included.
func (p *Plan) heldBy(s *shape, amount func(*Holding) int64) string {
	r := p.after()
	counts := make([]bool, len(r.nodes)) // by node: what is held there is missing to the shape
	var all []Holding
	for node := range r.nodes {
		if counts[node] = r.nodes[node].usable && (s.gpus == 0 || slices.ContainsFunc(r.devicesOf(node), func(d device) bool { return d.suits(s) })); counts[node] {
			all = append(all, r.spec[node].Holdings...)
		}
	}
	all = append(all, p.placedOn(counts)...)
	names := mostHolding(all, amount)
	if len(names) == 0 {
		return ""
	}
	return "; held by " + listed(names, holdersShown)
}

// mostHolding sums per job and gives the names, the largest holder first.
func mostHolding(all []Holding, amount func(*Holding) int64) []string {
	slices.SortStableFunc(all, func(a, b Holding) int { return cmp.Compare(a.JobID, b.JobID) })
	var sums []Holding
	for i := range all {
		h := Holding{JobID: all[i].JobID, CPU: amount(&all[i])}
		if n := len(sums); n > 0 && sums[n-1].JobID == h.JobID {
			sums[n-1].CPU += h.CPU
		} else {
			sums = append(sums, h)
		}
	}
	sums = slices.DeleteFunc(sums, func(h Holding) bool { return h.CPU <= 0 })
	slices.SortStableFunc(sums, func(a, b Holding) int { return cmp.Compare(b.CPU, a.CPU) })
	names := make([]string, len(sums))
	for i := range sums {
		names[i] = sums[i].JobID
	}
	return names
}
