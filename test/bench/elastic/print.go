package main

import (
	"fmt"
	"os"
	"text/tabwriter"
)

// legend says what the tables hold.
const legend = `Figures are means over the workloads of a load; JCT is completion minus submission.
llmos sees the step times and gradient noise that a job measured of itself, and its progress.
  length unknown: nothing else, as Pollux;  epochs declared: and epochs done of epochs declared
  (the figure llmos_h);  steps declared: and the number of steps at the initial batch.
rho is finish-time fairness: JCT over the time alone on 1/N of the cluster at the true best
batch, N the mean number of unfinished jobs meanwhile. "Pollux, published" is the artifact's
one run for each workload.

`

// print shows the tables of one load.
func (r *results) print() {
	fmt.Printf("== load %sx: %d workloads, %d jobs each, 16 nodes of 4 GPUs\n", r.load, len(r.by[0]), len(r.by[0][0].outcomes))
	r.printFigures()
	r.printWorkloads()
	r.printApplications()
}

func (r *results) printFigures() {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "policy\tmean h\tmean s\tp50 s\tp99 s\tmakespan h\trestarts/job\tGPU-h/job\trho>1.05\trho p99\tworst rho\t")
	for c := range contenders {
		m := func(f func(*summary) float64) float64 { return r.mean(c, f) }
		restarts, gpus := "-", "-"
		if contenders[c].make != nil {
			restarts = fmt.Sprintf("%.2f", m(func(s *summary) float64 { return s.restarts }))
			gpus = fmt.Sprintf("%.2f", m(func(s *summary) float64 { return s.gpuHours }))
		}
		worst := 0.0
		for _, s := range r.by[c] {
			worst = max(worst, s.worst)
		}
		mean := m(func(s *summary) float64 { return s.mean })
		fmt.Fprintf(w, "%s\t%.3f\t%.1f\t%.0f\t%.0f\t%.2f\t%s\t%s\t%.1f%%\t%.2f\t%.2f\t\n", contenders[c].name, mean/3600, mean,
			m(func(s *summary) float64 { return s.p50 }), m(func(s *summary) float64 { return s.p99 }),
			m(func(s *summary) float64 { return s.makespan })/3600, restarts, gpus,
			100*m(func(s *summary) float64 { return s.unfair }), m(func(s *summary) float64 { return s.rho99 }), worst)
	}
	w.Flush()
	fmt.Println()
}

// printWorkloads shows the mean completion time of each workload, and llmos against Pollux
// on the same one.
func (r *results) printWorkloads() {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(w, "mean JCT, s, by workload\t")
	for i := range r.by[0] {
		fmt.Fprintf(w, "%d\t", i+1)
	}
	fmt.Fprintln(w)
	for c := range contenders {
		if !contenders[c].shown {
			continue
		}
		fmt.Fprintf(w, "%s\t", contenders[c].name)
		for _, s := range r.by[c] {
			fmt.Fprintf(w, "%.0f\t", s.mean)
		}
		fmt.Fprintln(w)
	}
	fmt.Fprint(w, "epochs declared / Pollux\t")
	for i := range r.by[0] {
		fmt.Fprintf(w, "%.2f\t", r.by[byEpochs][i].mean/r.by[byPollux][i].mean)
	}
	fmt.Fprintln(w)
	w.Flush()
	fmt.Printf("epochs declared is below Pollux on %d of %d workloads\n\n", r.won(), len(r.by[0]))
}

// won counts the workloads whose mean is below the published one.
func (r *results) won() int {
	n := 0
	for i := range r.by[byEpochs] {
		if r.by[byEpochs][i].mean < r.by[byPollux][i].mean {
			n++
		}
	}
	return n
}

// printApplications shows the mean completion time of each application over all workloads.
func (r *results) printApplications() {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(w, "mean JCT, s, by application\t")
	for _, name := range appNames {
		fmt.Fprintf(w, "%s\t", name)
	}
	fmt.Fprintln(w)
	for c := range contenders {
		if !contenders[c].shown {
			continue
		}
		sum, count := map[string]float64{}, map[string]float64{}
		for _, s := range r.by[c] {
			for _, o := range s.outcomes {
				sum[o.app.name] += float64(o.jct)
				count[o.app.name]++
			}
		}
		fmt.Fprintf(w, "%s\t", contenders[c].name)
		for _, name := range appNames {
			fmt.Fprintf(w, "%.0f\t", sum[name]/max(1, count[name]))
		}
		fmt.Fprintln(w)
	}
	w.Flush()
	fmt.Println()
}
