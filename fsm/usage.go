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
	days  []charge
	dayOf map[account]int
	jobs  []jobCharge
	jobOf map[string]int
}

type account struct {
	day         int64
	queue, user string
}

type charge struct {
	account
	gpuMilliMS, cpuMilliMS, jobs int64
}

type jobCharge struct {
	id         string
	gpuMilliMS int64
}

func (c *charged) add(to account, gpu, cpu, jobs int64) {
	at, known := c.dayOf[to]
	if !known {
		if c.dayOf == nil {
			c.dayOf = map[account]int{}
		}
		at = len(c.days)
		c.dayOf[to] = at
		c.days = append(c.days, charge{account: to})
	}
	d := &c.days[at]
	d.gpuMilliMS, d.cpuMilliMS, d.jobs = state.SatAdd(d.gpuMilliMS, gpu), state.SatAdd(d.cpuMilliMS, cpu), d.jobs+jobs
}

func (c *charged) addJob(id string, gpu int64) {
	at, known := c.jobOf[id]
	if !known {
		if c.jobOf == nil {
			c.jobOf = map[string]int{}
		}
		at = len(c.jobs)
		c.jobOf[id] = at
		c.jobs = append(c.jobs, jobCharge{id: id})
	}
	c.jobs[at].gpuMilliMS = state.SatAdd(c.jobs[at].gpuMilliMS, gpu)
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
		a.charged.addJob(job.Id, state.SatMul(share, now-from))
	}
	if share == 0 && held.CpuMilli == 0 {
		return
	}
	last := now / state.DayMS
	for day := max(from/state.DayMS, last-usageDaysKept); day <= last; day++ {
		span := min(now, (day+1)*state.DayMS) - max(from, day*state.DayMS)
		if span > 0 {
			a.charged.add(account{day: day, queue: state.JobQueue(job.Spec), user: job.User}, state.SatMul(share, span), state.SatMul(held.CpuMilli, span), 0)
		}
	}
}

// countEnd counts a job that has ended on this day.
func (a *applier) countEnd(job *pb.Job) {
	if a.keepsTimes() && !state.IsParent(job) {
		a.charged.add(account{day: a.txn.TimeMS() / state.DayMS, queue: state.JobQueue(job.Spec), user: job.User}, 0, 0, 1)
	}
}

// writeCharges writes what the command has charged. Of an array the copies' use is also its own.
func (a *applier) writeCharges() *pb.Fault {
	c := a.charged
	a.charged = charged{}
	for _, d := range c.days {
		if a.txn.UsageCount() >= usageRecordsMax && !a.txn.KnowsUsage(d.day, d.queue, d.user) {
			d.user = "" // so many users: what the queue used is kept at least
		}
		a.txn.AddUsage(d.day, d.queue, d.user, d.gpuMilliMS, d.cpuMilliMS, d.jobs)
	}
	for _, j := range c.jobs {
		parent := a.txn.Job(j.id).GetParent()
		for _, id := range []string{j.id, parent} {
			job := a.txn.Job(id)
			if job == nil {
				continue
			}
			next := state.CopyJob(job)
			next.GpuMilliMs = state.SatAdd(next.GpuMilliMs, j.gpuMilliMS)
			if f := a.txn.PutJob(next); f != nil {
				return f
			}
		}
	}
	return nil
}
