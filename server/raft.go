package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"

	"llmos/fsm"
	pb "llmos/proto/llmos/v1"
)

// Limits of the Raft library's use.
const (
	applyEnqueueWait   = 2 * time.Second  // wait for Raft's main loop to take an entry
	configurationWait  = 10 * time.Second // the same for a change of the configuration
	raftConnectionsMax = 4                // pooled connections to each server
	raftIOTimeout      = 10 * time.Second // of one Raft RPC; snapshots get more by their size
	notifyQueueMax     = 64               // leadership changes that wait for the drain
	raftShutdownWait   = 5 * time.Second
	verifyPause        = time.Millisecond // before a quorum is asked again
)

// consensus is the Raft library behind the few words the rest of the server uses. Only
// this file, raft_wire.go, raft_fsm.go and the stores know the library.
type consensus struct {
	raft   *raft.Raft
	live   atomic.Pointer[raft.Raft] // raft, once it is made
	fsm    *fsmAdapter
	logs   *logStore
	bolt   *raftboltdb.BoltStore
	trans  *wire
	poison *poison
	id     string
	notify chan bool
	closed atomic.Bool
}

// member is a server in Raft's configuration.
type member struct {
	ID, Addr string
	Voter    bool
}

type consensusConfig struct {
	id        string
	dataDir   string
	timing    Timing
	log       *slog.Logger
	advertise string
	listener  net.Listener
	dial      func(ctx context.Context, addr, id string) (net.Conn, error) // to that server alone
	locate    func(id string) (addr string, ok bool)                       // newest known address of a server
	fatal     func(error)
	first     string       // how the Raft state begins; empty when it has begun. See home.first
	begun     func() error // notes that it has
}

// openConsensus opens the stores, checks them and starts Raft. Damage is told in one
// sentence with a hint; the library's panics over damaged stores do not get out.
func openConsensus(c consensusConfig, machine *fsm.FSM) (n *consensus, err error) {
	dir := filepath.Join(c.dataDir, "raft")
	if err := hasBegun(c, dir); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, diskFault(c.dataDir, "making the Raft folder", err)
	}
	n = &consensus{id: c.id, notify: make(chan bool, notifyQueueMax), poison: &poison{dir: c.dataDir, fatal: c.fatal}}
	n.fsm = &fsmAdapter{fsm: machine, fatal: c.fatal}
	logger := raftLogger(c.log)
	snaps, err := openSnapshots(dir, n.poison, logger, func(r io.Reader) error { _, err := fsm.Read(r); return err })
	if err != nil {
		return nil, err
	}
	list, err := snaps.List()
	if err != nil {
		return nil, corruptFault(c.dataDir, "the snapshot folder", err)
	}
	snapshotIndex := uint64(0)
	if len(list) > 0 {
		snapshotIndex = list[0].Index
	}
	logs, stable, bolt, err := openBolt(dir, n.poison, snapshotIndex)
	if err != nil {
		return nil, err
	}
	n.logs, n.bolt = logs, bolt
	n.trans = newWire(c, logger, n.leads)
	if err := n.start(c, logger, stable, snaps); err != nil {
		n.trans.Close()
		bolt.Close()
		return nil, err
	}
	return n, nil
}

// hasBegun checks that the Raft state of a member is there, and clears away what a first
// start has left that was cut off: Raft has not run on it, so nobody has heard of it.
func hasBegun(c consensusConfig, dir string) error {
	if c.first != "" {
		if err := os.RemoveAll(dir); err != nil {
			return diskFault(c.dataDir, "clearing the Raft folder", err)
		}
		return nil
	}
	_, err := os.Stat(filepath.Join(dir, raftFile))
	if errors.Is(err, fs.ErrNotExist) {
		return corruptFault(c.dataDir, "the Raft state", fmt.Errorf("%s of a server that has run is missing", raftFile))
	}
	return nil
}

