package scheduler

// elastic says whether the role runs with fewer tasks than it would like.
func (r *Role) elastic() bool { return r.Min > 0 && r.Min < r.Count }

// least is the smallest number of tasks that the role starts with.
func (r *Role) least() int32 {
	if r.elastic() {
		return r.Min
	}
	return r.Count
}

// leastCounts gives the smallest gang of a job; nil when its roles are not elastic.
func leastCounts(job *Job) []int32 {
	elastic := false
	counts := make([]int32, len(job.Roles))
	for i := range job.Roles {
		counts[i] = job.Roles[i].least()
		elastic = elastic || job.Roles[i].elastic()
	}
	if !elastic {
		return nil
	}
	return counts
}

// elasticTries bounds the sizes that are tried for each elastic role.
const elasticTries = 8

// putElastic places a gang with as many tasks as fit, at least the least of each role. Roles
// grow one after the other, each to the most that a search by halves finds.
func (p *placer) putElastic(job *Job) ([]int, bool) {
	try := func(counts []int32) ([]int, bool) {
		entries, ok := p.putCounts(job, counts)
		if ok {
			p.counts = counts
		}
		return entries, ok
	}
	most := make([]int32, len(job.Roles))
	counts := leastCounts(job)
	for i := range job.Roles {
		role := &job.Roles[i]
		s := p.room.shapeOf(&role.Task)
		fits := p.room.index(&s).total(p.room, int64(role.Count))
		if fits < int64(counts[i]) {
			return nil, false
		}
		most[i] = int32(min(int64(role.Count), fits))
	}
	if entries, ok := try(most); ok {
		return entries, true
	}
	entries, ok := try(counts)
	if !ok {
		return nil, false
	}
	mark := len(p.room.trail) - len(entries)
	for i := range counts {
		low, high := counts[i], most[i]
		for tries := 0; low < high && tries < elasticTries; tries++ {
			p.room.rollback(mark)
			wish := append([]int32(nil), counts...)
			wish[i] = low + (high-low+1)/2
			if _, ok := try(wish); ok {
				low = wish[i]
			} else {
				high = wish[i] - 1
			}
		}
		counts[i] = low
	}
	p.room.rollback(mark)
	return try(counts)
}
