package server

import (
	"io"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// reach is what this server's heartbeats tell about the others. Two things need it that
// the Raft library (1.7.3) does not do.
//
// The library retries the log of a server that does not answer after pauses that double
// up to 10.24 s, and nothing wakes it: one that comes back would get heartbeats at once and
// no log for up to that long. So while heartbeats to a server fail, calls with log wait
// here instead of failing, and set out when the first heartbeat is answered. They are only
// delayed, which Raft allows for; they are let go as well when the leadership or the
// membership they belong to ends, and when this server stops.
//
// And the library counts an answer that was on its way before a question to the quorum as
// an answer to it. So it is noted here when the newest answered heartbeat set out.
type reach struct {
	matters func(id string, term uint64) bool // this server leads in the term, and id is a member or seen

	mu      sync.Mutex
	stopped bool
	silent  map[raft.ServerID]chan struct{} // closed when calls to the server may set out
	asked   map[raft.ServerID]time.Time     // when the newest answered heartbeat set out
}

func newReach(matters func(string, uint64) bool) *reach {
	return &reach{matters: matters, silent: map[raft.ServerID]chan struct{}{}, asked: map[raft.ServerID]time.Time{}}
}

// heard notes a heartbeat of the term that set out at begun and was answered, as by a
// follower of this leader or otherwise.
func (r *reach) heard(id raft.ServerID, begun time.Time, follows bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.release(id)
	if follows && begun.After(r.asked[id]) {
		r.asked[id] = begun
	}
}

// missed notes a heartbeat of the term that was not answered.
func (r *reach) missed(id raft.ServerID, term uint64) {
	matters := r.matters(string(id), term)
	r.mu.Lock()
	defer r.mu.Unlock()
	if !matters || r.stopped {
		r.release(id)
	} else if r.silent[id] == nil {
		r.silent[id] = make(chan struct{})
	}
}

// release lets the calls to a server set out; the caller holds mu.
func (r *reach) release(id raft.ServerID) {
	if wait := r.silent[id]; wait != nil {
		close(wait)
		delete(r.silent, id)
	}
}

// await returns when a call with log may set out.
func (r *reach) await(id raft.ServerID) {
	r.mu.Lock()
	wait := r.silent[id]
	r.mu.Unlock()
	if wait != nil {
		<-wait
	}
}

// since says whether a heartbeat that set out at or after t was answered by a follower.
func (r *reach) since(id string, t time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	asked, ok := r.asked[raft.ServerID(id)]
	return ok && !asked.Before(t)
}

// stop lets every call set out, now and later.
func (r *reach) stop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stopped = true
	for id := range r.silent {
		r.release(id)
	}
}

// AppendEntries sends a heartbeat or log to a server; see reach.
func (w *wire) AppendEntries(id raft.ServerID, addr raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	if !isHeartbeat(args) {
		w.reach.await(id)
		return w.NetworkTransport.AppendEntries(id, addr, args, resp)
	}
	begun := time.Now()
	err := w.NetworkTransport.AppendEntries(id, addr, args, resp)
	if err != nil {
		w.reach.missed(id, args.Term)
	} else {
		w.reach.heard(id, begun, resp.Success && resp.Term == args.Term)
	}
	return err
}

// InstallSnapshot sends a snapshot to a server; see reach.
func (w *wire) InstallSnapshot(id raft.ServerID, addr raft.ServerAddress, args *raft.InstallSnapshotRequest, resp *raft.InstallSnapshotResponse, data io.Reader) error {
	w.reach.await(id)
	return w.NetworkTransport.InstallSnapshot(id, addr, args, resp, data)
}

// isHeartbeat tells heartbeats as the library's own network transport does.
func isHeartbeat(a *raft.AppendEntriesRequest) bool {
	return len(a.Entries) == 0 && a.PrevLogEntry == 0 && a.PrevLogTerm == 0 && a.LeaderCommitIndex == 0
}
