package state

import (
	"bytes"
	"slices"
)

// Bounds of what a state remembers of the changes that led to it. Whoever was away for longer
// walks the tables.
const (
	deltasMax = 64   // log entries
	namesMax  = 4096 // jobs and nodes of one entry
)

// delta names what one log entry may have changed. A name stands at most a few times.
type delta struct {
	index uint64 // of the state that it began with, and its hash: an index alone may stand for
	hash  sum    // another state, after a snapshot was restored
	jobs  []string
	nodes []string
	all   bool // too many to name
}

// Changed names records that may differ between two states.
type Changed struct {
	Jobs  []string // IDs: the job itself or an attempt of it; perhaps more than once
	Nodes []string // IDs: the node or its account; likewise
}

// Since gives what may have changed since an older state. ok is false when that is not known,
// because old is too long ago or did not lead to this state: then anything may have.
func (s *State) Since(old *State) (c Changed, ok bool) {
	if old.index == s.index && old.hash == s.hash {
		return c, true
	}
	for i := len(s.deltas) - 1; i >= 0; i-- {
		d := &s.deltas[i]
		if d.all {
			return Changed{}, false
		}
		c.Jobs, c.Nodes = append(c.Jobs, d.jobs...), append(c.Nodes, d.nodes...)
		if d.index == old.index && d.hash == old.hash {
			return c, true
		}
	}
	return Changed{}, false
}

// remembered gives the base's deltas with the transaction's own as the newest.
func (t *Txn) remembered() []delta {
	if t.base == nil { // a snapshot is restored
		return nil
	}
	d := delta{index: t.base.index, hash: t.base.hash}
	if len(t.jobs.dirty)+len(t.attempts.dirty)+len(t.nodes.dirty)+len(t.accounts.dirty) > namesMax {
		d.all = true
		return []delta{d} // nobody looks behind it
	}
	for _, key := range t.jobs.dirty {
		d.jobs = append(d.jobs, string(key))
	}
	for _, key := range t.attempts.dirty {
		id, _, _ := bytes.Cut(key, []byte{0}) // see terminated
		d.jobs = append(d.jobs, string(id))
	}
	for _, keys := range [][][]byte{t.nodes.dirty, t.accounts.dirty} {
		for _, key := range keys {
			d.nodes = append(d.nodes, string(key))
		}
	}
	kept := t.base.deltas[max(0, len(t.base.deltas)-deltasMax+1):]
	return append(slices.Clip(kept), d) // a copy: two may begin with one state
}
