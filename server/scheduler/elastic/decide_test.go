package elastic

import (
	"fmt"
	"math"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func uniform(nodes, gpus int) []Node {
	var out []Node
	for n := range nodes {
		out = append(out, Node{ID: fmt.Sprintf("n%02d", n), GPUs: gpus})
	}
	return out
}

// drawJobs draws jobs with random curves; what they hold comes from an earlier decision.
func drawJobs(t *rapid.T, nodes []Node, most int) []Job {
	per := PerNode(nodes)
	jobs := make([]Job, rapid.IntRange(1, most).Draw(t, "jobs"))
	for i := range jobs {
		lim := Limits{GPUsMin: rapid.SampledFrom([]int{1, 1, 1, 2, 4, 6}).Draw(t, "least")}
		power := rapid.Float64Range(0.2, 1).Draw(t, "power")
		across := rapid.Float64Range(0.5, 1).Draw(t, "across")
		c := &Curve{Fresh: rapid.IntRange(0, 4).Draw(t, "fresh") == 0}
		for _, k := range Sizes(per, len(nodes), lim) {
			s := Size{GPUs: k, Nodes: (k + per - 1) / per, Speed: math.Pow(float64(k), power)}
			if s.Nodes > 1 {
				s.Speed *= across
			}
			c.Sizes = append(c.Sizes, s)
		}
		jobs[i] = Job{ID: fmt.Sprintf("j%02d", i), Limits: lim, Curve: c, Left: math.Exp(rapid.Float64Range(3, 12).Draw(t, "left")),
			RestartS: 30, SinceS: rapid.Float64Range(0, 20000).Draw(t, "since")}
		if !c.Fresh {
			jobs[i].Widest = rapid.IntRange(1, 64).Draw(t, "widest")
		}
	}
	return jobs
}

func hold(jobs []Job, allocations []Allocation, since float64) []Job {
	out := slices.Clone(jobs)
	for i, a := range allocations {
		out[i].Held, out[i].Rescued = a.Parts, a.Rescued
		if a.Changed {
			out[i].SinceS = since
		}
	}
	return out
}

// check tells what an allocation breaks.
func check(jobs []Job, nodes []Node, got []Allocation) error {
	free, wide := map[string]int{}, map[string]int{}
	for _, n := range nodes {
		free[n.ID] = n.GPUs
	}
	for i, a := range got {
		sum := 0
		for _, p := range a.Parts {
			sum += p.GPUs
			if free[p.Node] -= p.GPUs; free[p.Node] < 0 || p.GPUs < 1 {
				return fmt.Errorf("%s has %d GPUs of %s, which are not there", a.JobID, p.GPUs, p.Node)
			}
			if len(a.Parts) > 1 {
				wide[p.Node]++
			}
		}
		if a.JobID != jobs[i].ID || sum > 0 && jobs[i].Curve.at(sum) == nil {
			return fmt.Errorf("%s has %d GPUs, which is none of its sizes", a.JobID, sum)
		}
		if a.Changed != !slices.Equal(a.Parts, jobs[i].Held) {
			return fmt.Errorf("%s: changed is %v", a.JobID, a.Changed)
		}
	}
	for n, k := range wide {
		if k > 1 {
			return fmt.Errorf("%d jobs on several nodes share %s", k, n)
		}
	}
	return nil
}

// TestDecideKeepsTheRules draws clusters and jobs, decides twice in a row with changes
// between, and checks capacity, sizes, that jobs on several nodes share none, and that the
// order of jobs and nodes changes nothing.
func TestDecideKeepsTheRules(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		nodes := uniform(rapid.IntRange(1, 6).Draw(t, "nodes"), rapid.IntRange(1, 8).Draw(t, "per"))
		jobs := drawJobs(t, nodes, 12)
		for range 2 {
			got := Decide(jobs, nodes, Standard())
			if err := check(jobs, nodes, got); err != nil {
				t.Fatal(err)
			}
			mixed, turned := slices.Clone(jobs), slices.Clone(nodes)
			slices.Reverse(mixed)
			slices.Reverse(turned)
			again := Decide(mixed, turned, Standard())
			slices.Reverse(again)
			if !reflect.DeepEqual(got, again) {
				t.Fatalf("another order gives\n%+v, was\n%+v", again, got)
			}
			jobs = hold(jobs, got, 0)
			for i := range jobs {
				jobs[i].Left *= rapid.Float64Range(0, 1).Draw(t, "done")
			}
		}
	})
}

// TestAloneRuns gives one job a cluster for itself: it runs if any of its sizes fits.
func TestAloneRuns(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		nodes := uniform(rapid.IntRange(1, 4).Draw(t, "nodes"), rapid.IntRange(1, 8).Draw(t, "per"))
		jobs := drawJobs(t, nodes, 1)
		if got := Decide(jobs, nodes, Standard()); len(jobs[0].Curve.Sizes) > 0 && got[0].Parts == nil {
			t.Fatalf("%+v does not run alone", jobs[0])
		}
	})
}

