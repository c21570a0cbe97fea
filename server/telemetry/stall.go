package telemetry

import (
	"slices"

	pb "llmos/proto/llmos/v1"
)

// Rank is how far one rank of a gang has come.
type Rank struct {
	Rank        int32
	Step, Steps int64   // Steps is 0 when it is not known
	MovedMS     int64   // when Step last grew, Unix milliseconds
	PaceMS      float64 // of a step, as of late; 0: unknown
}

// When a rank, or a whole gang, counts as stalled: after so long, and after so many of its usual
// steps. A gang as a whole pauses to save itself or to evaluate, so that it is given longer.
const (
	rankSilenceMS = 30_000
	rankPaces     = 10
	gangSilenceMS = 120_000
	gangPaces     = 20
)

// Judge names the ranks that make no progress. Of a gang that computes together nobody moves
// once one does not: the others have come to the end of a step and wait, so the culprit is who
// has not. Where all stand at the same step, or one rank alone tells its steps, nobody is to
// blame and the answer has rank -1. A rank that has done all its steps is never stalled.
func Judge(ranks []Rank, nowMS int64) []*pb.Stall {
	front, pace := int64(0), medianPace(ranks)
	for i := range ranks {
		front = max(front, ranks[i].Step)
	}
	var stalls []*pb.Stall
	moved := int64(0)
	for i := range ranks {
		r := &ranks[i]
		moved = max(moved, r.MovedMS)
		if r.done() || r.Step == front || nowMS-r.MovedMS <= max(rankSilenceMS, int64(rankPaces*pace)) {
			continue
		}
		stalls = append(stalls, &pb.Stall{Rank: r.Rank, SinceMs: r.MovedMS, Step: r.Step, FrontStep: front})
	}
	together := len(ranks) > 0 && !slices.ContainsFunc(ranks, func(r Rank) bool { return r.done() || r.Step != front })
	if together && nowMS-moved > max(gangSilenceMS, int64(gangPaces*pace)) {
		return []*pb.Stall{{Rank: -1, SinceMs: moved, Step: front, FrontStep: front}}
	}
	return stalls
}

func (r *Rank) done() bool { return r.Steps > 0 && r.Step >= r.Steps }

// medianPace is that of the ranks whose pace is known; 0 when none is.
func medianPace(ranks []Rank) float64 {
	var paces []float64
	for i := range ranks {
		if ranks[i].PaceMS > 0 {
			paces = append(paces, ranks[i].PaceMS)
		}
	}
	if len(paces) == 0 {
		return 0
	}
	slices.Sort(paces)
	return paces[len(paces)/2]
}
