// Command elastic runs Pollux' workloads (OSDI'21) by the rules of its simulator, with
// strict and backfilling first-in-first-out, Tiresias and llmos' own elastic policy, and
// prints them beside the published times of Pollux. It proves itself first: test vectors, and
// every published completion time of Tiresias met to the second. `make bench-elastic` runs it
// with POLLUX=DIR, the folder with profiles and workloads. It ends with one line of JSON.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"llmos/server/scheduler/elastic"
)

func main() {
	dir := flag.String("pollux", "../shared/traces/pollux", "folder with profiles and workloads")
	which := flag.String("loads", strings.Join(loads, ","), "loads to run, of "+strings.Join(loads, ", "))
	flag.Parse()
	if err := run(*dir, strings.Split(*which, ",")); err != nil {
		fmt.Fprintln(os.Stderr, "bench-elastic:", err)
		os.Exit(1)
	}
}

// contender is one policy of the comparison.
type contender struct {
	name  string
	make  func() policy // nil: published times only
	shown bool          // in the tables of single workloads and applications
}

// The contenders by index.
const (
	byStrict = iota
	byBackfill
	byTiresias
	byPollux
	byBlind
	byEpochs
	bySteps
)

var contenders = []contender{
	{name: "FIFO, strict", make: func() policy { return &fifo{strict: true} }},
	{name: "FIFO, backfill", make: func() policy { return &fifo{} }},
	{name: "Tiresias", make: func() policy { return newTiresias() }, shown: true},
	{name: "Pollux, published", shown: true},
	{name: "llmos, length unknown", make: func() policy { return newLlmos(knowsNothing, elastic.Standard()) }, shown: true},
	{name: "llmos, epochs declared", make: func() policy { return newLlmos(knowsEpochs, elastic.Standard()) }, shown: true},
	{name: "llmos, steps declared", make: func() policy { return newLlmos(knowsSteps, elastic.Standard()) }, shown: true},
}

// results are the summaries by contender and workload of one load.
type results struct {
	load string
	by   [][]summary
}

func run(dir string, wanted []string) error {
	for _, l := range wanted {
		if !slices.Contains(loads, l) {
			return fmt.Errorf("load %q is unknown; hint: any of %s, with commas", l, strings.Join(loads, ", "))
		}
	}
	began := time.Now()
	apps, err := loadApplications(dir + "/profiles")
	if err != nil {
		return err
	}
	if err := checkVectors(apps); err != nil {
		return fmt.Errorf("the simulator fails its test vectors: %w", err)
	}
	fmt.Printf("test vectors: all met\n")
	known, err := loadPublished(dir)
	if err != nil {
		return err
	}
	var all []results
	equal, jobs := 0, 0
	for _, l := range wanted {
		r, same, of, err := runLoad(dir, l, apps, known)
		if err != nil {
			return err
		}
		equal, jobs = equal+same, jobs+of
		all = append(all, r)
	}
	fmt.Printf("tiresias: %d of %d jobs equal\n\n", equal, jobs)
	if equal != jobs {
		return fmt.Errorf("%d of %d jobs under Tiresias differ from the published times", jobs-equal, jobs)
	}
	fmt.Print(legend)
	for _, r := range all {
		r.print()
	}
	fmt.Printf("took %.0f s\n", time.Since(began).Seconds())
	return printJSON(all)
}

// runLoad simulates the workloads of one load and counts the jobs whose completion time
// under Tiresias is the published one.
func runLoad(dir, load string, apps map[string]*application, known map[string]published) (results, int, int, error) {
	r := results{load: load, by: make([][]summary, len(contenders))}
	for c := range r.by {
		r.by[c] = make([]summary, workloadsEach)
	}
	type task struct{ contender, workload int }
	tasks := make(chan task)
	errs := make([]error, workloadsEach*len(contenders))
	var workers sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			for t := range tasks {
				outcomes, err := runOne(dir, load, t.workload+1, t.contender, apps, known)
				if err != nil {
					errs[t.contender*workloadsEach+t.workload] = fmt.Errorf("load %s, workload %d, %s: %w", load, t.workload+1, contenders[t.contender].name, err)
					continue
				}
				r.by[t.contender][t.workload] = summarise(outcomes)
			}
		})
	}
	for c := range contenders {
		for w := range workloadsEach {
			tasks <- task{c, w}
		}
	}
	close(tasks)
	workers.Wait()
	for _, err := range errs {
		if err != nil {
			return r, 0, 0, err
		}
	}
	equal, jobs := 0, 0
	for w := range workloadsEach {
		for _, o := range r.by[byTiresias][w].outcomes {
			jobs++
			if known[publishedKey(load, strconv.Itoa(w+1), o.name)].tiresias == o.jct {
				equal++
			}
		}
	}
	return r, equal, jobs, nil
}

func runOne(dir, load string, workload, with int, apps map[string]*application, known map[string]published) ([]outcome, error) {
	requests, err := loadWorkload(dir, load, workload, apps)
	if err != nil {
		return nil, err
	}
	out := make([]outcome, len(requests))
	if contenders[with].make == nil {
		for i, q := range requests {
			p, ok := known[publishedKey(load, strconv.Itoa(workload), q.name)]
			if !ok {
				return nil, fmt.Errorf("job %s has no published times", q.name)
			}
			out[i] = outcome{name: q.name, app: q.app, submit: q.submit, jct: p.pollux}
		}
		return out, nil
	}
	done, err := simulate(requests, contenders[with].make())
	if err != nil {
		return nil, err
	}
	for i, j := range done {
		out[i] = outcome{name: j.name, app: j.app, submit: j.submit, jct: j.jct(), restarts: j.restarts, gpuS: j.attained}
	}
	return out, nil
}

// mean averages a figure over the workloads of a load.
func (r *results) mean(contender int, figure func(*summary) float64) float64 {
	sum := 0.0
	for w := range r.by[contender] {
		sum += figure(&r.by[contender][w])
	}
	return sum / float64(len(r.by[contender]))
}

func printJSON(all []results) error {
	type line struct {
		Llmos    float64 `json:"llmos_h"`
		Tiresias float64 `json:"tiresias_h"`
		Fifo     float64 `json:"fifo_h"`
		Pollux   float64 `json:"pollux_published_h"`
		Blind    float64 `json:"llmos_length_unknown_h"`
		Steps    float64 `json:"llmos_steps_declared_h"`
		Restarts float64 `json:"llmos_restarts_per_job"`
		Unfair   float64 `json:"llmos_unfair_fraction"`
	}
	out := map[string]line{}
	for i := range all {
		r := &all[i]
		hours := func(c int) float64 {
			return r.mean(c, func(s *summary) float64 { return s.mean }) / 3600
		}
		out[r.load] = line{Llmos: hours(byEpochs), Tiresias: hours(byTiresias), Fifo: hours(byStrict), Pollux: hours(byPollux),
			Blind: hours(byBlind), Steps: hours(bySteps),
			Restarts: r.mean(byEpochs, func(s *summary) float64 { return s.restarts }),
			Unfair:   r.mean(byEpochs, func(s *summary) float64 { return s.unfair })}
	}
	text, err := json.Marshal(map[string]any{"load": out})
	if err != nil {
		return err
	}
	fmt.Println(string(text))
	return nil
}