// TestUnequalNodes checks capacity where elastic jobs get unequal parts of nodes, and that a
// node which went away takes its jobs off it.
func TestUnequalNodes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		nodes := uniform(5, 0)
		for i := range nodes {
			nodes[i].GPUs = rapid.IntRange(0, 8).Draw(t, "gpus")
		}
		nodes[0].GPUs = 8
		jobs := drawJobs(t, nodes, 10)
		got := Decide(jobs, nodes, Standard())
		if err := check(jobs, nodes, got); err != nil {
			t.Fatal(err)
		}
		jobs = hold(jobs, got, 0)
		if err := check(jobs, nodes[:4], Decide(jobs, nodes[:4], Standard())); err != nil {
			t.Fatal(err)
		}
	})
}

// TestDecisionsSettle repeats a decision with nothing changed but the time: what was decided
// stays.
func TestDecisionsSettle(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		nodes := uniform(4, 4)
		jobs := drawJobs(t, nodes, 10)
		for i := range jobs {
			jobs[i].Curve.Fresh, jobs[i].Widest, jobs[i].SinceS = false, 64, 0
			jobs[i].Limits.GPUsMin = 1
		}
		changed := 0
		for round := range 6 {
			got := Decide(jobs, nodes, Standard())
			changed = 0
			for _, a := range got {
				if a.Changed {
					changed++
				}
			}
			if round > 0 && changed == 0 {
				return
			}
			jobs = hold(jobs, got, 0)
		}
		t.Fatalf("after 6 rounds %d jobs still change", changed)
	})
}

// TestStarvedJobRuns keeps a cluster full of short jobs and one long job waiting.
func TestStarvedJobRuns(t *testing.T) {
	nodes, policy := uniform(1, 4), Standard()
	curve := func(least int) *Curve {
		return &Curve{Sizes: []Size{{GPUs: least, Nodes: 1, Speed: float64(least)}}}
	}
	long := Job{ID: "long", Curve: curve(4), Left: 1e7, Widest: 4, RestartS: 30, Limits: Limits{GPUsMin: 4, GPUsMax: 4}}
	short := func(i int) Job {
		return Job{ID: fmt.Sprint("short", i), Curve: curve(1), Left: 100, Widest: 1, RestartS: 30, Limits: Limits{GPUsMin: 1, GPUsMax: 1}}
	}
	ran, longest, waited := 0.0, 0.0, 0.0
	for now := 0.0; now < 6*3600; now += 60 {
		jobs := []Job{long, short(1), short(2), short(3), short(4)} // fresh ones every time
		a := Decide(jobs, nodes, policy)[0]
		if a.Changed {
			long.SinceS = 0
		}
		long.Held, long.Rescued, long.SinceS = a.Parts, a.Rescued, long.SinceS+60
		if a.Parts != nil {
			ran, waited = ran+60, 0
		} else {
			waited += 60
			longest = max(longest, waited)
		}
	}
	if longest > policy.StarvedS+60 || ran < 2*policy.TurnS-120 || ran > 2*3600 {
		t.Errorf("the long job ran %.0f s of 6 h, waited up to %.0f s", ran, longest)
	}
}

// TestConversation follows three jobs of 2..8 GPUs that report only their steps.
func TestConversation(t *testing.T) {
	nodes, lim := uniform(2, 8), FixedLimits(2, 8)
	truth := map[string]float64{"a": 0.9, "b": 0.9, "c": 0.2} // power by which each speeds up
	profiles := map[string]Profile{}
	job := func(id string, left float64) Job {
		p := profiles[id]
		return Job{ID: id, Limits: lim, Curve: NewCurve(&p, Noise{}, lim, 8, 2), Left: left, RestartS: 30}
	}
	jobs := []Job{job("a", -1)}
	for round := range 30 {
		if round == 10 {
			jobs = append(jobs, job("b", -1), job("c", -1))
		}
		for i, a := range Decide(jobs, nodes, Standard()) {
			gpus, j := 0, &jobs[i]
			for _, p := range a.Parts {
				gpus += p.GPUs
			}
			if a.Changed {
				j.SinceS = 0
			}
			if gpus > 0 {
				speed := math.Pow(float64(gpus), truth[j.ID])
				profiles[j.ID] = profiles[j.ID].Observe(FixedObservation(len(a.Parts), gpus, 1/speed))
				p := profiles[j.ID]
				j.Curve = NewCurve(&p, Noise{}, lim, 8, 2)
				j.Done, j.Left = j.Done+60*speed, 50000-j.Done
			}
			j.Held, j.SinceS, j.Widest = a.Parts, j.SinceS+60, max(j.Widest, gpus)
		}
		if round == 9 && jobs[0].held() != 8 {
			t.Errorf("alone, a has %d GPUs, wants 8", jobs[0].held())
		}
	}
	a, b, c := jobs[0].held(), jobs[1].held(), jobs[2].held()
	if a < 4 || b < 4 || c < 2 || c > a || c > b {
		t.Errorf("a has %d, b %d, and c, which hardly gains, %d", a, b, c)
	}
}
