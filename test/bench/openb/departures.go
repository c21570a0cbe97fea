package main

import (
	"fmt"
	"io"
	"math"
)

// titles of the protocols with departures.
var titles = map[string]string{
	protocolSteady: "Pods come and go: a Poisson stream of the list's pods, staying as long as in the trace, at 0.95 load",
	protocolOwn:    "Pods come and go at the trace's own times: copies of the list laid over each other",
}

// measures of a run with departures. What is lost is the complement of what is allocated:
// every policy has the same demand.
var measures = []struct {
	name  string
	value func(*experiment) float64
	more  bool // is better
}{
	{"allocated", func(e *experiment) float64 { return e.churned.allocated }, true},
	{"refused", func(e *experiment) float64 { return e.churned.rejected }, false},
	{"lost", func(e *experiment) float64 { return e.churned.lost }, false},
}

// paired is the mean of llmos minus a baseline over the seeds, and the standard error of
// that mean. Streams differ from seed to seed by more than policies do, so the differences
// on the same stream tell more than the means.
type paired struct {
	baseline           string
	difference, margin float64
}

// against pairs llmos with the baseline that is best on the measure by its mean.
func against(all []experiment, protocol, list string, measure int) paired {
	m := &measures[measure]
	var best paired
	mean := 0.0
	for _, p := range policiesChurn {
		if p == "llmos" {
			continue
		}
		s := summarise(all, protocol, list, p, m.value)
		if best.baseline == "" || (s.mean > mean) == m.more {
			best.baseline, mean = p, s.mean
		}
	}
	ours, theirs := valuesOf(all, protocol, list, "llmos", m.value), valuesOf(all, protocol, list, best.baseline, m.value)
	for i := range ours {
		best.difference += (ours[i] - theirs[i]) / float64(len(ours))
	}
	for i := range ours {
		d := ours[i] - theirs[i] - best.difference
		best.margin += d * d
	}
	if n := float64(len(ours)); n > 1 {
		best.margin = math.Sqrt(best.margin / (n - 1) / n)
	}
	return best
}

// churnTable shows one protocol with departures; nothing when no list has times.
func churnTable(w io.Writer, o options, all []experiment, protocol string) map[string]map[string]map[string]float64 {
	figures := map[string]map[string]map[string]float64{}
	for _, l := range o.lists {
		offered := summarise(all, protocol, l, "llmos", func(e *experiment) float64 { return e.churned.offered })
		if offered.seeds == 0 {
			continue
		}
		if len(figures) == 0 {
			fmt.Fprintf(w, "\n%s; one node of %d, %d seeds.\nDemand and time-averaged allocation, %% of the GPUs; GPUs refused, %% of those asked; "+
				"and GPU time lost, %% of that asked.\n\n", titles[protocol], nodesPart, offered.seeds)
			fmt.Fprint(w, "list\tdemand")
			for _, p := range policiesChurn {
				fmt.Fprintf(w, "\t%s: allocated\trefused\tlost", p)
			}
			fmt.Fprintln(w)
		}
		figures[l] = map[string]map[string]float64{}
		fmt.Fprintf(w, "%s\t%.2f", l, offered.mean)
		for _, p := range policiesChurn {
			figures[l][p] = map[string]float64{"demand": rounded(offered.mean)}
			for i := range measures {
				mean := summarise(all, protocol, l, p, measures[i].value).mean
				fmt.Fprintf(w, "\t%.2f", mean)
				figures[l][p][measures[i].name] = rounded(mean)
			}
		}
		fmt.Fprintln(w)
	}
	if len(figures) > 0 {
		pairsTable(w, o, all, protocol, figures)
	}
	return figures
}

// pairsTable shows llmos against the best baseline and adds that to its figures.
func pairsTable(w io.Writer, o options, all []experiment, protocol string, figures map[string]map[string]map[string]float64) {
	fmt.Fprint(w, "\nllmos minus the best of the others on the same streams, mean ± standard error.\n\nlist")
	for i := range measures {
		fmt.Fprintf(w, "\t%s", measures[i].name)
	}
	fmt.Fprintln(w)
	for _, l := range o.lists {
		if figures[l] == nil {
			continue
		}
		fmt.Fprint(w, l)
		for i := range measures {
			p := against(all, protocol, l, i)
			fmt.Fprintf(w, "\t%+.2f ±%.2f (%s)", p.difference, p.margin, p.baseline)
			figures[l]["llmos"][measures[i].name+"_difference"] = rounded(p.difference)
			figures[l]["llmos"][measures[i].name+"_error"] = rounded(p.margin)
		}
		fmt.Fprintln(w)
	}
}
