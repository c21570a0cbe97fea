package server

import (
	"fmt"
	"io"
	"sync/atomic"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"llmos/fsm"
	"llmos/fsm/state"
	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
)

// fsmAdapter fits the state machine to Raft. Once it cannot apply an entry it applies no
// other: the server ends, because a state that has skipped an entry is wrong.
type fsmAdapter struct {
	fsm    *fsm.FSM
	fatal  func(error)
	halted atomic.Bool
}

// Apply applies one committed entry and gives its []*pb.Result, nil when this server has halted.
func (a *fsmAdapter) Apply(l *raft.Log) any {
	if a.halted.Load() {
		return nil
	}
	results, err := a.apply(l)
	if err != nil {
		a.halted.Store(true)
		a.fatal(err)
		return nil
	}
	return results
}

func (a *fsmAdapter) apply(l *raft.Log) (results []*pb.Result, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fault.New(pb.ErrorKind_ERROR_KIND_INTERNAL, "applying log entry %d failed by a defect of llmos: %v", l.Index, r).
				Hint("keep the data directory and report this; the server stops so that its state stays equal to the others'")
		}
	}()
	var entry pb.Entry
	if err := proto.Unmarshal(l.Data, &entry); err != nil {
		return nil, fault.New(pb.ErrorKind_ERROR_KIND_INTERNAL, "log entry %d cannot be decoded: %w", l.Index, err).
			Hint("if this server is older than the others, upgrade it; nothing is lost")
	}
	if field, ok := unknownCommand(&entry); ok {
		return nil, fault.New(pb.ErrorKind_ERROR_KIND_INTERNAL, "log entry %d holds a command that this version does not know (field %d)", l.Index, field).
			Hint("upgrade this server to the version of the others; nothing is lost")
	}
	results = a.fsm.Apply(l.Index, &entry)
	if err := a.fsm.Diverged(); err != nil {
		return nil, fault.New(pb.ErrorKind_ERROR_KIND_INTERNAL, "the state of this server differs from the leader's: %w", err).
			Hint("keep a copy of the data directory for a report, move it away and join again with a token")
	}
	return results, nil
}

// unknownCommand finds a command of a newer version, which decodes to no operation.
func unknownCommand(e *pb.Entry) (field int, ok bool) {
	for _, c := range e.Commands {
		if c.Op != nil {
			continue
		}
		num, _, _ := protowire.ConsumeTag(c.ProtoReflect().GetUnknown()) // negative when there is none
		return max(int(num), 0), true
	}
	return 0, false
}

// Snapshot captures the immutable state; Persist writes it while entries go on being applied.
func (a *fsmAdapter) Snapshot() (raft.FSMSnapshot, error) {
	if a.halted.Load() {
		return nil, fmt.Errorf("this server has stopped applying")
	}
	return &stateSnapshot{a.fsm.State()}, nil
}

// Restore replaces the state with a snapshot's.
func (a *fsmAdapter) Restore(r io.ReadCloser) error {
	defer r.Close()
	s, err := fsm.Read(r)
	if err != nil {
		a.halted.Store(true)
		err = fault.New(pb.ErrorKind_ERROR_KIND_INTERNAL, "a snapshot cannot be restored: %w", err).
			Hint("move the data directory away and join again with a token; the other servers have the data")
		a.fatal(err)
		return err
	}
	a.fsm.Restore(s)
	return nil
}

type stateSnapshot struct{ state *state.State }

// Persist writes the snapshot.
func (s *stateSnapshot) Persist(sink raft.SnapshotSink) error {
	if err := fsm.Write(sink, s.state); err != nil {
		sink.Cancel()
		return fmt.Errorf("write the snapshot: %w", err)
	}
	return sink.Close()
}

// Release has nothing to release: the state is immutable and shared.
func (s *stateSnapshot) Release() {}
