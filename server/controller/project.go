package controller

import (
	"llmos/fsm/state"
	pb "llmos/proto/llmos/v1"
	"llmos/server/scheduler"
	"llmos/server/scheduler/elastic"
)

// projection is the state as the scheduler sees it: the one conversion from records to
// plain values. Records are immutable and replaced when they change, so a record that is
// still the same pointer has been converted already. A sweep (sweep.go) looks at what the
// state says has changed.
type projection struct {
	nodes   []scheduler.Node      // by ID; replaced, never modified, when something changes; see snapshot
	stale   bool                  // nodes is behind known
	live    map[string]bool       // node IDs with a live session
	known   map[string]*nodeEntry // by node ID
	order   []*nodeEntry          // by node ID, ascending, as the state's tables are
	jobs    map[string]*jobEntry  // unfinished ones, by ID
	pending []*jobEntry           // in submit order
	version uint64                // of node values: grows with each one made
	running []*jobEntry           // jobs with a live or ending attempt, in submit order
	lined   []*jobEntry           // unfinished jobs in submit order
	timed   []*jobEntry           // jobs with a date: cron jobs and those with a time limit
	swept   *state.State          // of the last sweep; nil: none yet
}

type nodeEntry struct {
	id      string
	node    *pb.Node
	account *pb.NodeAccount
	value   scheduler.Node
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
	gone    bool            // it has finished
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
