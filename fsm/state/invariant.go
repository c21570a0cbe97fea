package state

import (
	"errors"
	"fmt"
)

// violationsMax bounds how many violations Check tells of.
const violationsMax = 20

// invariants are what holds of every committed state, in the order in which they are checked.
// The numbers appear in errors and are not given again.
var invariants = []struct {
	name string
	what string
	hold func(*checker)
}{
	{"I1", "every node has one account and every account a node; 0 <= allocated <= capacity of CPU and memory; " +
		"an account is available exactly while its node is ready, and its capacity is what the node reports, " +
		"or what is allocated where that is more", checkAccounts},
	{"I2", "a device's page has 0 to 1,000 shares and 0 to capacity bytes allocated, pages are in order and unique, " +
		"there is one for each device of the node, and it is available exactly while the device is OK", checkDevices},
	{"I3", "for every node and device, what allocations hold is what the account says is allocated: " +
		"free + allocated + unavailable = capacity", checkSums},
	{"I4", "a node's allocated ports are in order and unique", checkPorts},
	{"I5", "every live task has exactly one allocation, which names its job, epoch and node; " +
		"every other allocation is of a lost task, fenced until its node answers", checkHolders},
	{"I6", "a whole device has one holder", checkWholeDevices},
	{"I7", "a job's epoch is that of its newest attempt; epochs count up from 1, " +
		"without a gap among the 2,000 newest; at most the newest attempt has not ended", checkEpochs},
	{"I8", "a job is running or stopping exactly while an attempt of it has not ended, or, of an array, while it has not ended; " +
		"stopping has been asked for; exactly cron jobs that go on are scheduled", checkJobStates},
	{"I9", "a live attempt has a live task and none that failed, was stopped or lost; the live tasks of an ending attempt " +
		"are asked to stop; an ended attempt has no live task; the newest attempt has all its tasks by rank", checkAttempts},
	{"I10", "a finished job holds nothing but what its lost tasks hold, and has a time of its end; another job has none", checkFinished},
	{"I11", "the indexes are those that the tables give", checkIndexes},
	{"I12", "the state hash is that of the records", checkHash},
	{"I13", "a record's key is made of its own fields; a job's number is below the next of its name; a request's job bears its ID", checkIdentities},
	{"I14", "no record is newer than the state", checkIndexBound},
	{"I15", "at most 64 events are kept of a job, a node, and the cluster", checkEvents},
	{"I16", "a join token was used by somebody at some time, or by nobody", checkTokens},
	{"I17", "unfinished jobs of a queue have different names, but for generated ones and copies", checkNames},
	{"I18", "room is kept only for unfinished jobs without a live attempt, until some time, on nodes that exist", checkClaims},
	{"I19", "a queue's name is below its parent's, which exists; no queue guarantees more than it has; unfinished jobs are in " +
		"queues that have none below them, and the default queue is one of those", checkQueues},
	{"I20", "only pending jobs wait for others, each of which exists and is named by the spec, once", checkBlocked},
	{"I21", "a copy has a parent, and the parent's counts are those of its copies; a parent is never placed; an array that has " +
		"not ended has all its copies, and one that has ended has no unfinished one", checkCopies},
	{"I22", "a reservation is of something, of nodes that exist, and ends after it starts", checkReservations},
	{"I23", "what was used is not negative and not of the future; a job avoids at most 16 nodes", checkUsage},
	{"I24", "a checkpoint is of a job and of an attempt that it has had, of a rank that is known to save, and nodes that exist hold " +
		"it; the parts of a step agree; a job's record names its newest good step; an attempt goes on from an older one", checkCheckpoints},
}

// checker gathers violations.
type checker struct {
	s          *State
	name       string
	violations []error
}

func (c *checker) fail(format string, args ...any) {
	if len(c.violations) < violationsMax {
		c.violations = append(c.violations, fmt.Errorf("%s: "+format, append([]any{c.name}, args...)...))
	}
}

// Check checks every invariant and gives the violations, at most violationsMax, each with its
// number; nil when all hold. It walks the whole state: it is for tests, for status requests and
// for after a restore, not for every entry.
func Check(s *State) error {
	c := &checker{s: s}
	for _, inv := range invariants {
		c.name = inv.name
		inv.hold(c)
	}
	return errors.Join(c.violations...)
}

// Invariants lists the invariants by number, for documentation.
func Invariants() []string {
	out := make([]string, len(invariants))
	for i, inv := range invariants {
		out[i] = inv.name + ": " + inv.what
	}
	return out
}
