package main

import (
	"math/rand/v2"
	"strconv"

	pb "llmos/proto/llmos/v1"
)

// The queue tree of a run, besides "default", which has no limits. What is lent and how the
// weights stand changes during the run; nominal and borrow do not, so that their sum bounds
// what a queue may hold at any time.
var leaves = []string{"team/red", "team/blue", "team/green"}

// queueTree gives the whole tree, in thousandths of a device. lend and weight are of red.
func queueTree(lend int64, weight int32) []*pb.Queue {
	limited := func(name, parent string, weight int32, nominal, borrow, lend int64) *pb.Queue {
		return &pb.Queue{Name: name, Parent: parent, Weight: weight,
			Limits: []*pb.QuotaLimit{{Resource: "gpu", Nominal: nominal, Borrow: borrow, Lend: lend}}}
	}
	return []*pb.Queue{
		limited("team", "", 2, 10_000, 1000, -1),
		limited("team/red", "team", weight, 4000, 4000, lend),
		limited("team/blue", "team", 1, 4000, 2000, -1),
		limited("team/green", "team", 1, 2000, 3000, -1),
	}
}

// The policy of a run: everything comes soon.
const (
	holdAfterMS    = 500
	claimMS        = 4000
	repairMS       = 3000
	elasticEveryMS = 700
	gangMax        = 4 // devices of the widest job: every queue can hold it when it borrows
)

// policy draws a scheduling policy under which every job that fits starts in the end.
func policy(rng *rand.Rand) *pb.SchedulerConfig {
	return &pb.SchedulerConfig{Order: []string{"fair", "fair", "fifo", "las"}[rng.IntN(4)],
		Backfill:    []string{"easy", "conservative", "none"}[rng.IntN(3)],
		HoldAfterMs: holdAfterMS, MinRunMs: 1, RestartMs: 200, ElasticEveryMs: elasticEveryMS, ClaimMs: claimMS, AvoidMs: 500}
}

// shape is what a client asks for besides the command line of its tasks.
type shape struct {
	world, gpus  int32
	millis, code int
}

// spec draws a job: mostly one short task, sometimes a gang, a long one, one that fails and
// is retried, an elastic one, an array, or one that waits for the client's job before.
func (l *load) spec(rng *rand.Rand, before string) *pb.JobSpec {
	s := shape{world: 1, gpus: int32(rng.IntN(2)), millis: 20 + rng.IntN(200)}
	job := &pb.JobSpec{GenerateName: "chaos", Kind: pb.JobKind_JOB_KIND_BATCH, Priority: int32(10 + 20*rng.IntN(5)),
		Retries: int32(rng.IntN(2)), LostAfterMs: lostAfterMS, RepairMs: repairMS}
	if i := rng.IntN(2 * len(leaves)); i < len(leaves) {
		job.Queue = leaves[i]
	}
	countMin := int32(0)
	switch rng.IntN(14) {
	case 0, 1, 2:
		s.world, s.millis, s.gpus = int32(2+rng.IntN(gangMax-1)), 100+rng.IntN(900), 1
	case 3, 4:
		s.millis, s.gpus, job.Priority = 1000+rng.IntN(2000), 1, 10
	case 5:
		s.code = 7
	case 6:
		s.world, s.gpus, countMin, s.millis, job.Priority = gangMax, 1, 1, 800+rng.IntN(1500), 10
	case 7:
		job.Array = &pb.ArraySpec{Count: int32(2 + rng.IntN(5)), Parallel: int32(1 + rng.IntN(2))}
	case 8, 9, 10:
		if before != "" {
			job.After = []*pb.Dependency{{Job: before, Kind: pb.DependencyKind(1 + rng.IntN(3))}}
		}
	case 11:
		job.NoPreempt, s.gpus, s.millis, job.Priority = true, 1, 500+rng.IntN(1000), 10
	}
	job.Roles = []*pb.RoleSpec{{Name: "worker", Count: s.world, CountMin: countMin,
		Command:   []string{l.self, "task", l.dir, strconv.Itoa(s.millis), strconv.Itoa(s.code)},
		Resources: &pb.Resources{CpuMilli: 50, MemoryBytes: 16 << 20, Gpus: s.gpus}, GraceMs: 1000}}
	return job
}
