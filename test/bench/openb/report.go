package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"text/tabwriter"
)

// summary is the mean and the population standard deviation over the seeds.
type summary struct {
	mean, deviation float64
	seeds           int
}

func summarise(all []experiment, protocol, list, policy string, value func(*experiment) float64) summary {
	var values []float64
	sum := 0.0
	for i := range all {
		if e := &all[i]; e.protocol == protocol && e.list == list && e.policy == policy {
			values = append(values, value(e))
			sum += value(e)
		}
	}
	s := summary{mean: sum / float64(len(values)), seeds: len(values)}
	for _, v := range values {
		s.deviation += (v - s.mean) * (v - s.mean)
	}
	s.deviation = math.Sqrt(s.deviation / float64(len(values)))
	return s
}

func rounded(v float64) float64 { return math.Round(v*100) / 100 }

// report prints the tables and, last, one line of JSON.
func report(out io.Writer, o options, all []experiment) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "GPUs allocated, %% of the cluster, when demand of 100 %% has arrived: mean of %d seeds ± standard deviation.\n"+
		"In brackets the published mean; for llmos that of the prototype.\n\n", len(o.seeds))
	lists := fillTable(w, o, all)
	churns := map[string]any{}
	for _, protocol := range []string{protocolSteady, protocolOwn} {
		churns[protocol] = churnTable(w, o, all, protocol)
	}
	fmt.Fprintln(w)
	if err := w.Flush(); err != nil {
		return fmt.Errorf("writing the tables: %w", err)
	}
	line, err := json.Marshal(map[string]any{"lists": lists, "departures": churns})
	if err != nil {
		return fmt.Errorf("writing the figures: %w", err)
	}
	if _, err := fmt.Fprintf(out, "%s\n", line); err != nil {
		return fmt.Errorf("writing the figures: %w", err)
	}
	return nil
}

func fillTable(w io.Writer, o options, all []experiment) map[string]map[string]float64 {
	figures := map[string]map[string]float64{}
	fmt.Fprintln(w, "list\t"+strings.Join(policies, "\t")+"\tbound")
	for _, l := range o.lists {
		figures[l] = map[string]float64{}
		fmt.Fprint(w, l)
		for _, p := range append(slices.Clone(policies), bounded) {
			s := summarise(all, protocolFill, l, p, func(e *experiment) float64 { return e.value })
			figures[l][p] = rounded(s.mean)
			fmt.Fprintf(w, "\t%.2f ±%.2f", s.mean, s.deviation)
			if v, known := published[l][p]; known {
				fmt.Fprintf(w, " (%.2f)", v)
			} else if v, known := prototype[l]; known && p == "llmos" {
				fmt.Fprintf(w, " (%.2f)", v)
			}
		}
		fmt.Fprintln(w)
	}
	return figures
}

// titles of the protocols with departures.
var titles = map[string]string{
	protocolSteady: "Pods come and go: a Poisson stream of the list's pods, staying as long as in the trace, at 0.95 load",
	protocolOwn:    "Pods come and go at the trace's own times: copies of the list laid over each other",
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
			fmt.Fprintf(w, "\n%s; one node of %d, %d seeds.\nDemand and time-averaged allocation, %% of the GPUs, and GPUs refused, %% of those asked.\n\n",
				titles[protocol], nodesPart, offered.seeds)
			fmt.Fprint(w, "list\tdemand")
			for _, p := range policiesChurn {
				fmt.Fprintf(w, "\t%s: allocated\trefused", p)
			}
			fmt.Fprintln(w)
		}
		figures[l] = map[string]map[string]float64{}
		fmt.Fprintf(w, "%s\t%.2f", l, offered.mean)
		for _, p := range policiesChurn {
			allocated := summarise(all, protocol, l, p, func(e *experiment) float64 { return e.churned.allocated })
			refused := summarise(all, protocol, l, p, func(e *experiment) float64 { return e.churned.rejected })
			fmt.Fprintf(w, "\t%.2f\t%.2f", allocated.mean, refused.mean)
			figures[l][p] = map[string]float64{"allocated": rounded(allocated.mean), "refused": rounded(refused.mean), "demand": rounded(offered.mean)}
		}
		fmt.Fprintln(w)
	}
	return figures
}