// start makes the Raft instance, on a goroutine whose panics are caught.
func (n *consensus) start(c consensusConfig, logger hclog.Logger, stable *stableStore, snaps raft.SnapshotStore) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = corruptFault(c.dataDir, "the Raft state", r)
		}
	}()
	conf := raftConfig(c, logger, n.notify)
	if c.first == firstAlone {
		first := raft.Configuration{Servers: []raft.Server{{ID: conf.LocalID, Address: raft.ServerAddress(c.advertise)}}}
		if err := raft.BootstrapCluster(conf, n.logs, stable, snaps, n.trans, first); err != nil {
			return fmt.Errorf("write the first Raft configuration: %w", err)
		}
	}
	if c.first != "" {
		if err := errors.Join(syncFolder(filepath.Join(c.dataDir, "raft")), syncFolder(c.dataDir)); err != nil {
			return diskFault(c.dataDir, "syncing the Raft folder", err)
		}
		if err := c.begun(); err != nil {
			return err
		}
	}
	n.raft, err = raft.NewRaft(conf, n.fsm, n.logs, stable, snaps, n.trans)
	if err != nil {
		return corruptFault(c.dataDir, "the Raft state", err)
	}
	n.live.Store(n.raft)
	return nil
}

// leads says whether this server leads in the term; Raft's own goroutines ask it too.
func (n *consensus) leads(term uint64) bool {
	r := n.live.Load()
	return r != nil && r.State() == raft.Leader && r.CurrentTerm() == term
}

func raftConfig(c consensusConfig, logger hclog.Logger, notify chan<- bool) *raft.Config {
	conf := raft.DefaultConfig()
	conf.LocalID = raft.ServerID(c.id)
	conf.HeartbeatTimeout, conf.ElectionTimeout = c.timing.HeartbeatTimeout, c.timing.ElectionTimeout
	conf.LeaderLeaseTimeout, conf.CommitTimeout = c.timing.LeaderLease, c.timing.CommitTimeout
	conf.SnapshotThreshold, conf.SnapshotInterval = c.timing.SnapshotThreshold, c.timing.SnapshotEvery
	conf.TrailingLogs = c.timing.TrailingLogs
	conf.NotifyCh, conf.Logger = notify, logger
	conf.NoLegacyTelemetry = true
	// A removed server keeps running: gossip brings it back as a non-voter if it still belongs.
	conf.ShutdownOnRemove = false
	return conf
}

// applied is the outcome of one entry.
type applied struct {
	index   uint64
	results []*pb.Result
}

// Errors of Apply, by what they say about the entry.
var (
	// errNotApplied is wrapped when the entry is surely not, and never will be, in the log.
	errNotApplied = errors.New("not applied")
	// errUnknown is wrapped when the entry may or may not be applied, now or later.
	errUnknown = errors.New("may or may not have been applied")
)

// pendingApply is an entry that Raft has been given.
type pendingApply interface {
	// Wait blocks until the outcome is known, which without a quorum is when leadership ends.
	Wait() (applied, error)
}

// Apply hands one entry to Raft. It blocks until Raft's main loop takes it.
func (n *consensus) Apply(data []byte) pendingApply {
	return raftApply{n.raft.Apply(data, applyEnqueueWait)}
}

type raftApply struct{ future raft.ApplyFuture }

func (a raftApply) Wait() (applied, error) {
	if err := a.future.Error(); err != nil {
		return applied{}, classify(err)
	}
	results, ok := a.future.Response().([]*pb.Result)
	if !ok {
		return applied{}, fmt.Errorf("%w: this server has stopped applying", errUnknown)
	}
	return applied{index: a.future.Index(), results: results}, nil
}

// classify is the table of RELIABILITY.md B1. What is not surely unapplied is unknown.
func classify(err error) error {
	switch {
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipTransferInProgress),
		errors.Is(err, raft.ErrEnqueueTimeout):
		return fmt.Errorf("%w: %w", errNotApplied, err)
	}
	return fmt.Errorf("%w: %w", errUnknown, err)
}

// Barrier waits until this leader has applied everything of earlier terms.
func (n *consensus) Barrier(timeout time.Duration) error { return n.raft.Barrier(timeout).Error() }

// Verify asks a quorum whether this server still leads, and counts only answers to what
// was asked after the call. The library also counts answers that were on their way before:
// a process that was stopped for a while wakes up with such answers in its sockets, when
// the others may long have another leader.
func (n *consensus) Verify() error {
	for begun := time.Now(); ; {
		if err := n.raft.VerifyLeader().Error(); err != nil {
			return err
		}
		members, _, err := n.Members()
		if err != nil {
			return err
		}
		if n.confirmed(members, begun) {
			return nil
		}
		time.Sleep(verifyPause)
	}
}

