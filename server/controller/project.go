package controller

import (
	"slices"
	"strings"

	"llmos/fsm/state"
	pb "llmos/proto/llmos/v1"
	"llmos/server/scheduler"
	"llmos/server/scheduler/elastic"
)

// projection is the state as the scheduler sees it: the one conversion from records to
// plain values. Records are immutable and replaced when they change, so a record that is
// still the same pointer has been converted already. A sweep over an unchanged state costs
// one comparison per node and unfinished job.
type projection struct {
	nodes   []scheduler.Node      // by ID; replaced, never modified, when something changes; see snapshot
	stale   bool                  // nodes is behind known
	live    map[string]bool       // node IDs with a live session
	known   map[string]*nodeEntry // by node ID
	order   []*nodeEntry          // by node ID, ascending, as the state's tables are
	jobs    map[string]*jobEntry  // unfinished ones, by ID
	pending []*jobEntry           // in submit order
	round   uint64                // of sweeps
	version uint64                // of node values: grows with each one made
	running []*jobEntry           // jobs with a live or ending attempt, in submit order
	walked  []*jobEntry           // unfinished jobs as the last sweep went through them
	spare   []*jobEntry           // room for the next walk
	timed   []*jobEntry           // jobs with a date: cron jobs and those with a time limit
	swept   *state.State          // of the last sweep; nil: none yet
}

type nodeEntry struct {
	id      string
	node    *pb.Node
	account *pb.NodeAccount
	value   scheduler.Node
	round   uint64
}

type jobEntry struct {
	job     *pb.Job
	attempt *pb.Attempt // the newest; nil while the job waits
	value   scheduler.Job
	running scheduler.Running // while an attempt is live or ending
	stale   bool              // running is behind the ledger
	outlook outlook
	heard   heardOf         // what its tasks said
	demand  *demandFit      // what they were seen to use; nil: nothing yet
	profile elastic.Profile // of an elastic job: its speed by size
	firing  firing          // of a cron job: when it is due next
	rescued bool            // its size is one that it got because it had waited too long
	round   uint64
	place   int // in the projection's walk
}

// changes is what a sweep found.
type changes struct {
	nodes   []string    // IDs: account or record changed, or desired states of tasks may have
	records []string    // IDs: the node's record itself changed, appeared or went
	jobs    bool        // some unfinished job changed, appeared or went
	gone    []string    // IDs of jobs that have finished, ascending
	arrived []*jobEntry // jobs that were not there before, in submit order
	opens   bool        // something may start, or be stopped for another, that could not before: see opens.go
}

func newProjection() *projection {
	return &projection{known: map[string]*nodeEntry{}, jobs: map[string]*jobEntry{}, live: map[string]bool{}}
}

// connected notes whether a node has a live session. Without one it could not be told of
// new work, so it gets none: after a change of leader each node counts once it is back.
func (p *projection) connected(id string, live bool) {
	if p.live[id] == live {
		return
	}
	if live {
		p.live[id] = true
	} else {
		delete(p.live, id)
	}
	if e := p.known[id]; e != nil {
		p.judge(e)
		p.stale = true
	}
}

func (p *projection) judge(e *nodeEntry) {
	p.version++
	e.value.Version = p.version
	e.value.Status = statusOf(e.node.State)
	if e.value.Status == scheduler.NodeReady && !p.live[e.node.Id] {
		e.value.Status = scheduler.NodeSilent
	}
}

// snapshot gives the nodes by ID. Nobody modifies the slice afterwards.
func (p *projection) snapshot() []scheduler.Node {
	if p.stale {
		p.stale = false
		p.nodes = make([]scheduler.Node, 0, len(p.order))
		for _, e := range p.order {
			p.nodes = append(p.nodes, e.value)
		}
	}
	return p.nodes
}

// sweep brings the projection up to the state.
func (p *projection) sweep(st *state.State) changes {
	p.round++
	found := changes{opens: p.swept == nil || !st.SamePolicy(p.swept)}
	p.swept = st
	p.sweepNodes(st, &found)
	p.sweepJobs(st, &found)
	slices.Sort(found.nodes)
	found.nodes = slices.Compact(found.nodes)
	return found
}

