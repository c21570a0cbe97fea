package state

import (
	"fmt"
	"iter"

	"google.golang.org/protobuf/proto"

	pb "llmos/proto/llmos/v1"
)

// Records walks every record in the order in which a Restorer takes them.
func (s *State) Records() iter.Seq[*pb.SnapshotRecord] {
	return func(yield func(*pb.SnapshotRecord) bool) {
		_ = each(s.cluster, yield, func(r *pb.ClusterMeta) *pb.SnapshotRecord {
			return &pb.SnapshotRecord{Record: &pb.SnapshotRecord_Cluster{Cluster: r}}
		}) && each(s.queues, yield, func(r *pb.Queue) *pb.SnapshotRecord {
			return &pb.SnapshotRecord{Record: &pb.SnapshotRecord_Queue{Queue: r}}
		}) && each(s.jobs, yield, func(r *pb.Job) *pb.SnapshotRecord {
			return &pb.SnapshotRecord{Record: &pb.SnapshotRecord_Job{Job: r}}
		}) && each(s.attempts, yield, func(r *pb.Attempt) *pb.SnapshotRecord {
			return &pb.SnapshotRecord{Record: &pb.SnapshotRecord_Attempt{Attempt: r}}
		}) && each(s.tasks, yield, func(r *pb.Task) *pb.SnapshotRecord {
			return &pb.SnapshotRecord{Record: &pb.SnapshotRecord_Task{Task: r}}
		}) && each(s.nodes, yield, func(r *pb.Node) *pb.SnapshotRecord {
			return &pb.SnapshotRecord{Record: &pb.SnapshotRecord_Node{Node: r}}
		}) && each(s.accounts, yield, func(r *pb.NodeAccount) *pb.SnapshotRecord {
			return &pb.SnapshotRecord{Record: &pb.SnapshotRecord_Account{Account: r}}
		}) && each(s.allocations, yield, func(r *pb.Allocation) *pb.SnapshotRecord {
			return &pb.SnapshotRecord{Record: &pb.SnapshotRecord_Allocation{Allocation: r}}
		}) && each(s.tokens, yield, func(r *pb.JoinToken) *pb.SnapshotRecord {
			return &pb.SnapshotRecord{Record: &pb.SnapshotRecord_Token{Token: r}}
		}) && each(s.requests, yield, func(r *pb.RequestRecord) *pb.SnapshotRecord {
			return &pb.SnapshotRecord{Record: &pb.SnapshotRecord_Request{Request: r}}
		}) && each(s.sequences, yield, func(r *pb.NameSequence) *pb.SnapshotRecord {
			return &pb.SnapshotRecord{Record: &pb.SnapshotRecord_NameSequence{NameSequence: r}}
		}) && each(s.events, yield, func(r *pb.Event) *pb.SnapshotRecord {
			return &pb.SnapshotRecord{Record: &pb.SnapshotRecord_Event{Event: r}}
		}) && each(s.usage, yield, func(r *pb.UsageDay) *pb.SnapshotRecord {
			return &pb.SnapshotRecord{Record: &pb.SnapshotRecord_UsageDay{UsageDay: r}}
		}) && each(s.reservations, yield, func(r *pb.Reservation) *pb.SnapshotRecord {
			return &pb.SnapshotRecord{Record: &pb.SnapshotRecord_Reservation{Reservation: r}}
		}) && each(s.config, yield, func(r *pb.SchedulerConfig) *pb.SnapshotRecord {
			return &pb.SnapshotRecord{Record: &pb.SnapshotRecord_SchedulerConfig{SchedulerConfig: r}}
		}) && each(s.checkpoints, yield, func(r *pb.Checkpoint) *pb.SnapshotRecord {
			return &pb.SnapshotRecord{Record: &pb.SnapshotRecord_Checkpoint{Checkpoint: r}}
		})
	}
}

// each yields the records of a table; false when the reader stopped.
func each[T proto.Message](t rows[T], yield func(*pb.SnapshotRecord) bool, wrap func(T) *pb.SnapshotRecord) bool {
	for rec := range records(t, nil) {
		if !yield(wrap(rec)) {
			return false
		}
	}
	return true
}

// Restorer builds a state from the records of a snapshot, and its indexes from the records.
type Restorer struct {
	txn Txn
	buf []byte
}

// NewRestorer starts with the empty state.
func NewRestorer() *Restorer {
	r := &Restorer{}
	r.txn.open(New(), nil)
	return r
}

// Finish gives the state. The restorer must not be used afterwards.
func (r *Restorer) Finish(index uint64, timeMS int64) *State {
	r.txn.index, r.txn.timeMS = index, timeMS
	r.txn.restoreUnsettled()
	return r.txn.Commit()
}

