package scheduler

// shrunk is the victim that goes on with fewer tasks instead of being stopped: the highest
// ranks of its elastic roles stop, but for so many of those that could.
func (a *attack) shrunk(run *Running, v *victim, spared int) (victim, bool) {
	counts := run.counts()
	if counts == nil || len(run.Elastic) == 0 {
		return victim{}, false
	}
	small := *v
	small.counts, small.frees, small.keeps = append([]int32(nil), counts...), nil, []int{}
	for _, e := range run.Elastic {
		small.counts[e.Role] = min(e.Min, counts[e.Role])
	}
	rank := 0
	for role, count := range counts {
		least := small.counts[role]
		for n := range count {
			switch {
			case n < least:
				small.keeps = append(small.keeps, rank)
			case spared > 0:
				spared--
				small.counts[role]++
				small.keeps = append(small.keeps, rank)
			default:
				if part, ok := a.now.room.partOf(&run.Slots[rank]); ok {
					small.frees = append(small.frees, part)
				}
			}
			rank++
		}
	}
	small.useful = a.usefulOf(small.frees, a.leading())
	return small, small.useful > 0
}

// spare lets the victims of a set that shrink keep as many tasks as they can.
func (a *attack) spare(set []int) {
	for _, i := range set {
		v := a.victims[i]
		if v.keeps == nil {
			continue
		}
		low, high := 0, len(v.frees)-1
		for low < high {
			middle := (low + high + 1) / 2
			small, ok := a.shrunk(&a.s.Running[v.run], &v, middle)
			if a.victims[i] = small; ok && a.enough(set) {
				low = middle
			} else {
				high = middle - 1
			}
		}
		a.victims[i], _ = a.shrunk(&a.s.Running[v.run], &v, low)
	}
}

// counts gives the tasks of each role of an attempt, nil when they are not known.
func (r *Running) counts() []int32 {
	total := 0
	for _, n := range r.Counts {
		total += int(n)
	}
	if len(r.Counts) > 0 && total == len(r.Slots) {
		return r.Counts
	}
	if len(r.Elastic) == 1 && r.Elastic[0].Role == 0 && int(r.Elastic[0].Count) == len(r.Slots) {
		return []int32{r.Elastic[0].Count}
	}
	return nil
}

func (r *round) resize() {}

func (r *round) wanted(j *Job) int { return j.steps() }
