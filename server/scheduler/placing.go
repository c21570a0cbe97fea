package scheduler

import (
	"fmt"
	"strings"
)

// Reasons of placement: what a job asks of its nodes beyond room on them, and what would let
// it start now.

// The fields of a job file that ask something of the nodes.
const (
	fieldWhere  = "placement.where"
	fieldWithin = "placement.within"
	fieldSpread = "placement.spread"
	fieldNear   = "placement.near"
	fieldApart  = "placement.apart"
)

// valuesShown bounds the values of a label that a reason names.
const valuesShown = 5

// feasibleOn looks for a proof that the nodes, empty, ready and healthy, cannot hold the job.
func feasibleOn(job *Job, nodes []Node) Reason {
	return newRoom(nodes, Weights{}, 0, viewRegistered).couldHold(job)
}

// couldHold is feasibleOn in a room that holds capacities.
func (r *room) couldHold(job *Job) Reason {
	if reason := r.feasible(job); reason.Cause != CauseNone {
		return reason
	}
	if job.Where != nil {
		some, reason := r.feasibleWhere(job)
		if reason.Cause != CauseNone {
			return reason
		}
		r = some
	}
	if reason := r.feasibleWithin(job); reason.Cause != CauseNone {
		return reason
	}
	return r.feasibleSpread(job)
}

// feasibleWhere looks at the nodes alone that the job's condition admits, and gives them.
func (r *room) feasibleWhere(job *Job) (*room, Reason) {
	if part := unmet(job.Where, r.spec); part != nil {
		return nil, Reason{Cause: CauseConstraint, Field: fieldWhere,
			Text:   fmt.Sprintf("asks for nodes where %s; no node is so%s", part, r.valuesOf(part)),
			Remedy: "llmos nodes shows the labels of each node"}
	}
	var some []Node
	for i := range r.spec {
		if r.spec[i].meets(job.Where) {
			some = append(some, r.spec[i])
		}
	}
	if len(some) == 0 {
		return nil, Reason{Cause: CauseConstraint, Field: fieldWhere,
			Text:   fmt.Sprintf("asks for nodes where %s; each part is true of some node, but not all together", job.Where),
			Remedy: "llmos nodes shows the labels of each node"}
	}
	sub := newRoom(some, Weights{}, 0, viewRegistered)
	reason := sub.feasible(job)
	if reason.Cause != CauseNone {
		reason.Text += fmt.Sprintf(" (of %s where %s)", plural(int64(len(some)), "node"), job.Where)
		reason.Field = fieldWhere
	}
	return sub, reason
}

// valuesOf names what the nodes have under the key of a condition.
func (r *room) valuesOf(e *Expr) string {
	if e.Match == nil || e.Match.Key == byNode {
		return ""
	}
	if e.Match.Key == "gpu_model" {
		return ", the cluster has " + r.inventory()
	}
	names := r.domains(e.Match.Key).names
	if len(names) == 0 {
		return ", and none has a label " + e.Match.Key
	}
	return fmt.Sprintf(", there is %s %s", e.Match.Key, listed(names, valuesShown))
}

// feasibleWithin proves that no single domain holds some role.
func (r *room) feasibleWithin(job *Job) Reason {
	if job.Within == "" {
		return Reason{}
	}
	doms := r.domains(job.Within)
	if len(doms.names) == 0 {
		return r.noLabel(job.Within, fieldWithin, "asks all tasks within one "+job.Within)
	}
	for i, g := range r.groupsOf(job, leastCounts(job)) {
		fits, at := r.roomiest(doms, &g.shape)
		if fits < int64(g.count) {
			return Reason{Cause: CauseNeverFits, Field: fieldWithin,
				Text: fmt.Sprintf("asks %s of %s within one %s; the largest, %s, holds %d", plural(int64(g.count), "task"), r.allOf(&job.Roles[i], &g.shape),
					job.Within, doms.names[at], fits),
				Remedy: "ask for fewer or smaller tasks, for a wider domain, or for prefer_within instead"}
		}
	}
	return Reason{}
}

// roomiest gives the domain whose usable nodes admit most tasks of the shape.
func (r *room) roomiest(doms *domains, s *shape) (most int64, at int) {
	fits := make([]int64, len(doms.names))
	for node, of := range doms.of {
		if of >= 0 {
			fits[of] += int64(r.fit(node, s))
		}
	}
	for i := range fits {
		if fits[i] > most {
			most, at = fits[i], i
		}
	}
	return most, at
}

func (r *room) noLabel(label, field, asks string) Reason {
	return Reason{Cause: CauseConstraint, Field: field, Text: fmt.Sprintf("%s; no node has a label %s", asks, label),
		Remedy: "llmos nodes shows the labels of each node"}
}

// feasibleSpread proves that a role cannot be divided over the domains.
func (r *room) feasibleSpread(job *Job) Reason {
	if job.Spread == "" {
		return Reason{}
	}
	if len(r.domains(job.Spread).names) == 0 {
		return r.noLabel(job.Spread, fieldSpread, "asks to be spread over "+job.Spread)
	}
	if reason := r.uneven(job, nil); reason.Cause != CauseNone {
		reason.Cause = CauseNeverFits
		return reason
	}
	return Reason{}
}

