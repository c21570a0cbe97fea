package fsm

import (
	"llmos/fsm/state"
	pb "llmos/proto/llmos/v1"
)

// usageDaysKept bounds how far back one allocation is charged, in days. An older day would be
// forgotten at once.
const usageDaysKept = 400

// charged is what one command has to charge: to accounts of a day, and to jobs. It is written once,
// at the end of the command, so that a report of many tasks writes each record once.
type charged struct {
	days sums[account, use]
	jobs sums[string, use] // by job ID
}

type account struct {
	day         int64
	queue, user string
}

// use is what allocations held: amounts times milliseconds. jobs counts those that ended.
type use struct{ gpuMilliMS, cpuMilliMS, jobs int64 }

func (u use) Plus(o use) use {
	return use{state.SatAdd(u.gpuMilliMS, o.gpuMilliMS), state.SatAdd(u.cpuMilliMS, o.cpuMilliMS), u.jobs + o.jobs}
}

// sums adds up by key, and keeps the keys in the order in which they came.
type sums[K comparable, V interface{ Plus(V) V }] struct {
	list []sumOf[K, V]
	at   map[K]int // once the list is longer than sumsScanMax
}

type sumOf[K comparable, V any] struct {
	key K
	sum V
}

// sumsScanMax is how many keys are searched one by one before a map is made of them.
const sumsScanMax = 8

// find gives the place of a key; -1 when it has none.
func (s *sums[K, V]) find(key K) int {
	if s.at != nil {
		if i, ok := s.at[key]; ok {
			return i
		}
		return -1
	}
	for i := range s.list {
		if s.list[i].key == key {
			return i
		}
	}
	return -1
}

func (s *sums[K, V]) add(key K, v V) {
	if i := s.find(key); i >= 0 {
		s.list[i].sum = s.list[i].sum.Plus(v)
		return
	}
	s.list = append(s.list, sumOf[K, V]{key, v})
	if s.at != nil {
		s.at[key] = len(s.list) - 1
	} else if len(s.list) > sumsScanMax {
		s.at = make(map[K]int, 2*sumsScanMax)
		for i := range s.list {
			s.at[s.list[i].key] = i
		}
	}
}

// take gives a sum and forgets it.
func (s *sums[K, V]) take(key K) (v V) {
	if i := s.find(key); i >= 0 {
		v, s.list[i].sum = s.list[i].sum, v
	}
	return v
}

// release frees what a task holds, and charges it for the time that it held it.
func (a *applier) release(task *pb.Task) {
	held := a.txn.Release(task)
	if held == nil || !a.keepsTimes() {
		return
	}
	job := a.txn.Job(held.JobId)
	from, now := max(held.GrantedMs, 0), a.txn.TimeMS()
	if job == nil || from >= now {
		return
	}
	share := int64(0)
	for _, g := range held.Devices {
		share += int64(g.ShareMilli)
	}
	if share > 0 {
		a.charged.jobs.add(job.Id, use{gpuMilliMS: state.SatMul(share, now-from)})
	}
	if share == 0 && held.CpuMilli == 0 {
		return
	}
	last := now / state.DayMS
	for day := max(from/state.DayMS, last-usageDaysKept); day <= last; day++ {
		span := min(now, (day+1)*state.DayMS) - max(from, day*state.DayMS)
		if span > 0 {
			a.charged.days.add(account{day: day, queue: state.JobQueue(job.Spec), user: job.User},
				use{gpuMilliMS: state.SatMul(share, span), cpuMilliMS: state.SatMul(held.CpuMilli, span)})
		}
	}
}

// countEnd counts a job that has ended on this day.
func (a *applier) countEnd(job *pb.Job) {
	if a.keepsTimes() && !state.IsParent(job) {
		a.charged.days.add(account{day: a.txn.TimeMS() / state.DayMS, queue: state.JobQueue(job.Spec), user: job.User}, use{jobs: 1})
	}
}

// chargeNow charges a job, which is the caller's own copy and about to be written, at once.
func (a *applier) chargeNow(job *pb.Job) *pb.Fault {
	gpu := a.charged.jobs.take(job.Id).gpuMilliMS
	if gpu == 0 {
		return nil
	}
	job.GpuMilliMs = state.SatAdd(job.GpuMilliMs, gpu)
	return a.chargeJob(job.Parent, gpu)
}

// chargeJob charges a job with what its allocations used; no job is charged for an ID of "".
func (a *applier) chargeJob(id string, gpu int64) *pb.Fault {
	job := a.txn.Job(id)
	if job == nil {
		return nil
	}
	next := state.CopyJob(job)
	next.GpuMilliMs = state.SatAdd(next.GpuMilliMs, gpu)
	return a.txn.PutJob(next)
}

// writeCharges writes what the command has charged. Of an array the copies' use is also its own.
func (a *applier) writeCharges() *pb.Fault {
	c := a.charged
	a.charged = charged{}
	for _, d := range c.days.list {
		to := d.key
		if a.txn.UsageCount() >= usageRecordsMax && !a.txn.KnowsUsage(to.day, to.queue, to.user) {
			to.user = "" // so many users: what the queue used is kept at least
		}
		a.txn.AddUsage(to.day, to.queue, to.user, d.sum.gpuMilliMS, d.sum.cpuMilliMS, d.sum.jobs)
	}
	for _, j := range c.jobs.list {
		if j.sum.gpuMilliMS == 0 {
			continue
		}
		for _, id := range []string{j.key, a.txn.Job(j.key).GetParent()} {
			if f := a.chargeJob(id, j.sum.gpuMilliMS); f != nil {
				return f
			}
		}
	}
	return nil
}
