package scheduler

// How many tasks an elastic job runs with: between Min and Count of each elastic role. A
// size is the number of steps above the least; with several elastic roles each gets its
// part of the steps.

func (j *Job) elastic() bool {
	for i := range j.Roles {
		if j.Roles[i].elastic() {
			return true
		}
	}
	return false
}

// steps is the largest size of the job.
func (j *Job) steps() int {
	most := int32(0)
	for i := range j.Roles {
		if r := &j.Roles[i]; r.elastic() {
			most = max(most, r.Count-r.Min)
		}
	}
	return int(most)
}

// sized is the job with the counts of a size.
func (j *Job) sized(size int) Job {
	steps := j.steps()
	if size >= steps {
		return *j
	}
	counts := make([]int32, len(j.Roles))
	for i := range j.Roles {
		r := &j.Roles[i]
		counts[i] = r.Count
		if r.elastic() {
			counts[i] = r.Min + int32(int64(r.Count-r.Min)*int64(size)/int64(steps))
		}
	}
	return j.withCounts(counts)
}

// withCounts is the job with so many tasks of each role.
func (j *Job) withCounts(counts []int32) Job {
	small := *j
	small.Roles = make([]Role, len(j.Roles))
	copy(small.Roles, j.Roles)
	for i := range counts {
		small.Roles[i].Count = counts[i]
	}
	small.Rendezvous = j.Rendezvous && several(counts)
	return small
}

// several says whether the tasks are more than one: a task alone meets nobody, and holds no
// port for a rendezvous.
func several(counts []int32) bool {
	world := int64(0)
	for _, n := range counts {
		world += int64(n)
	}
	return world > 1
}

func countsOf(j *Job) []int32 {
	counts := make([]int32, len(j.Roles))
	for i := range j.Roles {
		counts[i] = j.Roles[i].Count
	}
	return counts
}

// least is the number of tasks that the job starts with at least.
func (j *Job) least() int {
	n := 0
	for i := range j.Roles {
		n += int(j.Roles[i].least())
	}
	return n
}

// growable is the job with at most as many tasks as accepts admits, looked for by halves; ok
// is false when it does not admit the fewest.
func (j *Job) growable(most int, accepts func(*Job) bool) (Job, bool) {
	sized := j.sized(min(most, j.steps()))
	if accepts(&sized) {
		return sized, true
	}
	if !j.elastic() {
		return sized, false
	}
	low, high := 0, min(most, j.steps())-1
	if sized = j.sized(0); !accepts(&sized) {
		return sized, false
	}
	for low < high {
		middle := (low + high + 1) / 2
		if sized = j.sized(middle); accepts(&sized) {
			low = middle
		} else {
			high = middle - 1
		}
	}
	return j.sized(low), true
}
