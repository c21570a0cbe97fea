package controller

import (
	"cmp"
	"slices"
	"strings"

	"llmos/fsm/state"
	pb "llmos/proto/llmos/v1"
	"llmos/server/scheduler"
	"llmos/server/scheduler/fair"
)

// planID names the job that a dry run adds. No job is called so.
const planID = "(this job)"

// PlanJob says what would happen if a job with the spec were submitted now by the user: a
// pass over the present snapshot with that job behind all others. Nothing is proposed.
func (c *Controller) PlanJob(spec *pb.JobSpec, user string) *pb.PlanJobResponse {
	return c.DryRun(spec, user)()
}

// DryRun prepares PlanJob. The function it gives does the work, which takes as long as a
// pass: it touches nothing of the controller and may be called on any goroutine.
func (c *Controller) DryRun(spec *pb.JobSpec, user string) func() *pb.PlanJobResponse {
	c.catchUp()
	job := SpecValue(spec)
	job.ID, job.User, job.Submit, job.Attempt = planID, user, ^uint64(0), 1
	job.Q50, job.Q90 = c.foresee(spec, user, 0)
	policy := c.policy()
	policy.GangsMax, policy.TasksMax = 1<<20, 1<<20 // the bounds of a pass are no reason to wait
	snapshot, st := c.snapshot(append(c.pendingJobs(), job)), c.st
	return func() *pb.PlanJobResponse { return dryRun(&job, scheduler.Schedule(snapshot, policy), st) }
}

// dryRun is what a plan does about the job that a dry run added.
func dryRun(job *scheduler.Job, plan *scheduler.Plan, st *state.State) *pb.PlanJobResponse {
	answer := &pb.PlanJobResponse{}
	for _, e := range plan.Evictions {
		if e.For == planID {
			answer.Evicts = append(answer.Evicts, e.JobID)
		}
	}
	for _, p := range plan.Placements {
		if p.JobID == planID {
			answer.StartsNow, answer.Tasks = true, plannedTasks(st, job, &p)
			return answer
		}
	}
	answer.Explanation = waitingExplanation(plan, planID)
	return answer
}

func plannedTasks(st *state.State, job *scheduler.Job, p *scheduler.Placement) []*pb.PlannedTask {
	var tasks []*pb.PlannedTask
	role, left := 0, countOf(job, p, 0)
	for _, t := range p.Tasks {
		for left == 0 && role+1 < len(job.Roles) {
			role++
			left = countOf(job, p, role)
		}
		left--
		planned := &pb.PlannedTask{NodeId: t.NodeID, NodeName: st.Node(t.NodeID).GetName(), Role: job.Roles[role].Name}
		for _, g := range t.Devices {
			planned.DeviceIds = append(planned.DeviceIds, g.DeviceID)
		}
		tasks = append(tasks, planned)
	}
	return tasks
}

func countOf(job *scheduler.Job, p *scheduler.Placement, role int) int32 {
	if role < len(p.Counts) {
		return p.Counts[role]
	}
	return job.Roles[role].Count
}

// waitingExplanation is what a plan says of a job that it did not place.
func waitingExplanation(plan *scheduler.Plan, jobID string) *pb.Explanation {
	x := &pb.Explanation{}
	if why, ok := plan.Explain(jobID); ok {
		x.Reason, x.Remedy, x.Details = why.Text, why.Remedy, why.Details
	}
	if i := slices.IndexFunc(plan.Waiting, func(w scheduler.Waiting) bool { return w.JobID == jobID }); i >= 0 {
		x.ExpectedStartMs = plan.Waiting[i].StartMS
	}
	return x
}

// ExpectedEnd gives the median of a running job's predicted end, Unix milliseconds; 0 when
// it is unknown.
func (c *Controller) ExpectedEnd(jobID string) int64 {
	c.catchUp()
	e := c.world.jobs[jobID]
	if e == nil || e.attempt.GetState() != pb.AttemptState_ATTEMPT_STATE_LIVE {
		return 0
	}
	return c.runningAt(e, c.wallMS()).EndQ50
}

// QueueViews gives every queue with what it and what is below it hold, parents before
// children and siblings by name.
func (c *Controller) QueueViews() []*pb.QueueView {
	c.catchUp()
	s := c.snapshot(nil)
	capacity := scheduler.Capacity(s.Nodes)
	tree := fair.New(s.Queues, s.Past, capacity)
	for i := range s.Running {
		r := &s.Running[i]
		tree.Start(tree.Leaf(r.Queue), r.User, r.Demand())
	}
	pending := map[string]int32{}
	for _, e := range c.world.pending {
		for name := e.value.Queue; name != ""; name = c.st.Queue(name).GetParent() {
			pending[name]++
		}
	}
	var views []*pb.QueueView
	for q := range c.st.Queues() {
		leaf := tree.Leaf(q.Name)
		share, past := tree.Share(leaf)
		v := &pb.QueueView{Queue: q, Running: tree.Running(leaf), Pending: pending[q.Name], GpuMilli: tree.Held(leaf, "gpu"),
			CpuMilli: tree.Held(leaf, "cpu"), Share: share, FairShare: c.fairShare(q), PastUsage: past * c.pastWindowHours() * float64(capacity.Share) / 1000}
		for _, l := range q.Limits {
			v.Used = append(v.Used, &pb.QuotaLimit{Resource: l.Resource, Nominal: tree.Held(leaf, l.Resource)})
		}
		views = append(views, v)
	}
	slices.SortFunc(views, func(a, b *pb.QueueView) int { return byPath(a.Queue.Name, b.Queue.Name) })
	return views
}

// byPath orders queue names so that parents come before children and siblings by name.
func byPath(a, b string) int { return slices.Compare(strings.Split(a, "/"), strings.Split(b, "/")) }

// fairShare is the part of the cluster that a queue's weight, and the weights above it,
// give it when everyone wants more than there is.
func (c *Controller) fairShare(q *pb.Queue) float64 {
	share := 1.0
	for q != nil {
		sum := 0.0
		for s := range c.st.Queues() {
			if s.Parent == q.Parent {
				sum += float64(max(1, s.Weight))
			}
		}
		share *= float64(max(1, q.Weight)) / cmp.Or(sum, 1)
		q = c.st.Queue(q.Parent)
	}
	return share
}
