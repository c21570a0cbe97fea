package main

import (
	"fmt"
	"math/rand"
	"runtime"
	"sync"
)

// policies in the order in which they are shown; those of the comparison with departures.
var (
	policies      = []string{"random", "dotprod", "clustering", "packing", "bestfit", "fgd", "llmos"}
	policiesChurn = []string{"bestfit", "fgd", "llmos"}
)

func newPlacer(name string, tr *trace, l *list, source *rand.Rand) placer {
	switch name {
	case "random":
		return &randomly{ranked: ranked{grade: gradeAlike}, source: source}
	case "dotprod":
		return &ranked{grade: gradeDotProd}
	case "clustering":
		return &ranked{grade: gradeClustering}
	case "packing":
		return &ranked{grade: gradePacking}
	case "bestfit":
		return &ranked{grade: gradeBestFit}
	case "fgd":
		f := &fgd{mix: typical(l.pods), memo: map[nodeShape]float64{}}
		return &ranked{grade: f.grade}
	}
	return newOurs(tr)
}

// experiment is one policy's run on one list with one seed.
type experiment struct {
	protocol, list, policy string
	seed                   int64
	value                  float64 // of the protocol of FGD, and the bound
	churned                churned // of the protocols with departures
	err                    error
}

// The protocols.
const (
	protocolFill   = "fill"   // FGD's
	protocolSteady = "steady" // Poisson arrivals, departures
	protocolOwn    = "own"    // the trace's own times
)

// bounded is the policy whose value is the bound.
const bounded = "bound"

// plan lists the runs, the longest first.
func plan(o options, lists map[string]*list) []experiment {
	var out []experiment
	for _, name := range o.lists {
		if !lists[name].times {
			continue
		}
		for i := range o.departures {
			for _, p := range policiesChurn {
				out = append(out, experiment{protocol: protocolOwn, list: name, policy: p, seed: seedFirst + int64(i)},
					experiment{protocol: protocolSteady, list: name, policy: p, seed: seedFirst + int64(i)})
			}
		}
	}
	for _, name := range o.lists {
		for _, seed := range o.seeds {
			for _, p := range append(policies[:len(policies):len(policies)], bounded) {
				out = append(out, experiment{protocol: protocolFill, list: name, policy: p, seed: seed})
			}
		}
	}
	return out
}

// run is one experiment.
func (e *experiment) run(tr *trace, l *list) {
	here := seated(tr, e.seed)
	switch e.protocol {
	case protocolFill:
		arrivals, source := order(l.pods, tr.capacity(), e.seed)
		if e.policy == bounded {
			e.value, e.err = bound(here, arrivals)
			return
		}
		e.value = fill(here, arrivals, newPlacer(e.policy, here, l, source))[headline]
	default:
		here = sparse(here)
		draw := steady
		if e.protocol == protocolOwn {
			draw = own
		}
		stays, begin, end := draw(l.pods, here.capacity(), e.seed)
		e.churned = replay(here, stays, begin, end, newPlacer(e.policy, here, l, rand.New(rand.NewSource(e.seed))))
	}
}

// measure runs all experiments.
func measure(o options) ([]experiment, error) {
	tr, err := readNodes(o.folder)
	if err != nil {
		return nil, err
	}
	lists := map[string]*list{}
	for _, name := range o.lists {
		if lists[name], err = tr.readList(o.folder, name); err != nil {
			return nil, err
		}
	}
	all := plan(o, lists)
	each(len(all), func(i int) { all[i].run(tr, lists[all[i].list]) })
	for i := range all {
		if e := &all[i]; e.err != nil {
			return nil, fmt.Errorf("%s, seed %d: %w", e.list, e.seed, e.err)
		}
	}
	return all, nil
}

// workersMax is the number of runs at a time.
const workersMax = 2

// each calls do with 0 to n-1, several at a time.
func each(n int, do func(i int)) {
	var wg sync.WaitGroup
	next := make(chan int)
	for range min(workersMax, runtime.NumCPU()) {
		wg.Go(func() {
			for i := range next {
				do(i)
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	wg.Wait()
}
