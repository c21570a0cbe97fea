package fsm

import (
	"fmt"

	"llmos/fsm/state"
	pb "llmos/proto/llmos/v1"
)

// applier applies the commands of one entry.
type applier struct {
	fsm      *FSM
	txn      *state.Txn
	diverged error
	charged  charged // by the command that is being applied
}

// apply applies one command whole, or goes back to where it was and gives the fault.
func (a *applier) apply(c *pb.Command) *pb.Result {
	r := &pb.Result{}
	before := a.txn.Savepoint()
	f := a.dispatch(c, r)
	if f == nil {
		f = a.writeCharges()
	}
	if f != nil {
		a.charged = charged{}
		a.txn.Rollback(before)
		r = &pb.Result{Fault: f}
	}
	r.Index = a.txn.Index()
	return r
}

// dispatch is the one switch over all commands. Apply has refused unknown ones before.
func (a *applier) dispatch(c *pb.Command, r *pb.Result) *pb.Fault {
	switch op := c.GetOp().(type) {
	case *pb.Command_InitCluster:
		return a.initCluster(op.InitCluster, r)
	case *pb.Command_SubmitJob:
		return a.submitJob(op.SubmitJob, r)
	case *pb.Command_StopJob:
		return a.stopJob(op.StopJob, r)
	case *pb.Command_RegisterNode:
		return a.registerNode(op.RegisterNode)
	case *pb.Command_SetNodeState:
		return a.setNodeState(op.SetNodeState)
	case *pb.Command_RemoveNode:
		return a.removeNode(op.RemoveNode)
	case *pb.Command_ApplyPlan:
		return a.applyPlan(op.ApplyPlan, r)
	case *pb.Command_ReportTasks:
		return a.reportTasks(op.ReportTasks, r)
	case *pb.Command_LoseTasks:
		return a.loseTasks(op.LoseTasks, r)
	case *pb.Command_CreateToken:
		return a.createToken(op.CreateToken)
	case *pb.Command_ConsumeToken:
		return a.consumeToken(op.ConsumeToken, r)
	case *pb.Command_Collect:
		return a.collect(op.Collect)
	case *pb.Command_VerifyHash:
		return a.verifyHash(op.VerifyHash)
	case *pb.Command_SetQueues:
		return a.setQueues(op.SetQueues)
	case *pb.Command_SetSchedulerConfig:
		return a.setSchedulerConfig(op.SetSchedulerConfig)
	case *pb.Command_CreateReservation:
		return a.createReservation(op.CreateReservation)
	case *pb.Command_RemoveReservation:
		return a.removeReservation(op.RemoveReservation)
	case *pb.Command_DrainNode:
		return a.drainNode(op.DrainNode)
	case *pb.Command_FireCron:
		return a.fireCron(op.FireCron, r)
	case *pb.Command_LapseClaims:
		return a.lapseClaims(op.LapseClaims)
	case *pb.Command_RegisterCheckpoint:
		return a.registerCheckpoint(op.RegisterCheckpoint)
	case *pb.Command_LoseCheckpoint:
		return a.loseCheckpoint(op.LoseCheckpoint)
	case *pb.Command_PruneCheckpoints:
		return a.pruneCheckpoints(op.PruneCheckpoints)
	}
	return state.Refuse(pb.ErrorKind_ERROR_KIND_INTERNAL, "", "a command of type %T is not known", c.GetOp())
}

// initCluster makes the cluster's own record, or raises the version of its state. An unknown cluster
// ID, a version that this program does not know and a step back change nothing.
func (a *applier) initCluster(c *pb.InitCluster, r *pb.Result) *pb.Fault {
	m := c.GetMeta()
	if !state.ValidID(m.GetClusterId()) {
		return invalid("meta.cluster_id", "%q cannot be a cluster's ID", cut(m.GetClusterId()))
	}
	if len(m.Name) > textBytesMax {
		return invalid("meta.name", "the cluster's name is %d bytes long, at most %d", len(m.Name), textBytesMax)
	}
	if now := a.txn.Cluster(); now != nil && now.ClusterId != m.ClusterId {
		return state.Refuse(pb.ErrorKind_ERROR_KIND_CONFLICT, "give another data directory to make another cluster",
			"this is cluster %s already, and cannot become %s", now.ClusterId, m.ClusterId)
	} else if version := stateVersionOf(m); version > StateVersion {
		return state.Refuse(pb.ErrorKind_ERROR_KIND_INVALID, "upgrade llmos on every server first", "state version %d is not known, at most %d is", version, StateVersion)
	} else if now != nil && version > now.StateVersion {
		a.txn.PutCluster(&pb.ClusterMeta{ClusterId: now.ClusterId, Name: now.Name, CreatedMs: now.CreatedMs, StateVersion: version})
		a.event("cluster.upgraded", "", "", "", "commands mean what state version %d says", version)
	} else if now == nil {
		a.txn.PutCluster(&pb.ClusterMeta{ClusterId: m.ClusterId, Name: m.Name, CreatedMs: a.txn.TimeMS(), StateVersion: version})
		a.txn.PutQueue(&pb.Queue{Name: state.DefaultQueue, Weight: 1})
		a.event("cluster.created", "", "", "", "cluster %s was created", m.ClusterId)
	}
	r.ClusterId = m.ClusterId
	return nil
}

// verifyHash compares this server's state hash at an index with the leader's. A difference is
// a defect that no command can mend: this server must not go on.
func (a *applier) verifyHash(c *pb.VerifyHash) *pb.Fault {
	mine, ok := a.fsm.HashAt(c.Index)
	if !ok || string(mine[:]) == string(c.Hash) {
		return nil
	}
	f := state.Refuse(pb.ErrorKind_ERROR_KIND_INTERNAL, "keep a copy of this server's data directory for a report, and join it again",
		"state hash at index %d differs", c.Index)
	a.diverged = fmt.Errorf("%w: state hash at index %d differs: %x here, %x at the leader", ErrDiverged, c.Index, mine, c.Hash)
	return f
}

func (a *applier) event(kind, jobID, taskID, nodeID, format string, args ...any) {
	a.txn.AddEvent(&pb.Event{Kind: kind, JobId: jobID, TaskId: taskID, NodeId: nodeID, Message: fmt.Sprintf(format, args...)})
}
