package main

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"strings"
	"text/tabwriter"
)

// summary is the mean and the population standard deviation over the seeds.
type summary struct{ mean, deviation float64 }

func summarise(results []result, list, policy string) summary {
	var values []float64
	for i := range results {
		if results[i].list == list && results[i].policy == policy {
			values = append(values, results[i].value)
		}
	}
	sum := 0.0
	for _, v := range values {
		sum += v
	}
	s := summary{mean: sum / float64(len(values))}
	for _, v := range values {
		s.deviation += (v - s.mean) * (v - s.mean)
	}
	s.deviation = math.Sqrt(s.deviation / float64(len(values)))
	return s
}

// report prints the tables and, last, one line of JSON.
func report(o options, results []result) error {
	fmt.Printf("GPUs allocated, %% of the cluster, when demand of 100 %% has arrived; mean of %d seeds ± standard deviation,\n"+
		"and in brackets the published mean (for llmos: its prototype's)\n\n", len(o.seeds))
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "list\t"+strings.Join(policies, "\t")+"\tbound")
	figures := map[string]map[string]float64{}
	for _, l := range o.lists {
		figures[l] = map[string]float64{}
		fmt.Fprint(w, l)
		for _, p := range append(policies, "bound") {
			s := summarise(results, l, p)
			figures[l][p] = math.Round(s.mean*100) / 100
			fmt.Fprintf(w, "\t%.2f ±%.2f", s.mean, s.deviation)
			if v, known := published[l][p]; known {
				fmt.Fprintf(w, " (%.2f)", v)
			} else if v, known := prototype[l]; known && p == "llmos" {
				fmt.Fprintf(w, " (%.2f)", v)
			}
		}
		fmt.Fprintln(w)
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("writing the table: %w", err)
	}
	fmt.Println()
	out, err := json.Marshal(map[string]any{"lists": figures})
	if err != nil {
		return fmt.Errorf("writing the figures: %w", err)
	}
	fmt.Println(string(out))
	return nil
}
