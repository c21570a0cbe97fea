package fsm

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"

	"llmos/fsm/state"
	pb "llmos/proto/llmos/v1"
)

// The bounds of what is kept of a job's checkpoints.
const (
	checkpointsKeptMax  = 100
	checkpointsPerJob   = 65_536 // parts of steps
	checkpointHolders   = 16
	checkpointNameMax   = 255
	checkpointFilesMax  = 1 << 20
	manifestDigestBytes = sha256.Size
)

// registerCheckpoint takes that a node holds a checkpoint. What a job has saved counts from the
// first such word on; it is fenced by the epoch, as promise 3 asks: once another attempt has been
// placed, none but that one's checkpoints are taken.
func (a *applier) registerCheckpoint(c *pb.RegisterCheckpoint) *pb.Fault {
	given := c.GetCheckpoint()
	if !a.keepsCheckpoints() {
		return conflict("upgrade every server", "this cluster's state version does not know checkpoints yet")
	}
	if a.txn.Node(c.NodeId) == nil {
		return state.Refuse(pb.ErrorKind_ERROR_KIND_NOT_FOUND, "register the node first", "there is no node %q", cut(c.NodeId))
	}
	job := a.txn.Job(given.GetJobId())
	if job == nil {
		return state.Refuse(pb.ErrorKind_ERROR_KIND_NOT_FOUND, "drop it", "there is no job %q", cut(given.GetJobId()))
	}
	refused := given.Fault != "" && len(given.ManifestSha256) == 0
	if !refused {
		if f := checkCheckpoint(given); f != nil {
			return f
		}
		if have := a.txn.Checkpoint(given); have != nil && bytes.Equal(have.ManifestSha256, given.ManifestSha256) {
			a.addHolder(have, c.NodeId)
			return nil
		} else if have != nil && have.SavedMs >= given.SavedMs {
			return nil // a word about an older one that comes again
		}
	}
	task, f := a.saver(job, c.NodeId, given)
	if f != nil {
		return f
	}
	if refused {
		a.txn.AddOnlyEvent(&pb.Event{Kind: "checkpoint.refused", JobId: job.Id, TaskId: task.Id, NodeId: c.NodeId,
			Message: fmt.Sprintf("checkpoint %s of rank %d was refused: %s", cut(given.Name), task.Rank, cut(given.Fault))})
		return nil
	}
	return a.newCheckpoint(job, c.NodeId, given)
}

// saver gives the task that saved a checkpoint, or refuses it: only the newest attempt may register
// one, and of a rank only the node on which its task is.
func (a *applier) saver(job *pb.Job, nodeID string, given *pb.Checkpoint) (*pb.Task, *pb.Fault) {
	if given.Epoch != job.Epoch || given.Epoch == 0 {
		return nil, state.Refuse(pb.ErrorKind_ERROR_KIND_STALE_EPOCH, "drop it", "the checkpoint is of attempt %d of job %s, and the newest is %d",
			given.Epoch, job.Id, job.Epoch)
	}
	task := a.txn.Task(state.TaskID(job.Id, given.Epoch, given.Rank))
	if task == nil || task.NodeId != nodeID {
		return nil, state.Refuse(pb.ErrorKind_ERROR_KIND_DENIED, "drop it", "node %s has no task of rank %d of job %s", nodeID, given.Rank, job.Id)
	}
	return task, nil
}

func checkCheckpoint(c *pb.Checkpoint) *pb.Fault {
	switch {
	case len(c.ManifestSha256) != manifestDigestBytes:
		return invalid("checkpoint.manifest_sha256", "a digest has %d bytes, not %d", manifestDigestBytes, len(c.ManifestSha256))
	case c.Step < 0 || c.Step > timeMSMax:
		return invalid("checkpoint.step", "step %d is not possible", c.Step)
	case c.Rank < 0 || c.Rank >= tasksMax:
		return invalid("checkpoint.rank", "rank %d is not possible", c.Rank)
	case !quantity(c.SizeBytes):
		return invalid("checkpoint.size_bytes", "%d bytes are not possible", c.SizeBytes)
	case c.Files < 0 || c.Files > checkpointFilesMax:
		return invalid("checkpoint.files", "%d files are not possible, at most %d", c.Files, checkpointFilesMax)
	case c.Name == "" || len(c.Name) > checkpointNameMax || strings.Contains(c.Name, "/"):
		return invalid("checkpoint.name", "%q cannot be the name of a checkpoint", cut(c.Name))
	}
	return nil
}

// addHolder notes one more node that holds a checkpoint.
func (a *applier) addHolder(have *pb.Checkpoint, nodeID string) {
	if slices.Contains(have.NodeIds, nodeID) || len(have.NodeIds) >= checkpointHolders {
		return
	}
	next := state.CopyCheckpoint(have)
	next.NodeIds = append(slices.Clone(have.NodeIds), nodeID)
	slices.Sort(next.NodeIds)
	a.txn.PutCheckpoint(next)
}

