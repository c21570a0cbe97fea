package state

import pb "llmos/proto/llmos/v1"

// Request gives what is remembered of an idempotency key; nil when nothing is.
func (s *State) Request(id string) *pb.RequestRecord { return lookup(s.requests, []byte(id)) }

// Request gives what is remembered of an idempotency key; nil when nothing is.
func (t *Txn) Request(id string) *pb.RequestRecord { return t.requests.rec([]byte(id)) }

// PutRequest remembers the outcome of an idempotency key.
func (t *Txn) PutRequest(r *pb.RequestRecord) {
	t.requests.putRec([]byte(r.RequestId), r)
	t.requestTimes.put(timeKey(r.TimeMs, r.RequestId), r.RequestId)
}

// RequestsBefore gives at most limit keys remembered since before a time, oldest first, leaving
// out those whose job has not finished: a retry of them must still find it.
func (t *Txn) RequestsBefore(ms int64, limit int) (ids []string) {
	if ms <= 0 {
		return nil
	}
	for id := range values(t.requestTimes.root(), nil) {
		r := t.Request(id)
		if len(ids) == limit || r.TimeMs >= ms {
			break
		}
		if j := t.Job(r.JobId); j == nil || JobFinished(j.State) {
			ids = append(ids, id)
		}
	}
	return ids
}

// ForgetRequest removes an idempotency key: the same key would submit again.
func (t *Txn) ForgetRequest(id string) {
	if r := t.Request(id); r != nil {
		t.requests.removeRec([]byte(id))
		t.requestTimes.remove(timeKey(r.TimeMs, id))
	}
}

// NextInSequence counts a submit under a name and gives its number, from 1. It never gives a
// number twice, even after the jobs were forgotten.
func (t *Txn) NextInSequence(name string) uint64 {
	n := max(t.sequences.rec([]byte(name)).GetNext(), 1)
	t.sequences.putRec([]byte(name), &pb.NameSequence{Name: name, Next: n + 1})
	return n
}

// KnowsName reports whether a job was ever submitted under a name.
func (t *Txn) KnowsName(name string) bool { return t.sequences.rec([]byte(name)) != nil }

// NameCount is the number of names ever used.
func (t *Txn) NameCount() int { return t.sequences.len() }