// Add takes the next record. It refuses a record that is there already, one whose key cannot
// be, and one that comes before the record it belongs to.
func (r *Restorer) Add(rec *pb.SnapshotRecord) error {
	t := &r.txn
	switch rec := rec.GetRecord().(type) {
	case *pb.SnapshotRecord_Cluster:
		return load(r, &t.cluster, clusterKey, rec.Cluster)
	case *pb.SnapshotRecord_Queue:
		return load(r, &t.queues, []byte(rec.Queue.GetName()), rec.Queue)
	case *pb.SnapshotRecord_Job:
		return r.addJob(rec.Job)
	case *pb.SnapshotRecord_Attempt:
		return r.addAttempt(rec.Attempt)
	case *pb.SnapshotRecord_Task:
		return r.addTask(rec.Task)
	case *pb.SnapshotRecord_Node:
		if err := load(r, &t.nodes, []byte(rec.Node.GetId()), rec.Node); err != nil {
			return err
		}
		t.nodeNames.put(terminated(rec.Node.GetName(), rec.Node.GetId()), rec.Node.GetId())
		return nil
	case *pb.SnapshotRecord_Account:
		return load(r, &t.accounts, []byte(rec.Account.GetNodeId()), rec.Account)
	case *pb.SnapshotRecord_Allocation:
		return r.addAllocation(rec.Allocation)
	case *pb.SnapshotRecord_Token:
		return load(r, &t.tokens, []byte(rec.Token.GetId()), rec.Token)
	case *pb.SnapshotRecord_Request:
		if err := load(r, &t.requests, []byte(rec.Request.GetRequestId()), rec.Request); err != nil {
			return err
		}
		t.requestTimes.put(timeKey(rec.Request.GetTimeMs(), rec.Request.GetRequestId()), rec.Request.GetRequestId())
		return nil
	case *pb.SnapshotRecord_NameSequence:
		return load(r, &t.sequences, []byte(rec.NameSequence.GetName()), rec.NameSequence)
	case *pb.SnapshotRecord_Event:
		return load(r, &t.diary, eventKey(rec.Event), rec.Event)
	case *pb.SnapshotRecord_UsageDay:
		return load(r, &t.usage, usageKey(rec.UsageDay.GetDay(), rec.UsageDay.GetQueue(), rec.UsageDay.GetUser()), rec.UsageDay)
	case *pb.SnapshotRecord_Reservation:
		return load(r, &t.reservations, []byte(rec.Reservation.GetName()), rec.Reservation)
	case *pb.SnapshotRecord_SchedulerConfig:
		return load(r, &t.config, configKey, rec.SchedulerConfig)
	case *pb.SnapshotRecord_Checkpoint:
		return r.addCheckpoint(rec.Checkpoint)
	}
	return fmt.Errorf("a record is of a kind that this version does not know")
}

func load[T proto.Message](r *Restorer, table *editTable[T], key []byte, rec T) (err error) {
	if len(key) == 0 {
		return fmt.Errorf("a record of table %d has no key", table.id)
	}
	var ok bool
	if r.buf, ok = table.load(key, rec, &r.txn.hash, r.buf); !ok {
		return fmt.Errorf("record %q of table %d is there twice", key, table.id)
	}
	return nil
}

func (r *Restorer) addJob(j *pb.Job) error {
	t := &r.txn
	if err := load(r, &t.jobs, []byte(j.GetId()), j); err != nil {
		return err
	}
	if _, taken := t.jobOrder.get(orderKey(j)); taken {
		return fmt.Errorf("two jobs were submitted at index %d.%d", j.SubmitIndex, j.SubmitOrdinal)
	}
	t.watches.put([]byte(j.Id), struct{}{})
	t.indexJob(nil, j)
	return nil
}

func (r *Restorer) addAttempt(a *pb.Attempt) error {
	key := attemptKey(a.GetJobId(), a.GetEpoch())
	if err := load(r, &r.txn.attempts, key, a); err != nil {
		return err
	}
	if a.State != pb.AttemptState_ATTEMPT_STATE_ENDED {
		r.txn.tallies.put(key, tally{})
	}
	return nil
}

func (r *Restorer) addTask(k *pb.Task) error {
	key := taskKey(k.GetJobId(), k.GetEpoch(), k.GetRank())
	if r.txn.Attempt(k.GetJobId(), k.GetEpoch()) == nil {
		return fmt.Errorf("task %q belongs to no attempt", k.GetId())
	}
	if err := load(r, &r.txn.tasks, key, k); err != nil {
		return err
	}
	r.txn.countTask(nil, k)
	return nil
}

func (r *Restorer) addAllocation(a *pb.Allocation) error {
	key, ok := taskIDKey(a.GetTaskId())
	if !ok {
		return fmt.Errorf("an allocation is of %q, which is no task", a.GetTaskId())
	}
	task := r.txn.tasks.rec(key)
	if task == nil {
		return fmt.Errorf("an allocation is of task %q, which does not exist", a.GetTaskId())
	}
	if err := load(r, &r.txn.allocations, key, a); err != nil {
		return err
	}
	r.txn.nodeTasks.put(nodeTaskKey(a.GetNodeId(), key), task)
	return nil
}