// confirmed says whether a majority of the voters answered a heartbeat sent since begun.
func (n *consensus) confirmed(members []member, begun time.Time) bool {
	voters, yes := 0, 0
	for _, m := range members {
		if !m.Voter {
			continue
		}
		voters++
		if m.ID == n.id || n.trans.reach.since(m.ID, begun) {
			yes++
		}
	}
	return yes > voters/2
}

// Term gives the current Raft term.
func (n *consensus) Term() uint64 { return n.raft.CurrentTerm() }

// CommitIndex gives the index up to which entries are committed.
func (n *consensus) CommitIndex() uint64 { return n.raft.CommitIndex() }

// LastIndex gives the index of the newest entry, committed or not.
func (n *consensus) LastIndex() uint64 { return n.raft.LastIndex() }

// IsLeader says whether this server believes that it leads.
func (n *consensus) IsLeader() bool { return n.raft.State() == raft.Leader }

// Leader gives the ID and address of the leader as this server knows it; empty when unknown.
func (n *consensus) Leader() (id, addr string) {
	a, i := n.raft.LeaderWithID()
	return string(i), string(a)
}

// commandAtOrBelow gives the newest index from low+1 to high whose entry the state machine
// applies, low when there is none. No-ops, barriers and configurations never reach it.
func (n *consensus) commandAtOrBelow(high, low uint64) (uint64, error) {
	for i := high; i > low; i-- {
		var l raft.Log
		err := n.logs.GetLog(i, &l)
		if errors.Is(err, raft.ErrLogNotFound) {
			return low, nil // compacted, so it is in a snapshot and was applied
		}
		if err != nil {
			return 0, err
		}
		if l.Type == raft.LogCommand {
			return i, nil
		}
	}
	return low, nil
}

// Members gives the newest configuration, committed or not, and its index.
func (n *consensus) Members() ([]member, uint64, error) {
	f := n.raft.GetConfiguration()
	if err := f.Error(); err != nil {
		return nil, 0, fmt.Errorf("read Raft's configuration: %w", err)
	}
	var out []member
	for _, s := range f.Configuration().Servers {
		out = append(out, member{ID: string(s.ID), Addr: string(s.Address), Voter: s.Suffrage == raft.Voter})
	}
	return out, f.Index(), nil
}

// SetMember adds a server, moves it to another address or makes it a voter. prev is the
// index of the configuration the caller decided on; the change fails when it is not the newest.
func (n *consensus) SetMember(m member, prev uint64) error {
	if m.Voter {
		return n.raft.AddVoter(raft.ServerID(m.ID), raft.ServerAddress(m.Addr), prev, configurationWait).Error()
	}
	return n.raft.AddNonvoter(raft.ServerID(m.ID), raft.ServerAddress(m.Addr), prev, configurationWait).Error()
}

// RemoveMember removes a server; prev as in SetMember.
func (n *consensus) RemoveMember(id string, prev uint64) error {
	return n.raft.RemoveServer(raft.ServerID(id), prev, configurationWait).Error()
}

// Transfer hands leadership to the most advanced follower.
func (n *consensus) Transfer() error { return n.raft.LeadershipTransfer().Error() }

// Snapshot takes a snapshot now.
func (n *consensus) Snapshot() error { return n.raft.Snapshot().Error() }

// Close stops Raft and closes the stores. After a failed write it does not wait: a
// goroutine of the library may be parked in the store for good.
func (n *consensus) Close() error {
	if n.closed.Swap(true) {
		return nil
	}
	done := make(chan error, 1)
	future := n.raft.Shutdown()
	n.trans.sever()
	go func() { done <- future.Error() }()
	if n.poison.check() != nil {
		n.trans.Close()
		return nil
	}
	timer := time.NewTimer(raftShutdownWait)
	defer timer.Stop()
	var err error
	select {
	case err = <-done:
	case <-timer.C:
		n.trans.Close()
		return errors.New("stop Raft: it did not stop in time; its files stay open until the process ends")
	}
	return errors.Join(err, n.trans.Close(), n.bolt.Close())
}
