// Package state holds the replicated state of a cluster: immutable tables of jobs, attempts,
// tasks, checkpoints, nodes, the ledger, queues, past usage, reservations, the scheduling policy, join
// tokens and idempotency records, with the indexes that readers need, a hash of all records, the legal transitions, and Check with every invariant.
//
// It decides nothing about the life of a job: package fsm does, through a Txn, one command at a
// time. It reads no clock, knows no network or disk, and starts nothing. A State is safe for any
// number of readers; a Txn belongs to one goroutine. fsm, server/controller and server/api call it.
//
// The rows and their indexes are trees of go-immutable-radix, one a table: a commit copies the
// paths it changes, and readers keep what they hold. Memory shared between versions is the reason
// why a record that was read must never be modified.
package state

import (
	"iter"

	iradix "github.com/hashicorp/go-immutable-radix/v2"

	pb "llmos/proto/llmos/v1"
)

// State is one version of the replicated state. It is immutable.
type State struct {
	index  uint64
	timeMS int64
	hash   sum
	deltas []delta // of the entries that led here, newest last

	cluster     rows[*pb.ClusterMeta]   // one, under clusterKey
	jobs        rows[*pb.Job]           // by ID
	attempts    rows[*pb.Attempt]       // by job and epoch
	tasks       rows[*pb.Task]          // by job, epoch and rank
	nodes       rows[*pb.Node]          // by ID
	accounts    rows[*pb.NodeAccount]   // by node ID
	allocations rows[*pb.Allocation]    // by the task's key
	queues      rows[*pb.Queue]         // by name
	tokens      rows[*pb.JoinToken]     // by ID
	requests    rows[*pb.RequestRecord] // by ID
	sequences   rows[*pb.NameSequence]  // by name
	events      rows[*pb.Event]         // by scope, index and ordinal

	usage        rows[*pb.UsageDay]        // by day, queue and user
	reservations rows[*pb.Reservation]     // by name
	config       rows[*pb.SchedulerConfig] // one, under configKey
	checkpoints  rows[*pb.Checkpoint]      // by job, epoch, step and rank

	indexes
}

// indexes are derived from the tables: a snapshot does not hold them, and the hash leaves them out.
type indexes struct {
	jobOrder     *iradix.Tree[string]   // submit order -> ID
	unfinished   *iradix.Tree[*pb.Job]  // submit order -> job, while it is unfinished
	finished     *iradix.Tree[string]   // time of the end, ID -> ID
	jobNames     *iradix.Tree[string]   // name, newest first -> ID
	takenNames   *iradix.Tree[string]   // queue, explicit name -> ID, while it is unfinished
	tallies      *iradix.Tree[tally]    // attempt -> counts, until it has ended
	nodeTasks    *iradix.Tree[*pb.Task] // node, task -> task, while it holds an allocation
	nodeNames    *iradix.Tree[string]   // name, ID -> ID
	requestTimes *iradix.Tree[string]   // time, ID -> ID
	watches      *iradix.Tree[struct{}] // job ID -> touched with every change of the job

	queueCounts *iradix.Tree[QueueCount] // queue -> its unfinished jobs
	claims      *iradix.Tree[string]     // ID -> ID, while something is kept for the job
	cronJobs    *iradix.Tree[string]     // ID -> ID, while it starts copies
	children    *iradix.Tree[string]     // array or cron job, submit order -> ID of the copy
	openCopies  *iradix.Tree[string]     // the same, while the copy is unfinished and not asked to stop
	dependents  *iradix.Tree[string]     // job, ID of one that waits for it -> that ID
	unsettled   *iradix.Tree[string]     // what an end or a stop has still to bring about: see settle.go

	nodeCheckpoints *iradix.Tree[*pb.Checkpoint] // node, checkpoint -> checkpoint of which the node holds a copy
}

// New gives the empty state at index 0.
func New() *State {
	return &State{
		cluster: iradix.New[*row[*pb.ClusterMeta]](), jobs: iradix.New[*row[*pb.Job]](),
		attempts: iradix.New[*row[*pb.Attempt]](), tasks: iradix.New[*row[*pb.Task]](),
		nodes: iradix.New[*row[*pb.Node]](), accounts: iradix.New[*row[*pb.NodeAccount]](),
		allocations: iradix.New[*row[*pb.Allocation]](), queues: iradix.New[*row[*pb.Queue]](),
		tokens: iradix.New[*row[*pb.JoinToken]](), requests: iradix.New[*row[*pb.RequestRecord]](),
		sequences: iradix.New[*row[*pb.NameSequence]](), events: iradix.New[*row[*pb.Event]](),
		usage: iradix.New[*row[*pb.UsageDay]](), reservations: iradix.New[*row[*pb.Reservation]](),
		config: iradix.New[*row[*pb.SchedulerConfig]](), checkpoints: iradix.New[*row[*pb.Checkpoint]](),
		indexes: indexes{
			jobOrder: iradix.New[string](), unfinished: iradix.New[*pb.Job](), finished: iradix.New[string](),
			jobNames: iradix.New[string](), takenNames: iradix.New[string](), tallies: iradix.New[tally](),
			nodeTasks: iradix.New[*pb.Task](), nodeNames: iradix.New[string](), requestTimes: iradix.New[string](),
			watches: iradix.New[struct{}](), queueCounts: iradix.New[QueueCount](), claims: iradix.New[string](),
			cronJobs: iradix.New[string](), children: iradix.New[string](), openCopies: iradix.New[string](),
			dependents: iradix.New[string](), unsettled: iradix.New[string](), nodeCheckpoints: iradix.New[*pb.Checkpoint](),
		},
	}
}

// Index is the index of the newest log entry in this state; 0 when there is none.
func (s *State) Index() uint64 { return s.index }

// TimeMS is the newest leader time seen, in Unix milliseconds. It never goes back.
func (s *State) TimeMS() int64 { return s.timeMS }

// Hash is the hash of all records. It does not depend on the index or on the order of the
// changes that led here: equal records give equal hashes.
func (s *State) Hash() [32]byte { return s.hash.bytes() }

// SamePolicy says whether the queues, the reservations and the scheduling policy are those of
// another version. It costs three comparisons.
func (s *State) SamePolicy(other *State) bool {
	return s.queues == other.queues && s.reservations == other.reservations && s.config == other.config
}

var clusterKey = []byte("cluster")

// jobsOf walks the jobs whose IDs an index holds below a prefix.
func (s *State) jobsOf(index *iradix.Tree[string], prefix []byte) iter.Seq[*pb.Job] {
	return func(yield func(*pb.Job) bool) {
		index.Root().WalkPrefix(prefix, func(_ []byte, id string) bool { return !yield(s.Job(id)) })
	}
}

// Cluster is the cluster's own record; nil before InitCluster.
func (s *State) Cluster() *pb.ClusterMeta { return lookup(s.cluster, clusterKey) }
