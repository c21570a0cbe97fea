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
	values, sum := valuesOf(all, protocol, list, policy, value), 0.0
	for _, v := range values {
		sum += v
	}
	s := summary{mean: sum / float64(len(values)), seeds: len(values)}
	for _, v := range values {
		s.deviation += (v - s.mean) * (v - s.mean)
	}
	s.deviation = math.Sqrt(s.deviation / float64(len(values)))
	return s
}

// valuesOf lists one policy's values in the order of the seeds.
func valuesOf(all []experiment, protocol, list, policy string, value func(*experiment) float64) []float64 {
	var values []float64
	for i := range all {
		if e := &all[i]; e.protocol == protocol && e.list == list && e.policy == policy {
			values = append(values, value(e))
		}
	}
	return values
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
