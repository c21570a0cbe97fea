package api

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	pb "llmos/proto/llmos/v1"
)

// Bounds of the search for changes with which a job would start now. Each try is a pass of
// the scheduler on the leader, which has other work to do.
const (
	whatIfTries = 12
	whatIfTime  = 300 * time.Millisecond
	whatIfShown = 3
)

// whatIf looks for changes to a job that waits with each of which it would start now, by
// planning the changed job: first fewer devices, then each of its conditions left out, then
// another queue, then the highest priority. It is the counterfactual of `llmos why`. What it
// says is so at this moment; that it says nothing proves nothing.
func (s *cluster) whatIf(ctx context.Context, spec *pb.JobSpec, user string, x *pb.Explanation) {
	w := &whatIfs{ctx: ctx, b: s.b, user: user, spec: proto.CloneOf(spec), until: s.b.Now().Add(max(s.whatIfSpan, whatIfTime))}
	w.spec.After, w.spec.Array, w.spec.Cron = nil, nil, nil
	w.found = x.WouldStart
	// The scheduler may have found one itself, and says it before what else would help.
	if said, rest, both := strings.Cut(x.Remedy, "; otherwise: "); both && strings.HasPrefix(said, startsNow) {
		w.found, x.Remedy = append(w.found, strings.TrimPrefix(said, startsNow)), rest
	}
	if len(w.found) == 0 {
		w.fewer()
	}
	w.without()
	w.elsewhere()
	x.WouldStart = w.found
}

const startsNow = "it starts now " // how the scheduler begins a change that would help at once

// whatIfs is one search.
type whatIfs struct {
	ctx   context.Context
	b     Backend
	user  string
	spec  *pb.JobSpec
	until time.Time
	tries int
	found []string
}

// starts plans the job with a change; nil when it would not start now, or nobody may ask any more.
func (w *whatIfs) starts(change func(*pb.JobSpec)) *pb.PlanJobResponse {
	if w.tries >= whatIfTries || len(w.found) >= whatIfShown || w.b.Now().After(w.until) || w.ctx.Err() != nil {
		return nil
	}
	w.tries++
	changed := proto.CloneOf(w.spec)
	change(changed)
	plan, err := w.b.Plan(w.ctx, changed, w.user)
	if err != nil || !plan.GetStartsNow() {
		return nil
	}
	return plan
}

// try notes a change that would let the job start without stopping others.
func (w *whatIfs) try(what string, change func(*pb.JobSpec)) {
	if slices.Contains(w.found, what) {
		return
	}
	if plan := w.starts(change); plan != nil && len(plan.Evicts) == 0 {
		w.found = append(w.found, what)
	}
}

// fewer looks for the most tasks, or devices of a task, with which the job would start: of
// the role that asks for most.
func (w *whatIfs) fewer() {
	largest, most := -1, int64(0)
	for i, r := range w.spec.Roles {
		if n := int64(atLeast(r)) * int64(max(r.GetResources().GetGpus(), 1)); n > most {
			largest, most = i, n
		}
	}
	if largest < 0 || most < 2 {
		return
	}
	role := w.spec.Roles[largest]
	set := func(s *pb.JobSpec, n int32) { s.Roles[largest].Count, s.Roles[largest].CountMin = n, 0 }
	high, ofTask := atLeast(role), false
	if high < 2 {
		set = func(s *pb.JobSpec, n int32) { s.Roles[largest].Resources.Gpus = n }
		high, ofTask = role.Resources.Gpus, true
	}
	low := int32(0) // the most that is known to start
	for high-low > 1 {
		mid := (low + high) / 2
		if plan := w.starts(func(s *pb.JobSpec) { set(s, mid) }); plan != nil && len(plan.Evicts) == 0 {
			low = mid
		} else {
			high = mid
		}
	}
	gpus := low
	if !ofTask {
		gpus *= role.GetResources().GetGpus()
	}
	switch {
	case low == 0:
	case ofTask:
		w.found = append(w.found, "with "+counted(low, "GPU"))
	case gpus == 0:
		w.found = append(w.found, "with "+counted(low, "task"))
	default:
		w.found = append(w.found, fmt.Sprintf("with %s (%s)", counted(gpus, "GPU"), counted(low, "task")))
	}
}

// atLeast gives the tasks with which a role can run.
func atLeast(r *pb.RoleSpec) int32 {
	if r.GetCountMin() > 0 {
		return r.CountMin
	}
	return r.GetCount()
}

func counted(n int32, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// without leaves out the job's conditions, one at a time.
func (w *whatIfs) without() {
	p := w.spec.GetPlacement()
	for _, c := range []struct {
		given bool
		what  string
		drop  func(*pb.PlacementSpec)
	}{
		{p.GetWhere() != nil, "without its where", func(p *pb.PlacementSpec) { p.Where = nil }},
		{p.GetWithin() != "", "without within: " + p.GetWithin(), func(p *pb.PlacementSpec) { p.Within = "" }},
		{p.GetSpread() != "", "without spread: " + p.GetSpread(), func(p *pb.PlacementSpec) { p.Spread, p.SpreadSkew = "", 0 }},
		{len(p.GetNear()) > 0, "without near", func(p *pb.PlacementSpec) { p.Near = nil }},
		{len(p.GetApart()) > 0, "without apart", func(p *pb.PlacementSpec) { p.Apart = nil }},
	} {
		if c.given {
			w.try(c.what, func(s *pb.JobSpec) { c.drop(s.Placement) })
		}
	}
	models := false
	for _, r := range w.spec.Roles {
		models = models || r.GetResources().GetGpuModel() != "" || len(r.GetResources().GetGpuModels()) > 0
	}
	if models {
		w.try("on GPUs of any model", func(s *pb.JobSpec) {
			for _, r := range s.Roles {
				if r.Resources != nil {
					r.Resources.GpuModel, r.Resources.GpuModels = "", nil
				}
			}
		})
	}
	if w.spec.Reservation != "" {
		w.try("without reservation "+w.spec.Reservation, func(s *pb.JobSpec) { s.Reservation = "" })
	}
	if w.spec.NoPreempt {
		w.try("with preemptible: true", func(s *pb.JobSpec) { s.NoPreempt = false })
	}
}

// elsewhere tries the queue that always is, and the highest priority that the queue admits;
// of that it says whom the job would then stop.
func (w *whatIfs) elsewhere() {
	st := w.b.Stale()
	if q := w.spec.Queue; q != "" && q != defaultQueue {
		if top := st.Queue(defaultQueue).GetPriorityMax(); top == 0 || w.spec.Priority <= top {
			w.try("in queue "+defaultQueue, func(s *pb.JobSpec) { s.Queue = "" })
		}
	}
	top := st.Queue(w.spec.Queue).GetPriorityMax()
	if top == 0 {
		top = urgent
	}
	if w.spec.Priority >= top {
		return
	}
	plan := w.starts(func(s *pb.JobSpec) { s.Priority = top })
	switch {
	case plan == nil:
	case len(plan.Evicts) == 0:
		w.found = append(w.found, fmt.Sprintf("with priority %d", top))
	default:
		w.found = append(w.found, fmt.Sprintf("with priority %d, by stopping %s", top, counted(int32(len(plan.Evicts)), "job")))
	}
}

const urgent = 90 // the priority of that name
