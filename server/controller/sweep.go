package controller

import (
	"cmp"
	"slices"
	"strings"

	"llmos/fsm/state"
	pb "llmos/proto/llmos/v1"
)

// sweep brings the projection up to the state: by what the state says has changed since the
// last sweep, or by walking its tables when it does not know. What remains for each change is
// one look at each unfinished job's entry, and none at a record.
func (p *projection) sweep(st *state.State) changes {
	var found changes
	var since state.Changed
	known := p.swept != nil
	if known {
		found.opens = !st.SamePolicy(p.swept)
		since, known = st.Since(p.swept)
	}
	p.swept = st
	if known {
		p.sweepNodes(st, since.Nodes, &found)
		p.sweepJobs(st, since.Jobs, &found)
	} else {
		found.opens = true
		p.sweepNodes(st, p.allNodes(st), &found)
		p.sweepJobs(st, p.allJobs(st), &found)
	}
	slices.Sort(found.nodes)
	found.nodes = slices.Compact(found.nodes)
	return found
}

// allNodes gives the IDs of the nodes that there are or were.
func (p *projection) allNodes(st *state.State) []string {
	ids := make([]string, 0, len(p.order))
	for _, e := range p.order {
		ids = append(ids, e.id)
	}
	for n := range st.Nodes() {
		ids = append(ids, n.Id)
	}
	return ids
}

// allJobs gives the IDs of the jobs that are or were unfinished.
func (p *projection) allJobs(st *state.State) []string {
	ids := make([]string, 0, len(p.lined))
	for _, e := range p.lined {
		ids = append(ids, e.job.Id)
	}
	for j := range st.UnfinishedJobs() {
		ids = append(ids, j.Id)
	}
	return ids
}

func (p *projection) sweepNodes(st *state.State, ids []string, found *changes) {
	for _, id := range ids {
		n, a, e := st.Node(id), st.Account(id), p.known[id]
		switch {
		case n == nil && e == nil:
			continue
		case n == nil:
			delete(p.known, id)
			p.order = slices.DeleteFunc(p.order, func(o *nodeEntry) bool { return o == e })
			found.records = append(found.records, id)
		case e == nil:
			e = &nodeEntry{id: id}
			p.known[id] = e
			at, _ := slices.BinarySearchFunc(p.order, id, func(e *nodeEntry, id string) int { return strings.Compare(e.id, id) })
			p.order = slices.Insert(p.order, at, e)
		case e.node == n && e.account == a:
			continue
		}
		found.nodes = append(found.nodes, id)
		if n != nil {
			p.renew(st, e, n, a, found)
		}
	}
	p.stale = p.stale || len(found.nodes) > 0
}

// renew converts a node that is new or has changed.
func (p *projection) renew(st *state.State, e *nodeEntry, n *pb.Node, a *pb.NodeAccount, found *changes) {
	if e.node != n {
		found.records = append(found.records, n.Id)
	}
	e.node, e.account = n, a
	was := e.value
	e.value = nodeValue(st, n, a)
	p.judge(e)
	found.opens = found.opens || nodeOpens(&was, &e.value)
	for t := range st.NodeTasks(n.Id) {
		if j := p.jobs[t.JobId]; j != nil {
			j.stale = true
		}
	}
}

func (p *projection) sweepJobs(st *state.State, ids []string, found *changes) {
	line := false // the order has to be made anew
	for _, id := range ids {
		j, e := st.Job(id), p.jobs[id]
		if j == nil || state.JobFinished(j.State) {
			if e != nil {
				e.gone = true
				delete(p.jobs, id)
				found.gone = append(found.gone, id)
			}
			continue
		}
		if e == nil {
			e = &jobEntry{}
			p.jobs[id] = e
			found.arrived = append(found.arrived, e)
			line = line || (len(p.lined) > 0 && inLine(p.lined[len(p.lined)-1].job, j) > 0)
			p.lined = append(p.lined, e)
		}
		p.look(st, e, j, found)
	}
	if !found.jobs && len(found.gone) == 0 {
		return
	}
	if line {
		slices.SortStableFunc(p.lined, func(a, b *jobEntry) int { return inLine(a.job, b.job) })
	}
	slices.SortFunc(found.arrived, func(a, b *jobEntry) int { return inLine(a.job, b.job) })
	slices.Sort(found.gone)
	found.jobs, found.opens = true, found.opens || len(found.gone) > 0
	p.divide()
}

// inLine is the order of submits.
func inLine(a, b *pb.Job) int {
	return cmp.Or(cmp.Compare(a.SubmitIndex, b.SubmitIndex), cmp.Compare(a.SubmitOrdinal, b.SubmitOrdinal))
}

// look takes in an unfinished job as it is now.
func (p *projection) look(st *state.State, e *jobEntry, j *pb.Job, found *changes) {
	var attempt *pb.Attempt // that of a waiting job is over
	if j.State != pb.JobState_JOB_STATE_PENDING && j.Epoch > 0 {
		attempt = st.Attempt(j.Id, j.Epoch)
	}
	if e.job == j && e.attempt == attempt {
		return
	}
	found.opens = found.opens || jobOpens(e.job, j, e.attempt, attempt)
	if e.job != j {
		e.value = jobValue(st, j)
	}
	e.job, e.attempt, e.stale = j, attempt, true
	found.jobs = true
	for t := range st.JobTasks(j.Id, j.Epoch) {
		found.nodes = append(found.nodes, t.NodeId)
	}
}

// divide sorts the unfinished jobs by what is done about them.
func (p *projection) divide() {
	lined, pending, running, timed := p.lined[:0], p.pending[:0], p.running[:0], p.timed[:0]
	for _, e := range p.lined {
		if e.gone {
			continue
		}
		lined = append(lined, e)
		switch {
		case e.job.State == pb.JobState_JOB_STATE_PENDING:
			pending = append(pending, e)
		case e.attempt != nil && e.attempt.State != pb.AttemptState_ATTEMPT_STATE_ENDED:
			running = append(running, e)
		}
		if e.job.State == pb.JobState_JOB_STATE_SCHEDULED || e.job.GetSpec().GetTimeLimitMs() > 0 {
			timed = append(timed, e)
		}
	}
	clear(lined[len(lined):cap(lined)])
	clear(pending[len(pending):cap(pending)])
	clear(running[len(running):cap(running)])
	clear(timed[len(timed):cap(timed)])
	p.lined, p.pending, p.running, p.timed = lined, pending, running, timed
}
