// Package predict says how long jobs run: quantiles from the finished jobs of the same user
// and shape, conditioned on the age that a job has reached, and from its reported progress
// where there is any. It also gives the Gittins index, by which jobs of unknown length are
// ordered. Predictions order jobs and place reservations; they never end a job.
//
// The package is pure: ages and run times are arguments, in milliseconds. It does not know
// when jobs start or finish; the controller and the simulator tell it and ask it.
package predict

import (
	"container/list"
	"math"
	"slices"
	"strings"
)

// Limits of a History and weights of its levels.
const (
	runsKept   = 128  // last run times of a group
	groupsMost = 8192 // groups remembered; the one whose job finished longest ago goes
	pull       = 2.0  // jobs that all wider groups together count for beside a group's own
)

// Key names jobs that are alike. Make it with NewKey.
type Key struct {
	User string
	Name string // without the digits that number the runs of one job
	GPUs int
}

// NewKey gives the key of a job: train-17 and train-18 of one user with equal GPUs are alike.
func NewKey(user, name string, gpus int) Key {
	return Key{User: user, Name: strings.TrimRight(name, "0123456789-_."), GPUs: gpus}
}

// groupKey is a key at one level; a wider level leaves fields empty.
type groupKey struct {
	level int // 0 narrowest
	key   Key
}

const levels = 4

// chain lists the groups of a key from the narrowest: the job, the user with so many GPUs,
// so many GPUs, all.
func (k Key) chain() [levels]groupKey {
	return [levels]groupKey{{0, k}, {1, Key{User: k.User, GPUs: k.GPUs}}, {2, Key{GPUs: k.GPUs}}, {3, Key{}}}
}

// levelNames say where a prediction comes from.
var levelNames = [levels]string{"runs of this job", "the user's jobs of this size", "jobs of this size", "all jobs"}

// History is what finished jobs have taught. The zero value is empty and ready. Not safe for
// use by several goroutines.
type History struct {
	groups map[groupKey]*list.Element // of *group
	order  list.List                  // the group whose job finished last is in front
}

// group is the last run times of like jobs.
type group struct {
	key    groupKey
	ring   [runsKept]int64
	n      int     // ever
	sorted []int64 // of the ring
}

// Observe takes in that a job of the key has finished after runMS of running. Only whole
// runs teach: leave out what was stopped from outside. Less than zero is left out.
func (h *History) Observe(k Key, runMS int64) {
	if runMS < 0 {
		return
	}
	if h.groups == nil {
		h.groups = map[groupKey]*list.Element{}
	}
	chain := k.chain()
	for i := levels - 1; i >= 0; i-- {
		e := h.groups[chain[i]]
		if e == nil {
			e = h.order.PushFront(&group{key: chain[i]})
			h.groups[chain[i]] = e
		}
		h.order.MoveToFront(e)
		e.Value.(*group).add(runMS)
	}
	for len(h.groups) > groupsMost {
		last := h.order.Back()
		delete(h.groups, last.Value.(*group).key)
		h.order.Remove(last)
	}
}

func (g *group) add(v int64) {
	slot := g.n % runsKept
	if g.n >= runsKept {
		i, _ := slices.BinarySearch(g.sorted, g.ring[slot])
		g.sorted = slices.Delete(g.sorted, i, i+1)
	}
	g.ring[slot] = v
	g.n++
	i, _ := slices.BinarySearch(g.sorted, v)
	g.sorted = slices.Insert(g.sorted, i, v)
}

// Progress is what a running job last said of itself. The zero value: nothing.
type Progress struct {
	Done, Total float64 // steps
	PerSecond   float64 // steps per second, as of late
	Error       float64 // relative standard error of PerSecond; 0: unknown, 10 % is taken
}

const (
	stepsLeast   = 10  // before a step rate is believed
	rateError    = 0.1 // of a step rate that comes without one
	rateErrorMin = 0.01
)

// told says whether the progress says how long the job has yet to run.
func (p Progress) told() bool {
	return p.Done >= stepsLeast && p.Total > 0 && p.PerSecond > 0 && !math.IsInf(p.Done, 0) && !math.IsInf(p.Total, 0)
}

// Prediction is a run time from a job's start to its end, in milliseconds. Zeroes: unknown.
type Prediction struct {
	Q50, Q90 int64
	Mean     int64
	Jobs     int    // finished jobs of the group that spoke
	From     string // who spoke, in words for `llmos why`: "runs of this job"
}

// Predict gives the run time of a job of the key that has run for ageMS (0: it waits).
// limitMS is its own time limit, 0 none: no prediction exceeds it. A prediction is never
// below the age. With nothing to go by the limit is the prediction, and without one the
// fields are zero.
func (h *History) Predict(k Key, ageMS int64, progress Progress, limitMS int64) Prediction {
	ageMS = max(ageMS, 0)
	bound := func(v float64) int64 {
		if limitMS > 0 {
			v = min(v, float64(limitMS))
		}
		return max(int64(min(v, math.MaxInt64/4)), ageMS)
	}
	if progress.told() {
		left := max(progress.Total-progress.Done, 0) / progress.PerSecond * 1000
		e := max(progress.Error, rateErrorMin)
		if progress.Error <= 0 {
			e = rateError
		}
		age := float64(ageMS)
		return Prediction{Q50: bound(age + left), Q90: bound(age + left*math.Exp(normal90*e)), Mean: bound(age + left*math.Exp(e*e/2)),
			From: "its reported progress"}
	}
	d := h.After(k, ageMS)
	if len(d.values) == 0 {
		if limitMS == 0 {
			return Prediction{}
		}
		return Prediction{Q50: bound(float64(limitMS)), Q90: bound(float64(limitMS)), Mean: bound(float64(limitMS)), From: "its time limit"}
	}
	return Prediction{Q50: bound(d.Quantile(0.5)), Q90: bound(d.Quantile(0.9)), Mean: bound(d.Mean()), Jobs: d.Jobs, From: d.From}
}

// normal90 is the 90 % quantile of the standard normal distribution.
const normal90 = 1.2816

// Groups is the number of groups remembered.
func (h *History) Groups() int { return len(h.groups) }
