package state

import pb "llmos/proto/llmos/v1"

// Txn is a change of a state under way: one log entry. It belongs to one goroutine. Reads see
// its own writes. Put methods take ownership of the record; a record that was read must be
// copied before it is changed. Methods that give a fault have changed nothing when they do;
// a caller that has made changes before goes back to its savepoint.
type Txn struct {
	index   uint64
	timeMS  int64
	journal journal
	events  uint32 // written in this entry: the next one's ordinal
	submits uint32 // likewise for jobs
	touched string // the last job whose watch was touched
	hash    sum
	base    *State

	cluster     editTable[*pb.ClusterMeta]
	jobs        editTable[*pb.Job]
	attempts    editTable[*pb.Attempt]
	tasks       editTable[*pb.Task]
	nodes       editTable[*pb.Node]
	accounts    editTable[*pb.NodeAccount]
	allocations editTable[*pb.Allocation]
	queues      editTable[*pb.Queue]
	tokens      editTable[*pb.JoinToken]
	requests    editTable[*pb.RequestRecord]
	sequences   editTable[*pb.NameSequence]
	diary       editTable[*pb.Event]

	usage        editTable[*pb.UsageDay]
	reservations editTable[*pb.Reservation]
	config       editTable[*pb.SchedulerConfig]
	checkpoints  editTable[*pb.Checkpoint]

	jobOrder     edit[string]
	unfinished   edit[*pb.Job]
	finished     edit[string]
	jobNames     edit[string]
	takenNames   edit[string]
	tallies      edit[tally]
	nodeTasks    edit[*pb.Task]
	nodeNames    edit[string]
	requestTimes edit[string]
	watches      edit[struct{}]

	queueCounts edit[QueueCount]
	claims      edit[string]
	cronJobs    edit[string]
	children    edit[string]
	openCopies  edit[string]
	dependents  edit[string]
	unsettled   edit[string]

	nodeCheckpoints edit[*pb.Checkpoint]
}

// Begin starts the change that the log entry at index makes. The state's time becomes timeMS
// unless it is later already; it is at least 1, so that a time of 0 means never.
func (s *State) Begin(index uint64, timeMS int64) *Txn {
	t := &Txn{index: index, timeMS: max(s.timeMS, timeMS, 1), hash: s.hash, base: s}
	t.open(s, &t.journal)
	return t
}

func (t *Txn) open(s *State, j *journal) {
	t.cluster = editTableOf(tableCluster, s.cluster, j)
	t.jobs = editTableOf(tableJobs, s.jobs, j)
	t.attempts = editTableOf(tableAttempts, s.attempts, j)
	t.tasks = editTableOf(tableTasks, s.tasks, j)
	t.nodes = editTableOf(tableNodes, s.nodes, j)
	t.accounts = editTableOf(tableAccounts, s.accounts, j)
	t.allocations = editTableOf(tableAllocations, s.allocations, j)
	t.queues = editTableOf(tableQueues, s.queues, j)
	t.tokens = editTableOf(tableTokens, s.tokens, j)
	t.requests = editTableOf(tableRequests, s.requests, j)
	t.sequences = editTableOf(tableSequences, s.sequences, j)
	t.diary = editTableOf(tableEvents, s.events, j)
	t.usage = editTableOf(tableUsage, s.usage, j)
	t.reservations = editTableOf(tableReservations, s.reservations, j)
	t.config = editTableOf(tableConfig, s.config, j)
	t.checkpoints = editTableOf(tableCheckpoints, s.checkpoints, j)
	t.jobOrder, t.unfinished, t.finished = editOf(s.jobOrder, j), editOf(s.unfinished, j), editOf(s.finished, j)
	t.jobNames, t.takenNames, t.tallies = editOf(s.jobNames, j), editOf(s.takenNames, j), editOf(s.tallies, j)
	t.nodeTasks, t.nodeNames = editOf(s.nodeTasks, j), editOf(s.nodeNames, j)
	t.requestTimes, t.watches = editOf(s.requestTimes, j), editOf(s.watches, j)
	t.watches.notify = true
	t.queueCounts, t.claims, t.cronJobs = editOf(s.queueCounts, j), editOf(s.claims, j), editOf(s.cronJobs, j)
	t.children, t.openCopies = editOf(s.children, j), editOf(s.openCopies, j)
	t.dependents, t.unsettled = editOf(s.dependents, j), editOf(s.unsettled, j)
	t.nodeCheckpoints = editOf(s.nodeCheckpoints, j)
}

