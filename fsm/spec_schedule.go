package fsm

import (
	"fmt"

	"llmos/fsm/state"
	pb "llmos/proto/llmos/v1"
)

// The bounds of what a spec says about when, where and how often a job runs.
const (
	dependenciesMax  = 64      // of a job
	arrayDependsMax  = 100_000 // dependencies of all copies together
	arrayCopiesMax   = 10_000
	arrayBytesMax    = 64 << 20 // of the specs of all copies
	scheduleBytesMax = 256
	modelsMax        = 64
	namesNearMax     = 64
	exprNodesMax     = 256
	exprDepthMax     = 16
	exprValuesMax    = 1024
)

// checkSchedule checks what a spec says about when, where and how often the job runs.
func checkSchedule(s *pb.JobSpec) *pb.Fault {
	for _, d := range []struct {
		name string
		ms   int64
	}{
		{"time_limit", s.TimeLimitMs}, {"expected", s.ExpectedMs}, {"deadline", s.DeadlineMs}, {"min_run", s.MinRunMs},
		{"checkpoint_every", s.CheckpointEveryMs}, {"restart", s.RestartMs},
	} {
		if !quantity(d.ms) {
			return invalid(d.name, "%d ms are not possible", d.ms)
		}
	}
	switch {
	case s.RepairMs > quantityMax:
		return invalid("repair", "%d ms cannot be waited", s.RepairMs)
	case s.Reservation != "" && !validName(s.Reservation):
		return invalid("reservation", "%q cannot be a reservation's name", cut(s.Reservation))
	}
	if f := checkAfter(s); f != nil {
		return f
	}
	if f := checkCopies(s); f != nil {
		return f
	}
	return checkPlacement(s.Placement)
}

func checkAfter(s *pb.JobSpec) *pb.Fault {
	if len(s.After) > dependenciesMax {
		return invalid("after", "the job waits for %d jobs, at most %d", len(s.After), dependenciesMax)
	}
	for i, d := range s.After {
		field := fmt.Sprintf("after[%d]", i)
		switch {
		case !state.ValidID(d.GetJob()):
			return invalid(field+".job", "%q cannot be a job", cut(d.GetJob()))
		case d.Job == state.JobName(s):
			return hinted(invalid(field+".job", "job %s waits for itself", d.Job), "name the ID of an earlier job if one of this name is meant")
		case d.Kind < pb.DependencyKind_DEPENDENCY_KIND_UNSPECIFIED || d.Kind > pb.DependencyKind_DEPENDENCY_KIND_FAILED:
			return invalid(field+".kind", "%d is no kind of dependency", d.Kind)
		}
	}
	return nil
}

func checkCopies(s *pb.JobSpec) *pb.Fault {
	array, cron := s.Array, s.Cron
	switch {
	case array != nil && cron != nil:
		return hinted(invalid("cron", "a job cannot be an array and a cron job"), "let the cron job submit the array")
	case array != nil && (array.Count < 1 || array.Count > arrayCopiesMax):
		return invalid("array.count", "an array of %d copies is not possible, 1 to %d are", array.Count, arrayCopiesMax)
	case array != nil && array.Parallel < 0:
		return hinted(invalid("array.parallel", "%d copies at a time are not possible", array.Parallel), "0 means no bound")
	case array != nil && len(s.After)*int(array.Count) > arrayDependsMax:
		return hinted(invalid("after", "%d copies that wait for %d jobs each are too many", array.Count, len(s.After)), "let one job wait for the others, and the array for that one")
	case cron != nil && (cron.Schedule == "" || len(cron.Schedule) > scheduleBytesMax):
		return invalid("cron.schedule", "%q is no schedule", cut(cron.Schedule))
	case cron != nil && len(cron.TimeZone) > state.IDBytesMax:
		return invalid("cron.time_zone", "%q is no time zone", cut(cron.TimeZone))
	case cron != nil && (cron.Overlap < 0 || cron.Overlap > pb.CronOverlap_CRON_OVERLAP_REPLACE):
		return invalid("cron.overlap", "%d is no rule for overlaps", cron.Overlap)
	case cron != nil && len(s.After) > 0:
		return hinted(invalid("after", "a cron job starts by its schedule, and waits for no job"), "leave after out")
	}
	return nil
}

func checkPlacement(p *pb.PlacementSpec) *pb.Fault {
	if p == nil {
		return nil
	}
	for _, label := range []struct{ name, text string }{{"within", p.Within}, {"prefer_within", p.PreferWithin}, {"spread", p.Spread}} {
		if label.text != "" && !state.ValidID(label.text) {
			return invalid("placement."+label.name, "%q cannot be a label", cut(label.text))
		}
	}
	for _, names := range []struct {
		name string
		list []string
	}{{"near", p.Near}, {"apart", p.Apart}} {
		if len(names.list) > namesNearMax {
			return invalid("placement."+names.name, "%d jobs are named, at most %d", len(names.list), namesNearMax)
		}
		for i, name := range names.list {
			if !validName(name) {
				return invalid(fmt.Sprintf("placement.%s[%d]", names.name, i), "%q cannot be a job's name", cut(name))
			}
		}
	}
	if p.SpreadSkew < 0 {
		return invalid("placement.spread_skew", "a difference of %d tasks is not possible", p.SpreadSkew)
	}
	return checkExpr("placement.where", p.Where)
}

// checkExpr checks that a condition on nodes is whole, and neither too large nor too deep.
func checkExpr(field string, e *pb.Expr) *pb.Fault {
	if e == nil {
		return nil
	}
	left := exprNodesMax
	return checkSubExpr(field, e, 1, &left)
}

func checkSubExpr(field string, e *pb.Expr, depth int, left *int) *pb.Fault {
	*left--
	if depth > exprDepthMax || *left < 0 {
		return invalid(field, "the condition is deeper than %d or has more than %d parts", exprDepthMax, exprNodesMax)
	}
	var parts []*pb.Expr
	word := ""
	switch x := e.GetExpr().(type) {
	case *pb.Expr_All:
		parts, word = x.All.GetOf(), "all"
	case *pb.Expr_Any:
		parts, word = x.Any.GetOf(), "any"
	case *pb.Expr_Not:
		return checkSubExpr(field+".not", x.Not, depth+1, left)
	case *pb.Expr_Match:
		if !state.ValidID(x.Match.GetKey()) || len(x.Match.Values) > exprValuesMax {
			return invalid(field+".match", "%q with %d values is no condition", cut(x.Match.GetKey()), len(x.Match.GetValues()))
		}
		return nil
	default:
		return hinted(invalid(field, "the condition is empty"), "one of all, any, not and match")
	}
	for i, part := range parts {
		if f := checkSubExpr(fmt.Sprintf("%s.%s[%d]", field, word, i), part, depth+1, left); f != nil {
			return f
		}
	}
	return nil
}