// newCheckpoint writes a checkpoint for the first time, or in the place of an older one of the step.
func (a *applier) newCheckpoint(job *pb.Job, nodeID string, given *pb.Checkpoint) *pb.Fault {
	if a.txn.CheckpointCount(job.Id, checkpointsPerJob) >= checkpointsPerJob {
		if f := a.prune(job); f != nil {
			return f
		}
		if a.txn.CheckpointCount(job.Id, checkpointsPerJob) >= checkpointsPerJob {
			return limit("keep fewer", "job %s has %d parts of checkpoints already", job.Id, checkpointsPerJob)
		}
	}
	next := state.CopyCheckpoint(given)
	next.NodeIds, next.RegisteredMs, next.Fault, next.Origin = []string{nodeID}, a.txn.TimeMS(), "", ""
	next.WorldSize = a.txn.Attempt(job.Id, given.Epoch).WorldSize
	next.SavedMs = min(max(next.SavedMs, 0), timeMSMax)
	a.txn.PutCheckpoint(next)
	return a.refreshSaved(job.Id, next.Rank)
}

// refreshSaved brings a job's record in line with its checkpoints; ranks have just saved one.
func (a *applier) refreshSaved(jobID string, ranks ...int32) *pb.Fault {
	job := a.txn.Job(jobID)
	next := state.CopyJob(job)
	for _, rank := range ranks {
		if at, known := slices.BinarySearch(next.SavingRanks, rank); !known {
			next.SavingRanks = slices.Insert(slices.Clone(next.SavingRanks), at, rank)
		}
	}
	if len(next.SavingRanks) != len(job.SavingRanks) { // it decides what is good
		if f := a.txn.PutJob(next); f != nil {
			return f
		}
		next = state.CopyJob(next)
	}
	next.SavedMs, next.SavedStep = 0, 0
	good := state.NewestGood(a.txn.SavedSteps(jobID))
	if good != nil {
		next.SavedMs, next.SavedStep = good.RegisteredMS(), good.Step
	}
	if next.SavedMs == job.SavedMs && next.SavedStep == job.SavedStep {
		return nil
	}
	if f := a.txn.PutJob(next); f != nil {
		return f
	}
	if good != nil && next.SavedMs == a.txn.TimeMS() {
		a.txn.AddOnlyEvent(&pb.Event{Kind: "checkpoint.saved", JobId: jobID, Message: fmt.Sprintf("step %d is saved; another attempt goes on from it", good.Step)})
	}
	return nil
}

// loseCheckpoint takes that a node holds no good copy of a checkpoint any more.
func (a *applier) loseCheckpoint(c *pb.LoseCheckpoint) *pb.Fault {
	have := a.txn.Checkpoint(c.GetCheckpoint())
	if have == nil || !bytes.Equal(have.ManifestSha256, c.Checkpoint.ManifestSha256) || !slices.Contains(have.NodeIds, c.NodeId) {
		return nil
	}
	a.event("checkpoint.copy_lost", have.JobId, "", c.NodeId, "node %s has no good copy of rank %d's step %d: %s", a.nodeName(c.NodeId), have.Rank, have.Step, cut(c.Reason))
	return a.dropHolder(have, c.NodeId)
}

func (a *applier) nodeName(id string) string {
	if n := a.txn.Node(id); n != nil {
		return n.Name
	}
	return id
}

// dropHolder takes a node off those that hold a checkpoint; without any it is forgotten.
func (a *applier) dropHolder(have *pb.Checkpoint, nodeID string) *pb.Fault {
	next := state.CopyCheckpoint(have)
	next.NodeIds = slices.DeleteFunc(slices.Clone(have.NodeIds), func(id string) bool { return id == nodeID })
	if len(next.NodeIds) > 0 {
		a.txn.PutCheckpoint(next)
		return nil
	}
	a.txn.ForgetCheckpoint(have)
	a.event("checkpoint.lost", have.JobId, "", nodeID, "step %d of rank %d is lost: no node holds it any more", have.Step, have.Rank)
	return a.refreshSaved(have.JobId)
}

// dropHoldings takes a node that is removed off all checkpoints.
func (a *applier) dropHoldings(nodeID string) *pb.Fault {
	for _, have := range a.txn.NodeCheckpoints(nodeID) {
		if f := a.dropHolder(have, nodeID); f != nil {
			return f
		}
	}
	return nil
}

// pruneCheckpoints forgets what the policy of a job does not keep.
func (a *applier) pruneCheckpoints(c *pb.PruneCheckpoints) *pb.Fault {
	job := a.txn.Job(c.JobId)
	if job == nil {
		return state.Refuse(pb.ErrorKind_ERROR_KIND_NOT_FOUND, "", "there is no job %q", cut(c.JobId))
	}
	return a.prune(job)
}

func (a *applier) prune(job *pb.Job) *pb.Fault {
	for _, s := range state.Prunable(job, a.txn.Attempt(job.Id, job.Epoch), a.txn.SavedSteps(job.Id)) {
		for _, c := range s.Ranks {
			a.txn.ForgetCheckpoint(c)
		}
	}
	return a.refreshSaved(job.Id)
}

// keepsCheckpoints reports whether every server of the cluster knows checkpoints.
func (a *applier) keepsCheckpoints() bool {
	cluster := a.txn.Cluster()
	return cluster == nil || cluster.StateVersion >= versionCheckpoints
}
