package controller

import (
	"math"
	"time"

	"llmos/server/forecast"
	"llmos/server/scheduler"
)

// Defaults of the replicated policy that the controller itself uses.
const (
	usageHalfLifeDefault = 7 * 24 * time.Hour
	elasticEveryDefault  = time.Minute
	dayMS                = int64(24 * time.Hour / time.Millisecond)
)

// orders and backfills are the words of the replicated policy.
var (
	orders = map[string]scheduler.Order{"fair": scheduler.OrderFair, "fifo": scheduler.OrderFIFO, "las": scheduler.OrderIndex}

	backfills = map[string]scheduler.Backfill{"easy": scheduler.BackfillEASY, "conservative": scheduler.BackfillConservative,
		"none": scheduler.BackfillNone}
)

// policy is the scheduler's policy now: what the replicated one says, over the leader's own.
func (c *Controller) policy() scheduler.Policy {
	p, config := c.cfg.Policy, c.st.SchedulerConfig()
	if order, known := orders[config.GetOrder()]; known {
		p.Order = order
	}
	if backfill, known := backfills[config.GetBackfill()]; known {
		p.Backfill = backfill
	}
	p.NoPreempt = p.NoPreempt || config.GetNoPreempt()
	for _, f := range []struct {
		field *int64
		value int64
	}{
		{&p.HoldAfterMS, config.GetHoldAfterMs()}, {&p.MinRunMS, config.GetMinRunMs()},
		{&p.RestartMS, config.GetRestartMs()}, {&p.ClaimMS, config.GetClaimMs()},
	} {
		if f.value != 0 {
			*f.field = f.value
		}
	}
	if p.GangsMax == 0 {
		p.GangsMax = max(gangsLeast, forecast.Batch(&c.planning.work, passTarget.Seconds(), gangsMax))
	}
	if n := config.GetReservationsMax(); n > 0 {
		p.ReservationsMax = int(n)
	}
	return p
}

// past is what was used before, decayed: how much of the cluster each user of each queue
// had, on average over the time that still counts. It changes slowly and is worked out once
// a minute.
type past struct {
	at    time.Duration // when it was worked out
	known bool
	parts []scheduler.Past
}

const pastEvery = time.Minute

// usageHalfLife gives the half-life of past usage; 0: the past does not count.
func (c *Controller) usageHalfLife() time.Duration {
	switch ms := c.st.SchedulerConfig().GetUsageHalfLifeMs(); {
	case ms < 0:
		return 0
	case ms > 0:
		return time.Duration(ms) * time.Millisecond
	}
	return usageHalfLifeDefault
}

// pastWindowHours is the time for which constant use weighs as much as its decayed sum.
func (c *Controller) pastWindowHours() float64 { return c.usageHalfLife().Hours() / math.Ln2 }

// pastUsage gives the decayed past as parts of the cluster's devices, or of its CPU where
// there are no devices.
func (c *Controller) pastUsage(nodes []scheduler.Node) []scheduler.Past {
	p := &c.past
	if p.known && c.now-p.at < pastEvery {
		return p.parts
	}
	p.at, p.known, p.parts = c.now, true, nil
	halfLife := float64(c.usageHalfLife().Milliseconds())
	capacity := scheduler.Capacity(nodes)
	if halfLife == 0 || (capacity.Share == 0 && capacity.CPU == 0) {
		return nil
	}
	window := halfLife / math.Ln2
	nowMS := c.wallMS()
	const halfLivesMax = 20 // beyond it nothing is left
	from := (nowMS - int64(halfLivesMax*halfLife)) / dayMS
	index := map[[2]string]int{}
	for u := range c.st.UsageDays(max(0, from)) {
		middle := float64(nowMS - (u.Day*dayMS + dayMS/2))
		weight := math.Exp2(-max(0, middle) / halfLife)
		part := float64(u.CpuMilliMs) / float64(max(1, capacity.CPU))
		if capacity.Share > 0 {
			part = float64(u.GpuMilliMs) / float64(capacity.Share)
		}
		key := [2]string{u.Queue, u.User}
		at, known := index[key]
		if !known {
			at = len(p.parts)
			index[key] = at
			p.parts = append(p.parts, scheduler.Past{Queue: u.Queue, User: u.User})
		}
		p.parts[at].Part += weight * part / window
	}
	return p.parts
}
