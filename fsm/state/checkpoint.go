package state

import (
	"encoding/binary"
	"fmt"
	"iter"
	"slices"

	pb "llmos/proto/llmos/v1"
)

// SavedStep is one step that an attempt of a job saved, over its ranks.
type SavedStep struct {
	Epoch  uint64
	Step   int64
	Ranks  []*pb.Checkpoint // by rank
	Needed []int32          // ranks without which it is not good, ascending
	Good   bool             // every needed rank has saved it, and nothing is wrong with it
}

// Fault is why nothing goes on from the step any more; empty when nothing is wrong.
func (s *SavedStep) Fault() string { return s.Ranks[0].GetFault() }

// Part gives the checkpoint that a rank goes on from: its own when it is one of those needed, else
// that of the lowest needed rank, which then saves for others too.
func (s *SavedStep) Part(rank int32) *pb.Checkpoint {
	lowest := s.Ranks[0]
	for _, c := range s.NeededParts() {
		if c.Rank == rank {
			return c
		}
		if c.Rank == s.Needed[0] {
			lowest = c
		}
	}
	return lowest
}

// NeededParts gives the checkpoints of the needed ranks, as far as they are there.
func (s *SavedStep) NeededParts() (out []*pb.Checkpoint) {
	for _, c := range s.Ranks {
		if _, needed := slices.BinarySearch(s.Needed, c.Rank); needed {
			out = append(out, c)
		}
	}
	return out
}

// Newer reports whether one step was saved after another: by a later attempt, or later in the same
// one. An attempt that went on from an older step than its predecessor's last begins a new line, and
// what a process of the predecessor may have saved beyond is passed over.
func (s *SavedStep) Newer(o *SavedStep) bool {
	return s.Epoch > o.Epoch || s.Epoch == o.Epoch && s.Step > o.Step
}

func checkpointKey(c *pb.Checkpoint) []byte {
	key := binary.BigEndian.AppendUint64(attemptKey(c.GetJobId(), c.GetEpoch()), uint64(c.GetStep()))
	return binary.BigEndian.AppendUint32(key, uint32(c.GetRank()))
}

func nodeCheckpointKey(nodeID string, key []byte) []byte {
	return append(terminated(nodeID), key...)
}

// Checkpoints walks all checkpoints by job, epoch, step and rank.
func (s *State) Checkpoints() iter.Seq[*pb.Checkpoint] { return records(s.checkpoints, nil) }

// AnyCheckpoints reports whether there are checkpoints at all.
func (s *State) AnyCheckpoints() bool { return s.checkpoints.Len() > 0 }

// NodeCheckpoints walks the checkpoints of which a node holds a copy.
func (s *State) NodeCheckpoints(nodeID string) iter.Seq[*pb.Checkpoint] {
	return values(s.nodeCheckpoints.Root(), terminated(nodeID))
}

// SameCheckpoints reports whether two states hold the very same checkpoints.
func (s *State) SameCheckpoints(o *State) bool { return s.checkpoints == o.checkpoints }

// SavedSteps gives the steps that a job has saved, newest first.
func (s *State) SavedSteps(jobID string) []SavedStep {
	return savedSteps(s.Job(jobID), records(s.checkpoints, terminated(jobID)))
}

// SavedStep gives one step of a job; nil when nothing is known of it.
func (s *State) SavedStep(jobID string, at *pb.ResumePoint) *SavedStep {
	return findStep(s.SavedSteps(jobID), at)
}

// SavedSteps gives the steps that a job has saved, newest first.
func (t *Txn) SavedSteps(jobID string) []SavedStep {
	return savedSteps(t.Job(jobID), func(yield func(*pb.Checkpoint) bool) {
		for r := range values(t.checkpoints.root(), terminated(jobID)) {
			if !yield(r.rec) {
				return
			}
		}
	})
}

// SavedStep gives one step of a job; nil when nothing is known of it.
func (t *Txn) SavedStep(jobID string, at *pb.ResumePoint) *SavedStep {
	return findStep(t.SavedSteps(jobID), at)
}

func findStep(steps []SavedStep, at *pb.ResumePoint) *SavedStep {
	i := slices.IndexFunc(steps, func(s SavedStep) bool { return s.Epoch == at.GetEpoch() && s.Step == at.GetStep() })
	if at == nil || i < 0 {
		return nil
	}
	return &steps[i]
}

// NewestGood gives the newest of the steps, which are newest first, that is good; nil without one.
func NewestGood(steps []SavedStep) *SavedStep {
	for i := range steps {
		if steps[i].Good {
			return &steps[i]
		}
	}
	return nil
}

