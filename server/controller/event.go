package controller

import (
	"time"

	"llmos/fsm/state"
	pb "llmos/proto/llmos/v1"
)

// Event is something that happened: one of the types below.
type Event interface{ isEvent() }

// StateChanged brings a newer state. Several may be folded into the newest one.
type StateChanged struct {
	State *state.State
}

// SessionOpened says that an agent has connected and said hello. A newer session of the
// same node replaces the older one.
type SessionOpened struct {
	NodeID  string
	Session uint64 // unique while this server leads
	Hello   *pb.Hello
}

// SessionClosed says that a session has ended, from either side.
type SessionClosed struct {
	NodeID  string
	Session uint64
}

// Heard says that an agent sent anything, such as a heartbeat.
type Heard struct {
	NodeID string
}

// InventoryChanged brings a node's new capacity or devices.
type InventoryChanged struct {
	NodeID string
	Node   *pb.Node
}

// ReportsArrived brings observed transitions. They are acknowledged once committed. Seq
// grows within a session, from 1.
type ReportsArrived struct {
	NodeID      string
	Session     uint64
	Seq         uint64
	Reports     []*pb.TaskReport
	Checkpoints []*pb.CheckpointReport
}

// ProgressArrived brings what tasks of a node last said of themselves and were seen to use.
type ProgressArrived struct {
	NodeID   string
	Progress []*pb.Progress
}

// PassTook says how long Ready took when it ran a pass that placed so many gangs; see
// Controller.Passed.
type PassTook struct {
	Gangs int
	Took  time.Duration
}

// ProposalDone is the outcome of a proposal: the commands' results in order, or an error.
// After an error it may or may not have been applied.
type ProposalDone struct {
	ID      uint64
	Results []*pb.Result
	Err     error
}

func (StateChanged) isEvent()     {}
func (SessionOpened) isEvent()    {}
func (SessionClosed) isEvent()    {}
func (Heard) isEvent()            {}
func (InventoryChanged) isEvent() {}
func (ReportsArrived) isEvent()   {}
func (ProgressArrived) isEvent()  {}
func (PassTook) isEvent()         {}
func (ProposalDone) isEvent()     {}

// Effect is something to carry out: one of the types below.
type Effect interface{ isEffect() }

// Propose asks for the commands to be proposed as one log entry. Its outcome must come
// back as ProposalDone with the same ID. Proposals must reach the log in order.
type Propose struct {
	ID       uint64
	Commands []*pb.Command
}

// Send asks for a message on a session. If it cannot be sent, the session must be closed.
type Send struct {
	NodeID  string
	Session uint64
	Message *pb.ServerMessage
}

// CloseSession asks for a session to be refused with a fault. No SessionClosed is needed
// afterwards.
type CloseSession struct {
	NodeID  string
	Session uint64
	Fault   *pb.Fault
}

func (Propose) isEffect()      {}
func (Send) isEffect()         {}
func (CloseSession) isEffect() {}