// uneven names the role that cannot be divided over the domains of the set's nodes.
func (r *room) uneven(job *Job, nodes nodeSet) Reason {
	doms := r.domains(job.Spread)
	g := &gang{placer: newPlacer(r), demand: &demand{conditions: conditions{spread: job.Spread, skew: max(1, job.Skew)}}}
	for i, of := range r.groupsOf(job, leastCounts(job)) {
		if _, ok := g.shares(doms, &of, nodes); ok {
			continue
		}
		fits := g.fitsBy(doms, r.index(&of.shape), nodes)
		least := -1
		for at := range fits {
			if least < 0 || fits[at] < fits[least] {
				least = at
			}
		}
		return Reason{Cause: CauseConstraint, Field: fieldSpread,
			Text: fmt.Sprintf("asks %s of %s spread over %s, at most %d more on one than on another; %s has room for %d",
				plural(int64(of.count), "task"), r.allOf(&job.Roles[i], &of.shape), job.Spread, g.demand.skew, doms.names[least], fits[least]),
			Remedy: "ask for fewer tasks or a larger spread_skew"}
	}
	return Reason{}
}

// misplaced explains a job that asks something of its nodes that the room does not give now.
// The room is the plan's, and is as it was afterwards.
func (p *Plan) misplaced(job *Job) Reason {
	r := p.after()
	pl := p.placerAfter()
	for _, name := range job.Near {
		if pl.named(name)[0].isEmpty() {
			return Reason{Cause: CauseConstraint, Field: fieldNear, Text: fmt.Sprintf("asks for nodes where %s runs; it runs nowhere", name),
				Remedy: "it starts beside that job once it runs"}
		}
	}
	d, ok := pl.demand(job)
	if !ok {
		return Reason{Cause: CauseConstraint, Field: fieldApart, Text: "no node is left for it: " + scope(job),
			Remedy: "it starts when such a node joins, or when the jobs that it keeps away from end"}
	}
	if d.nodes == nil {
		return Reason{}
	}
	closed := r.close(d.nodes)
	defer r.reopen(closed)
	count := int64(0)
	d.nodes.each(r, func(int) { count++ })
	for i, g := range r.groupsOf(job, leastCounts(job)) {
		if r.fitsUpTo(&g.shape, int64(g.count)) < int64(g.count) {
			reason := p.short(job, &job.Roles[i], &g)
			reason.Text += fmt.Sprintf(" (of %s %s)", plural(count, "node"), scope(job))
			return reason
		}
	}
	return Reason{}
}

// placerAfter gives a placer in the room after the plan, which knows what stands there.
func (p *Plan) placerAfter() *placer {
	pl := newPlacer(p.after())
	pl.running = p.running
	for i := range p.Placements {
		at := standing{name: nameOf(p.Placements[i].JobID)}
		for j := range p.Placements[i].Tasks {
			if node := pl.room.nodeByID(p.Placements[i].Tasks[j].NodeID); node >= 0 {
				at.nodes = append(at.nodes, int32(node))
			}
		}
		pl.placed = append(pl.placed, at)
	}
	return pl
}

// placedOn gives what the plan's own placements hold of those nodes.
func (p *Plan) placedOn(nodes []bool) []Holding {
	jobs := map[string]*Job{}
	for i := range p.jobs {
		if p.placed[i] {
			jobs[p.jobs[i].ID] = &p.jobs[i]
		}
	}
	var all []Holding
	for i := range p.Placements {
		placement := &p.Placements[i]
		for _, g := range p.after().groupsOf(jobs[placement.JobID], placement.Counts) {
			for rank := g.firstRank; rank < g.firstRank+g.count; rank++ {
				if node := p.after().nodeByID(placement.Tasks[rank].NodeID); node >= 0 && nodes[node] {
					all = append(all, Holding{JobID: placement.JobID, CPU: g.shape.cpu, Share: g.shape.deviceShare()})
				}
			}
		}
	}
	return all
}

// scope words which nodes a job may use.
func scope(job *Job) string {
	var parts []string
	if job.Where != nil {
		parts = append(parts, "where "+job.Where.String())
	}
	if len(job.Near) > 0 {
		parts = append(parts, "beside "+strings.Join(job.Near, " and "))
	}
	if len(job.Apart) > 0 {
		parts = append(parts, "apart from "+strings.Join(job.Apart, " and "))
	}
	return strings.Join(parts, ", ")
}

// close takes the nodes that are not in the set out of use, and gives those that were usable.
func (r *room) close(nodes nodeSet) []int32 {
	var closed []int32
	for node := range r.nodes {
		if n := &r.nodes[node]; n.usable && !nodes.has(r, node) {
			n.usable = false
			r.touch(node)
			closed = append(closed, int32(node))
		}
	}
	return closed
}

func (r *room) reopen(closed []int32) {
	for _, node := range closed {
		r.nodes[node].usable = true
		r.touch(int(node))
	}
}

// apartInSpace explains a job whose roles all find room somewhere it may go, but not in the
// domains that it asks for.
func (p *Plan) apartInSpace(job *Job) Reason {
	r := p.after()
	if job.Within != "" {
		doms := r.domains(job.Within)
		for i, g := range r.groupsOf(job, leastCounts(job)) {
			if most, at := r.roomiest(doms, &g.shape); most < int64(g.count) {
				return Reason{Cause: CauseConstraint, Field: fieldWithin,
					Text: fmt.Sprintf("no %s has room for all its tasks now: %s has room for %d of %d of %s", job.Within, doms.names[at], most, g.count,
						r.allOf(&job.Roles[i], &g.shape)),
					Remedy: "it starts when more is released in one " + job.Within}
			}
		}
		return Reason{Cause: CauseConstraint, Field: fieldWithin, Text: fmt.Sprintf("no %s has room for all its tasks together now", job.Within),
			Remedy: "it starts when more is released in one " + job.Within}
	}
	if job.Spread != "" {
		d, _ := p.placerAfter().demand(job)
		return r.uneven(job, d.nodes)
	}
	return Reason{}
}
