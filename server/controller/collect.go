package controller

import (
	"slices"
	"time"

	pb "llmos/proto/llmos/v1"
)

// housekeeping proposes what keeps the state bounded and the servers honest: Collect
// forgets old records, and VerifyHash makes every server compare its state with this one's.
// On a log where nothing else happens it falls silent too.
type housekeeping struct {
	lane       lane
	collectAt  time.Duration
	collected  time.Duration // when Collect was proposed last
	verifiedAt time.Duration
	verified   uint64 // index of the last hash sent
	quiet      uint64 // index up to which only housekeeping has written since it last looked
}

// usageDaysKept is how long usage is remembered, in days.
const usageDaysKept = 400

// collectLimit bounds the records of each kind that one Collect forgets.
const collectLimit = 512

func (c *Controller) keepHouse() {
	h := &c.house
	index := c.st.Index()
	due := c.now >= h.collectAt
	many := index >= h.verified+c.cfg.VerifyEntries
	if (!due && !many) || !h.lane.ready(c, true) {
		return
	}
	verify := index > h.quiet && (many || c.now-h.verifiedAt >= c.cfg.VerifyEvery)
	var commands []*pb.Command
	if verify {
		hash := c.st.Hash()
		commands = append(commands, &pb.Command{Op: &pb.Command_VerifyHash{VerifyHash: &pb.VerifyHash{Index: index, Hash: hash[:]}}})
		h.verified, h.verifiedAt, h.quiet = index, c.now, index
	}
	if due {
		h.collectAt = c.now + c.cfg.CollectEvery
		before, old := c.oldJobs()
		if old > collectLimit { // go on as soon as this one is done
			h.collectAt = c.now
		}
		overdue := index > h.quiet && c.now-h.collected >= c.cfg.VerifyEvery
		if old > 0 || verify || overdue {
			h.collected = c.now
			commands = append(commands, &pb.Command{Op: &pb.Command_Collect{Collect: c.collect(before)}})
		}
	}
	if len(commands) > 0 {
		c.propose(&h.lane, commands)
	}
}

// oldJobs gives the time before which finished jobs may be forgotten, by age and by
// number, and how many that are. Keys and tokens do not show in the state one by one;
// they are forgotten along with jobs and hashes, and once every VerifyEvery on a busy log.
func (c *Controller) oldJobs() (beforeMS int64, old int) {
	before := c.wallMS() - c.cfg.RetainJobs.Milliseconds()
	var finished []int64
	for j := range c.st.Jobs() {
		if j.FinishedMs > 0 {
			finished = append(finished, j.FinishedMs)
		}
	}
	slices.Sort(finished)
	if excess := len(finished) - c.cfg.RetainJobsMax; excess > 0 {
		before = max(before, finished[excess-1]+1)
	}
	old, _ = slices.BinarySearch(finished, before)
	return before, old
}

func (c *Controller) collect(beforeMS int64) *pb.Collect {
	return &pb.Collect{JobsFinishedBeforeMs: beforeMS, RequestsBeforeMs: c.wallMS() - c.cfg.RetainRequests.Milliseconds(),
		TokensExpiredBeforeMs: c.wallMS(), Limit: collectLimit,
		UsageBeforeDay: c.wallMS()/dayMS - usageDaysKept, ReservationsEndedBeforeMs: c.wallMS()}
}

// wallMS is the state's own time, continued by the leader's clock since that state came.
func (c *Controller) wallMS() int64 { return c.st.TimeMS() + (c.now - c.stAt).Milliseconds() }
