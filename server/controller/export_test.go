package controller

import (
	"fmt"
	"reflect"
)

// CheckSweep compares what sweeps have made of the states so far with what one walk over the
// newest state makes of it.
func (c *Controller) CheckSweep() error {
	c.catchUp()
	fresh := newProjection()
	fresh.live = c.world.live
	fresh.sweep(c.st)
	for _, list := range []struct {
		name      string
		got, want []*jobEntry
	}{{"unfinished", c.world.lined, fresh.lined}, {"pending", c.world.pending, fresh.pending},
		{"running", c.world.running, fresh.running}, {"timed", c.world.timed, fresh.timed}} {
		if got, want := jobsOf(list.got), jobsOf(list.want); !reflect.DeepEqual(got, want) {
			return fmt.Errorf("%s jobs: %v, want %v", list.name, got, want)
		}
	}
	got, want := c.world.snapshot(), fresh.snapshot()
	if len(got) != len(want) || len(c.world.known) != len(want) {
		return fmt.Errorf("%d nodes, want %d", len(got), len(want))
	}
	for i := range got {
		is, was := got[i], want[i]
		is.Version, was.Version = 0, 0
		if !reflect.DeepEqual(is, was) {
			return fmt.Errorf("node %+v, want %+v", is, was)
		}
	}
	return nil
}

func jobsOf(entries []*jobEntry) (jobs []any) {
	for _, e := range entries {
		jobs = append(jobs, e.job, e.attempt, e.value)
	}
	return jobs
}
