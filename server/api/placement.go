package api

import (
	"maps"

	"llmos/fsm/state"
	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
	"llmos/server/scheduler"
)

// placeable refuses a job that asks something of its nodes that no registered node meets, or
// none that could hold one of its tasks: a label or a value that nobody has, most often a
// slip. With no node registered nothing is refused.
func placeable(st *state.State, spec *pb.JobSpec) error {
	p := spec.GetPlacement()
	if p.GetWhere() == nil && p.GetWithin() == "" && p.GetSpread() == "" {
		return nil
	}
	nodes := labelled(st)
	for _, role := range spec.GetRoles() {
		job := oneTask(role)
		job.Where, job.Within, job.Spread, job.Skew = condition(p.GetWhere()), p.GetWithin(), p.GetSpread(), 1
		if why := scheduler.Feasible(job, nodes); why.Field != "" {
			return fault.New(pb.ErrorKind_ERROR_KIND_NO_CAPACITY, "%s", why.Text).Hint("%s", why.Remedy).At(why.Field, 0)
		}
	}
	return nil
}

// labelled gives the nodes with all that they have, and with what conditions may name beside
// their labels.
func labelled(st *state.State) []scheduler.Node {
	nodes, at := capacities(st), 0
	for n := range st.Nodes() {
		labels := maps.Clone(n.Labels)
		if labels == nil {
			labels = map[string]string{}
		}
		for key, value := range map[string]string{"os": n.Os, "cpu_model": n.CpuModel} {
			if _, set := labels[key]; !set && value != "" {
				labels[key] = value
			}
		}
		nodes[at].Labels = labels
		at++
	}
	return nodes
}

// condition is an expression as the scheduler takes it.
func condition(e *pb.Expr) *scheduler.Expr {
	several := func(of []*pb.Expr) []scheduler.Expr {
		all := make([]scheduler.Expr, 0, len(of))
		for _, one := range of {
			all = append(all, *condition(one))
		}
		return all
	}
	switch {
	case e == nil:
		return nil
	case e.GetAll() != nil:
		return &scheduler.Expr{All: several(e.GetAll().Of)}
	case e.GetAny() != nil:
		return &scheduler.Expr{Any: several(e.GetAny().Of)}
	case e.GetNot() != nil:
		return &scheduler.Expr{Not: condition(e.GetNot())}
	}
	return &scheduler.Expr{Match: &scheduler.Match{Key: e.GetMatch().GetKey(), Values: e.GetMatch().GetValues()}}
}
