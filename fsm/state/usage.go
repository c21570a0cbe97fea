package state

import (
	"encoding/binary"
	"iter"
	"math"
	"math/bits"

	pb "llmos/proto/llmos/v1"
)

// DayMS is a day of UTC in milliseconds.
const DayMS = 24 * 60 * 60 * 1000

// usageKey sorts by day, then by queue and user. The user comes last, and may be any text.
func usageKey(day int64, queue, user string) []byte {
	key := binary.BigEndian.AppendUint64(make([]byte, 0, 9+len(queue)+len(user)), uint64(day))
	return append(append(append(key, queue...), 0), user...)
}

// UsageDays walks what was used since a day (days since 1970-01-01, UTC), oldest first.
func (s *State) UsageDays(fromDay int64) iter.Seq[*pb.UsageDay] {
	return func(yield func(*pb.UsageDay) bool) {
		it := s.usage.Root().Iterator()
		it.SeekLowerBound(usageKey(max(fromDay, 0), "", ""))
		for _, r, ok := it.Next(); ok; _, r, ok = it.Next() {
			if !yield(r.rec) {
				return
			}
		}
	}
}

// AddUsage adds to what a user used through a queue on a day. Sums that would overflow stay at
// the largest number.
func (t *Txn) AddUsage(day int64, queue, user string, gpuMilliMS, cpuMilliMS, jobs int64) {
	key := usageKey(day, queue, user)
	old := t.usage.rec(key)
	t.usage.putRec(key, &pb.UsageDay{Queue: queue, User: user, Day: day, GpuMilliMs: SatAdd(old.GetGpuMilliMs(), gpuMilliMS),
		CpuMilliMs: SatAdd(old.GetCpuMilliMs(), cpuMilliMS), Jobs: SatAdd(old.GetJobs(), jobs)})
}

// KnowsUsage reports whether a user has used a queue on a day.
func (t *Txn) KnowsUsage(day int64, queue, user string) bool {
	return t.usage.rec(usageKey(day, queue, user)) != nil
}

// UsageCount is the number of records of past usage.
func (t *Txn) UsageCount() int { return t.usage.len() }

// UsageBefore gives at most limit records of past usage of before a day, oldest first.
func (t *Txn) UsageBefore(day int64, limit int) (out []*pb.UsageDay) {
	for r := range values(t.usage.root(), nil) {
		if len(out) == limit || r.rec.Day >= day {
			break
		}
		out = append(out, r.rec)
	}
	return out
}

// ForgetUsage removes a record of past usage.
func (t *Txn) ForgetUsage(u *pb.UsageDay) { t.usage.removeRec(usageKey(u.Day, u.Queue, u.User)) }

// SatAdd adds two amounts that are not negative, and stays at the largest number.
func SatAdd(a, b int64) int64 {
	if a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}

// SatMul multiplies two amounts that are not negative, and stays at the largest number.
func SatMul(a, b int64) int64 {
	if hi, lo := bits.Mul64(uint64(a), uint64(b)); hi == 0 && lo <= math.MaxInt64 {
		return int64(lo)
	}
	return math.MaxInt64
}