// savedSteps groups checkpoints, which come in the order of their keys, by step.
func savedSteps(j *pb.Job, all iter.Seq[*pb.Checkpoint]) (steps []SavedStep) {
	for c := range all {
		if n := len(steps); n == 0 || steps[n-1].Epoch != c.Epoch || steps[n-1].Step != c.Step {
			steps = append(steps, SavedStep{Epoch: c.Epoch, Step: c.Step})
		}
		last := &steps[len(steps)-1]
		last.Ranks = append(last.Ranks, c)
	}
	for i := range steps {
		s := &steps[i]
		s.Needed = neededRanks(j, s.Ranks[0].WorldSize)
		s.Good = s.Fault() == "" && s.covers()
	}
	slices.Reverse(steps)
	return steps
}

// covers reports whether every needed rank has saved the step.
func (s *SavedStep) covers() bool {
	at := 0
	for _, rank := range s.Needed {
		for at < len(s.Ranks) && s.Ranks[at].Rank < rank {
			at++
		}
		if at == len(s.Ranks) || s.Ranks[at].Rank != rank {
			return false
		}
	}
	return true
}

// neededRanks gives the ranks that must have saved a step of an attempt of so many tasks.
func neededRanks(j *pb.Job, world int32) []int32 {
	switch j.GetSpec().GetCheckpoint().GetRanks() {
	case pb.CheckpointRanks_CHECKPOINT_RANKS_FIRST:
		return []int32{0}
	case pb.CheckpointRanks_CHECKPOINT_RANKS_EACH:
		all := make([]int32, world)
		for i := range all {
			all[i] = int32(i)
		}
		return all
	}
	saving := j.GetSavingRanks()
	n, _ := slices.BinarySearch(saving, world) // an attempt of fewer tasks has none beyond
	if n == 0 {
		return []int32{0}
	}
	return saving[:n]
}

// Checkpoint gives the checkpoint that has the same job, epoch, step and rank; nil when there is none.
func (t *Txn) Checkpoint(c *pb.Checkpoint) *pb.Checkpoint {
	return t.checkpoints.rec(checkpointKey(c))
}

// CheckpointCount is the number of checkpoints of a job, but at most limit.
func (t *Txn) CheckpointCount(jobID string, limit int) int {
	return len(t.checkpoints.collect(terminated(jobID), limit))
}

// NodeCheckpoints gives the checkpoints of which a node holds a copy.
func (t *Txn) NodeCheckpoints(nodeID string) []*pb.Checkpoint {
	return t.nodeCheckpoints.collect(terminated(nodeID), -1)
}

// CopyCheckpoint copies a checkpoint so that its fields can be set. The list of nodes is shared:
// replace it, do not change it.
func CopyCheckpoint(c *pb.Checkpoint) *pb.Checkpoint {
	return &pb.Checkpoint{JobId: c.JobId, Epoch: c.Epoch, Step: c.Step, Rank: c.Rank, Name: c.Name, ManifestSha256: c.ManifestSha256,
		SizeBytes: c.SizeBytes, Files: c.Files, SavedMs: c.SavedMs, RegisteredMs: c.RegisteredMs, WorldSize: c.WorldSize,
		NodeIds: c.NodeIds, Fault: c.Fault, Origin: c.Origin}
}

// PutCheckpoint writes a checkpoint, new or changed.
func (t *Txn) PutCheckpoint(c *pb.Checkpoint) {
	key := checkpointKey(c)
	for _, id := range t.checkpoints.rec(key).GetNodeIds() {
		if !slices.Contains(c.NodeIds, id) {
			t.nodeCheckpoints.remove(nodeCheckpointKey(id, key))
		}
	}
	for _, id := range c.NodeIds {
		t.nodeCheckpoints.put(nodeCheckpointKey(id, key), c)
	}
	t.checkpoints.putRec(key, c)
	t.touch(c.JobId)
}

// ForgetCheckpoint removes a checkpoint.
func (t *Txn) ForgetCheckpoint(c *pb.Checkpoint) {
	key := checkpointKey(c)
	for _, id := range t.checkpoints.rec(key).GetNodeIds() {
		t.nodeCheckpoints.remove(nodeCheckpointKey(id, key))
	}
	t.checkpoints.removeRec(key)
	t.touch(c.JobId)
}

// forgetCheckpoints removes all checkpoints of a job.
func (t *Txn) forgetCheckpoints(jobID string) {
	for _, r := range t.checkpoints.collect(terminated(jobID), -1) {
		t.ForgetCheckpoint(r.rec)
	}
}

func (r *Restorer) addCheckpoint(c *pb.Checkpoint) error {
	if r.txn.Job(c.GetJobId()) == nil {
		return fmt.Errorf("a checkpoint is of job %q, which does not exist", c.GetJobId())
	}
	key := checkpointKey(c)
	if err := load(r, &r.txn.checkpoints, key, c); err != nil {
		return err
	}
	for _, id := range c.NodeIds {
		r.txn.nodeCheckpoints.put(nodeCheckpointKey(id, key), c)
	}
	return nil
}

// RegisteredMS is when the last part of the step was registered.
func (s *SavedStep) RegisteredMS() (ms int64) {
	for _, c := range s.Ranks {
		ms = max(ms, c.RegisteredMs)
	}
	return ms
}
