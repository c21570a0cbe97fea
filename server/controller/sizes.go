package controller

import (
	"cmp"
	"slices"
	"time"

	pb "llmos/proto/llmos/v1"
	"llmos/server/scheduler"
	"llmos/server/scheduler/elastic"
)

// sizing remembers when the sizes that elastic jobs should have were last worked out.
type sizing struct {
	at    time.Duration // when they were worked out
	known bool
}

// elasticEvery gives the time between looks at the sizes; 0: never.
func (c *Controller) elasticEvery() time.Duration {
	switch ms := c.st.SchedulerConfig().GetElasticEveryMs(); {
	case ms < 0:
		return 0
	case ms > 0:
		return time.Duration(ms) * time.Millisecond
	}
	return elasticEveryDefault
}

// sizes gives the wished sizes of elastic jobs for a pass. Between two looks nobody's size
// is touched: a wish that is there starts what waits at that size, or resizes what runs.
func (c *Controller) sizes(nodes []scheduler.Node, pending []scheduler.Job) []scheduler.Size {
	every := c.elasticEvery()
	z := &c.sizing
	if every == 0 || (z.known && c.now-z.at < every) {
		return nil
	}
	z.at, z.known = c.now, true
	measured, others := c.elasticJobs(pending)
	if len(measured) > 0 {
		others = append(others, c.decideSizes(nodes, measured)...)
	}
	return others
}

// elasticEntry is an elastic job whose speed by size is known a little: one role of it is
// elastic, and takes devices.
type elasticEntry struct {
	e    *jobEntry
	role int
}

// elasticJobs divides the elastic jobs: those that report their steps, and those that do
// not, which are wished as large as they may be.
func (c *Controller) elasticJobs(pending []scheduler.Job) (measured []elasticEntry, largest []scheduler.Size) {
	look := func(e *jobEntry) {
		roles := e.job.GetSpec().GetRoles()
		role := slices.IndexFunc(roles, func(r *pb.RoleSpec) bool { return r.CountMin > 0 && r.CountMin < r.Count })
		if role < 0 {
			return
		}
		if len(e.profile.Seen) > 0 && roles[role].GetResources().GetGpus() > 0 {
			measured = append(measured, elasticEntry{e, role})
			return
		}
		wish := scheduler.Size{JobID: e.job.Id}
		for _, r := range roles {
			wish.Counts = append(wish.Counts, r.Count)
		}
		largest = append(largest, wish)
	}
	for i := range pending {
		if e := c.world.jobs[pending[i].ID]; e != nil {
			look(e)
		}
	}
	for _, e := range c.world.running {
		look(e)
	}
	return measured, largest
}

// decideSizes asks package elastic, with the devices that nobody else holds.
func (c *Controller) decideSizes(nodes []scheduler.Node, entries []elasticEntry) []scheduler.Size {
	held := map[string]map[string]int{} // devices of these jobs by node and job
	jobs := make([]elastic.Job, 0, len(entries))
	nowMS := c.wallMS()
	room := elasticRoom(nodes)
	for _, en := range entries {
		j := c.elasticJob(en, nowMS)
		for _, part := range j.Held {
			if held[part.Node] == nil {
				held[part.Node] = map[string]int{}
			}
			held[part.Node][j.ID] += part.GPUs
		}
		jobs = append(jobs, j)
	}
	for i := range room {
		for _, gpus := range held[room[i].ID] { // unordered: a sum
			room[i].GPUs += gpus
		}
	}
	per := elastic.PerNode(room)
	for i := range jobs {
		jobs[i].Curve = elastic.NewCurve(&entries[i].e.profile, elastic.Noise{}, jobs[i].Limits, per, len(room))
	}
	var wishes []scheduler.Size
	for i, a := range elastic.Decide(jobs, room, elastic.Standard()) {
		gpus := 0
		for _, p := range a.Parts {
			gpus += p.GPUs
		}
		if !a.Changed || gpus == 0 {
			continue
		}
		entries[i].e.rescued = a.Rescued
		spec, role := entries[i].e.job.GetSpec(), entries[i].role
		wish := scheduler.Size{JobID: a.JobID}
		for _, r := range spec.Roles {
			wish.Counts = append(wish.Counts, r.Count)
		}
		r := spec.Roles[role]
		wish.Counts[role] = min(r.Count, max(r.CountMin, int32(gpus)/r.GetResources().GetGpus()))
		wishes = append(wishes, wish)
	}
	return wishes
}