// Index is the index of the log entry that is being applied.
func (t *Txn) Index() uint64 { return t.index }

// TimeMS is the time of the state that the transaction makes, in Unix milliseconds.
func (t *Txn) TimeMS() int64 { return t.timeMS }

// Savepoint marks what has been written so far.
type Savepoint struct {
	undo            int
	events, submits uint32
}

// Savepoint marks the present point for Rollback.
func (t *Txn) Savepoint() Savepoint {
	return Savepoint{undo: len(t.journal.undo), events: t.events, submits: t.submits}
}

// Rollback undoes everything written after the savepoint, so that no trace is left.
func (t *Txn) Rollback(to Savepoint) {
	for i := len(t.journal.undo) - 1; i >= to.undo; i-- {
		t.journal.undo[i]()
		t.journal.undo[i] = nil
	}
	t.journal.undo = t.journal.undo[:to.undo]
	t.events, t.submits = to.events, to.submits
	t.touched = ""
}

// Commit gives the new state. Afterwards the transaction may be used for Notify alone.
func (t *Txn) Commit() *State {
	n := &State{index: t.index, timeMS: t.timeMS, deltas: t.remembered()}
	t.base = nil
	var buf []byte
	n.cluster, buf = t.cluster.commitHash(&t.hash, buf)
	n.jobs, buf = t.jobs.commitHash(&t.hash, buf)
	n.attempts, buf = t.attempts.commitHash(&t.hash, buf)
	n.tasks, buf = t.tasks.commitHash(&t.hash, buf)
	n.nodes, buf = t.nodes.commitHash(&t.hash, buf)
	n.accounts, buf = t.accounts.commitHash(&t.hash, buf)
	n.allocations, buf = t.allocations.commitHash(&t.hash, buf)
	n.queues, buf = t.queues.commitHash(&t.hash, buf)
	n.tokens, buf = t.tokens.commitHash(&t.hash, buf)
	n.requests, buf = t.requests.commitHash(&t.hash, buf)
	n.sequences, buf = t.sequences.commitHash(&t.hash, buf)
	n.events, buf = t.diary.commitHash(&t.hash, buf)
	n.usage, buf = t.usage.commitHash(&t.hash, buf)
	n.reservations, buf = t.reservations.commitHash(&t.hash, buf)
	n.config, buf = t.config.commitHash(&t.hash, buf)
	n.checkpoints, _ = t.checkpoints.commitHash(&t.hash, buf)
	n.hash = t.hash
	n.indexes = indexes{
		jobOrder: t.jobOrder.commit(), unfinished: t.unfinished.commit(), finished: t.finished.commit(),
		jobNames: t.jobNames.commit(), takenNames: t.takenNames.commit(), tallies: t.tallies.commit(),
		nodeTasks: t.nodeTasks.commit(), nodeNames: t.nodeNames.commit(), requestTimes: t.requestTimes.commit(),
		watches: t.watches.commit(), queueCounts: t.queueCounts.commit(), claims: t.claims.commit(),
		cronJobs: t.cronJobs.commit(), children: t.children.commit(), openCopies: t.openCopies.commit(),
		dependents: t.dependents.commit(), unsettled: t.unsettled.commit(), nodeCheckpoints: t.nodeCheckpoints.commit(),
	}
	return n
}

// Notify closes the watches of the jobs that the committed transaction changed. Publish the new
// state first, so that whoever wakes finds it.
func (t *Txn) Notify() {
	if t.watches.txn != nil {
		t.watches.txn.Notify()
	}
}

// Cluster is the cluster's own record; nil before InitCluster.
func (t *Txn) Cluster() *pb.ClusterMeta { return t.cluster.rec(clusterKey) }

// PutCluster writes the cluster's own record.
func (t *Txn) PutCluster(m *pb.ClusterMeta) { t.cluster.putRec(clusterKey, m) }
