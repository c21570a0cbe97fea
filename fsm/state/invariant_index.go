package state

import (
	"bytes"
	"slices"
	"strconv"

	iradix "github.com/hashicorp/go-immutable-radix/v2"

	pb "llmos/proto/llmos/v1"
)

// checkIndexes builds the state again from its records and compares the indexes.
func checkIndexes(c *checker) {
	r := NewRestorer()
	for rec := range c.s.Records() {
		if err := r.Add(rec); err != nil {
			c.fail("the records do not build a state: %v", err)
			return
		}
	}
	want := r.Finish(c.s.index, c.s.timeMS)
	sameTree(c, "jobOrder", c.s.jobOrder, want.jobOrder)
	sameTree(c, "unfinished", c.s.unfinished, want.unfinished)
	sameTree(c, "finished", c.s.finished, want.finished)
	sameTree(c, "jobNames", c.s.jobNames, want.jobNames)
	sameTree(c, "takenNames", c.s.takenNames, want.takenNames)
	sameTree(c, "tallies", c.s.tallies, want.tallies)
	sameTree(c, "nodeTasks", c.s.nodeTasks, want.nodeTasks)
	sameTree(c, "nodeNames", c.s.nodeNames, want.nodeNames)
	sameTree(c, "requestTimes", c.s.requestTimes, want.requestTimes)
	sameTree(c, "watches", c.s.watches, want.watches)
	sameTree(c, "queueCounts", c.s.queueCounts, want.queueCounts)
	sameTree(c, "claims", c.s.claims, want.claims)
	sameTree(c, "cronJobs", c.s.cronJobs, want.cronJobs)
	sameTree(c, "children", c.s.children, want.children)
	sameTree(c, "openCopies", c.s.openCopies, want.openCopies)
	sameTree(c, "dependents", c.s.dependents, want.dependents)
	sameTree(c, "unsettled", c.s.unsettled, want.unsettled)
	sameTree(c, "nodeCheckpoints", c.s.nodeCheckpoints, want.nodeCheckpoints)
}

// sameTree compares two trees entry by entry. Records are compared by identity: an index must
// hold the very record of its table.
func sameTree[V comparable](c *checker, name string, got, want *iradix.Tree[V]) {
	i, k := got.Root().Iterator(), want.Root().Iterator()
	for {
		gotKey, gotValue, more := i.Next()
		wantKey, wantValue, due := k.Next()
		switch {
		case !more && !due:
			return
		case more != due || !bytes.Equal(gotKey, wantKey):
			c.fail("index %s has %q where %q is due", name, gotKey, wantKey)
			return
		case gotValue != wantValue:
			c.fail("index %s has %v at %q, and %v is due", name, gotValue, gotKey, wantValue)
			return
		}
	}
}

func checkHash(c *checker) {
	r := NewRestorer()
	for rec := range c.s.Records() {
		if err := r.Add(rec); err != nil {
			return // I11 says so
		}
	}
	if want := r.txn.hash; want != c.s.hash {
		c.fail("the state hash is %x, and that of the records %x", c.s.hash.bytes(), want.bytes())
	}
}

func checkIdentities(c *checker) {
	for j := range c.s.Jobs() {
		name := JobName(j.Spec)
		if j.Parent != "" {
			_, number, _ := cutLast(j.Id, "_")
			if n, err := strconv.ParseInt(number, 10, 32); err != nil || CopyID(j.Parent, int32(n)) != j.Id || n < 0 {
				c.fail("job %s is a copy of %q", j.Id, j.Parent)
			}
			continue
		}
		_, number, _ := cutLast(j.Id, "-")
		n, err := strconv.ParseUint(number, 10, 64)
		if err != nil || JobID(name, n) != j.Id {
			c.fail("job %s is called %q", j.Id, name)
		}
		if next := lookup(c.s.sequences, []byte(name)).GetNext(); n >= next {
			c.fail("job %s has a number that is not below %d, the next of its name", j.Id, next)
		}
		if j.RequestId != "" && !JobFinished(j.State) && c.s.Request(j.RequestId).GetJobId() != j.Id {
			c.fail("request %s of job %s is not remembered", j.RequestId, j.Id)
		}
	}
	for r := range values(c.s.tasks.Root(), nil) {
		k := r.rec
		if TaskID(k.JobId, k.Epoch, k.Rank) != k.Id || c.s.Task(k.Id) != k {
			c.fail("task %s is rank %d of attempt %d of job %s", k.Id, k.Rank, k.Epoch, k.JobId)
		}
		if c.s.Attempt(k.JobId, k.Epoch) == nil {
			c.fail("task %s is of no attempt", k.Id)
		}
	}
}

func checkIndexBound(c *checker) {
	newest := func(what, id string, index uint64) {
		if index > c.s.index {
			c.fail("%s %s was changed at index %d, and the state is at %d", what, id, index, c.s.index)
		}
	}
	for j := range c.s.Jobs() {
		newest("job", j.Id, max(j.ModifyIndex, j.SubmitIndex))
		if max(j.SubmittedMs, j.StartedMs, j.FinishedMs) > c.s.timeMS {
			c.fail("job %s is newer than the state", j.Id)
		}
	}
	for r := range values(c.s.tasks.Root(), nil) {
		newest("task", r.rec.Id, r.rec.ModifyIndex)
	}
	for n := range c.s.Nodes() {
		newest("node", n.Id, n.ModifyIndex)
	}
	for e := range records(c.s.events, nil) {
		newest("event of", eventScope(e), e.Index)
	}
}

func checkEvents(c *checker) {
	counts := map[string]int{}
	scopes := []string{}
	for e := range records(c.s.events, nil) {
		scope := eventScope(e)
		if counts[scope] == 0 {
			scopes = append(scopes, scope)
		}
		counts[scope]++
	}
	slices.Sort(scopes)
	for _, scope := range scopes {
		if counts[scope] > EventsKept {
			c.fail("%d events are kept of %s", counts[scope], scope)
		}
	}
}

func checkTokens(c *checker) {
	for k := range c.s.Tokens() {
		if k.Role == pb.MemberRole_MEMBER_ROLE_UNSPECIFIED || len(k.SecretSha256) == 0 {
			c.fail("token %s has role %s and a hash of %d bytes", k.Id, Word(k.Role), len(k.SecretSha256))
		}
		if (k.UsedBy != "") != (k.UsedMs != 0) {
			c.fail("token %s was used by %q at %d", k.Id, k.UsedBy, k.UsedMs)
		}
	}
}