// elasticRoom gives the free whole devices of the ready nodes.
func elasticRoom(nodes []scheduler.Node) []elastic.Node {
	var room []elastic.Node
	for i := range nodes {
		n := &nodes[i]
		if n.Status != scheduler.NodeReady || n.Drained || len(n.Devices) == 0 {
			continue
		}
		free := 0
		for j := range n.Devices {
			if d := &n.Devices[j]; d.Available && d.ShareFree == wholeShare && d.Profile == "" {
				free++
			}
		}
		room = append(room, elastic.Node{ID: n.ID, GPUs: free})
	}
	return room
}

// wholeShare is the free share of a device that nobody holds any of.
const wholeShare = 1000

func (c *Controller) elasticJob(en elasticEntry, nowMS int64) elastic.Job {
	job, spec := en.e.job, en.e.job.GetSpec()
	role := spec.Roles[en.role]
	each := int(role.GetResources().GetGpus())
	j := elastic.Job{ID: job.Id, Weight: 1, Left: -1, Rescued: en.e.rescued, SinceS: float64(nowMS-job.ReadyMs) / 1000,
		Limits:   elastic.FixedLimits(each*int(role.CountMin), each*int(role.Count)),
		RestartS: float64(cmp.Or(spec.RestartMs, c.policy().RestartMS, scheduler.RestartMSDefault)) / 1000}
	for _, o := range en.e.profile.Seen {
		j.Widest = max(j.Widest, o.GPUs)
	}
	if h := &en.e.heard; h.steps > 0 {
		j.Done, j.Left = float64(h.step), float64(max(0, h.steps-h.step))
	}
	if en.e.attempt.GetState() != pb.AttemptState_ATTEMPT_STATE_LIVE {
		return j
	}
	r := c.runningAt(en.e, nowMS)
	for i := range r.Slots {
		if gpus := len(r.Slots[i].Devices); gpus > 0 {
			if at := slices.IndexFunc(j.Held, func(p elastic.Part) bool { return p.Node == r.Slots[i].NodeID }); at >= 0 {
				j.Held[at].GPUs += gpus
			} else {
				j.Held = append(j.Held, elastic.Part{Node: r.Slots[i].NodeID, GPUs: gpus})
			}
		}
	}
	j.SinceS = float64(nowMS-r.StartedMS) / 1000
	return j
}

// stepsToMeasure is how many steps a step time is averaged over before it is believed.
const stepsToMeasure = 10

// measure enters the step time of an attempt, by the devices it runs on, into what is known
// of the job's speed.
func (c *Controller) measure(e *jobEntry) {
	h := &e.heard
	if h.step-h.measured < stepsToMeasure || h.stepMS <= h.measuredMS || e.stale {
		return
	}
	if h.measured > 0 {
		nodes, gpus := map[string]bool{}, 0
		for i := range e.running.Slots {
			if n := len(e.running.Slots[i].Devices); n > 0 {
				nodes[e.running.Slots[i].NodeID] = true
				gpus += n
			}
		}
		if gpus > 0 {
			step := float64(h.stepMS-h.measuredMS) / 1000 / float64(h.step-h.measured)
			e.profile = e.profile.Observe(elastic.FixedObservation(len(nodes), gpus, step))
		}
	}
	h.measured, h.measuredMS = h.step, h.stepMS
}