// sweepNodes walks the nodes and their accounts beside the entries of the last sweep: all
// three are in order of ID, so that an unchanged node costs no look-up.
func (p *projection) sweepNodes(st *state.State, found *changes) {
	at := 0
	for n := range st.Nodes() {
		e := p.entry(at, n.Id)
		at++
		e.round = p.round
		if e.node != n {
			e.node = n
			found.records = append(found.records, n.Id)
			found.nodes = append(found.nodes, n.Id)
		}
	}
	if at != len(p.order) {
		p.order = slices.DeleteFunc(p.order, func(e *nodeEntry) bool {
			gone := e.round != p.round
			if gone {
				delete(p.known, e.id)
				found.records = append(found.records, e.id)
				found.nodes = append(found.nodes, e.id)
			}
			return gone
		})
	}
	at = 0
	for a := range st.Accounts() {
		for at < len(p.order) && p.order[at].id < a.NodeId {
			at++
		}
		if at < len(p.order) && p.order[at].id == a.NodeId && p.order[at].account != a {
			p.order[at].account = a
			found.nodes = append(found.nodes, a.NodeId)
		}
	}
	for _, id := range found.nodes {
		if e := p.known[id]; e != nil {
			was := e.value
			e.value = nodeValue(st, e.node, e.account)
			p.judge(e)
			found.opens = found.opens || nodeOpens(&was, &e.value)
			for t := range st.NodeTasks(id) {
				if j := p.jobs[t.JobId]; j != nil {
					j.stale = true
				}
			}
		}
	}
	p.stale = p.stale || len(found.nodes) > 0
}

// entry gives the entry of a node, which is expected at this place of the order.
func (p *projection) entry(at int, id string) *nodeEntry {
	if at < len(p.order) && p.order[at].id == id {
		return p.order[at]
	}
	e := p.known[id]
	if e == nil {
		e = &nodeEntry{id: id}
		p.known[id] = e
		i, _ := slices.BinarySearchFunc(p.order, id, func(e *nodeEntry, id string) int { return strings.Compare(e.id, id) })
		p.order = slices.Insert(p.order, i, e)
	}
	return e
}

// jobEntry gives the entry of a job. An unchanged one is the next of those that the last
// sweep went through, at the place at, so that it costs no look-up.
func (p *projection) jobEntry(j *pb.Job, at *int, found *changes) *jobEntry {
	if *at < len(p.walked) && p.walked[*at].job == j {
		*at++
		return p.walked[*at-1]
	}
	e := p.jobs[j.Id]
	if e == nil {
		e = &jobEntry{}
		p.jobs[j.Id] = e
		found.arrived = append(found.arrived, e)
		return e
	}
	*at = e.place + 1
	return e
}

func (p *projection) sweepJobs(st *state.State, found *changes) {
	count := 0
	pending, running, timed := p.pending[:0], p.running[:0], p.timed[:0]
	next, at := p.spare[:0], 0
	for j := range st.UnfinishedJobs() {
		count++
		e := p.jobEntry(j, &at, found)
		e.round, e.place = p.round, len(next)
		next = append(next, e)
		var attempt *pb.Attempt // that of a waiting job is over
		if j.State != pb.JobState_JOB_STATE_PENDING && j.Epoch > 0 {
			attempt = st.Attempt(j.Id, j.Epoch)
		}
		switch {
		case j.State == pb.JobState_JOB_STATE_PENDING:
			pending = append(pending, e)
		case attempt != nil && attempt.State != pb.AttemptState_ATTEMPT_STATE_ENDED:
			running = append(running, e)
		}
		if j.State == pb.JobState_JOB_STATE_SCHEDULED || j.GetSpec().GetTimeLimitMs() > 0 {
			timed = append(timed, e)
		}
		if e.job == j && e.attempt == attempt {
			continue
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
	clear(pending[len(pending):cap(pending)])
	clear(running[len(running):cap(running)])
	clear(timed[len(timed):cap(timed)])
	p.pending, p.running, p.timed = pending, running, timed
	clear(p.walked)
	p.walked, p.spare = next, p.walked
	if count == len(p.jobs) {
		return
	}
	found.jobs, found.opens = true, true
	for id, e := range p.jobs { // unordered: each entry is judged by itself
		if e.round != p.round {
			delete(p.jobs, id)
			found.gone = append(found.gone, id)
		}
	}
	slices.Sort(found.gone)
}
