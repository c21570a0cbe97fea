// Command scheduler measures how fast the scheduler decides, on one core and in memory:
// nothing is committed, sent or started. It plays the leader: before each pass jobs end and
// others are submitted, the pass runs through a scheduler.Cache, and its placements are
// applied. Only the pass is timed. It prints a table and ends with one line of JSON, and
// judges nothing. `make bench-scheduler` runs it.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"runtime"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"time"

	"llmos/server/scheduler"
)

type options struct {
	rounds int
	passes int
	depth  int
	nodes  []int
	only   string
}

func main() {
	var o options
	nodes := flag.String("nodes", "1000,10000", "cluster sizes, of 8 GPUs each")
	flag.IntVar(&o.rounds, "rounds", 5, "rounds of each case, each on a cluster filled anew")
	flag.IntVar(&o.passes, "passes", 100, "timed passes a round, after 10 that are not")
	flag.IntVar(&o.depth, "depth", 10_000, "pending jobs at the start of each pass")
	profile := flag.String("cpuprofile", "", "file for a CPU profile")
	flag.StringVar(&o.only, "only", "", "part of the names of the cases to run")
	flag.Parse()
	for _, word := range strings.Split(*nodes, ",") {
		n, err := strconv.Atoi(word)
		if err != nil || n < 64 || n > 100_000 {
			fmt.Fprintf(os.Stderr, "bench-scheduler: -nodes: %q is no number from 64 to 100000\n", word)
			os.Exit(2)
		}
		o.nodes = append(o.nodes, n)
	}
	if *profile != "" {
		f, err := os.Create(*profile)
		if err != nil {
			fmt.Fprintln(os.Stderr, "bench-scheduler:", err)
			os.Exit(2)
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err == nil {
			defer pprof.StopCPUProfile()
		}
	}
	runtime.GOMAXPROCS(1)
	run(o)
}

// figures are the results; the names hold the units.
type figures struct {
	Singles10k float64 `json:"singles_per_s_10k"`
	Gangs10k   float64 `json:"gangs_per_s_10k"`
	P99at10k   float64 `json:"pass_p99_ms_10k"`
	Singles1k  float64 `json:"singles_per_s_1k"`
	Gangs1k    float64 `json:"gangs_per_s_1k"`
}

// workload is what is submitted in a case.
type workload struct {
	name    string
	roles   []scheduler.Role // one of them each, in turn
	perPass int              // jobs that a pass may place
	counts  string           // the figure it goes to: singles, gangs or none
	queues  int              // leaves of the queue tree; 0: no tree
	blocked bool             // the cluster is full and nothing that waits fits
}

func workloads(nodes int) []workload {
	gangs := 32
	if nodes < 5000 {
		gangs = 16
	}
	return []workload{
		{name: "single jobs of 1, 2, 4 and 8 GPUs", roles: singles(), perPass: scheduler.GangsMaxDefault, counts: "singles"},
		{name: "gangs of 8 tasks x 8 GPUs", roles: gangsOf(8, 8), perPass: gangs, counts: "gangs"},
		{name: "gangs of 64 tasks x 1 GPU", roles: gangsOf(64, 1), perPass: gangs},
		{name: "single jobs in 30 queues of 5", roles: singles(), perPass: scheduler.GangsMaxDefault, queues: 30},
		{name: "nothing fits, 30 queues of 5", roles: singles(), perPass: scheduler.GangsMaxDefault, queues: 30, blocked: true},
		{name: "mixed, 112 shapes", roles: mixed(), perPass: scheduler.GangsMaxDefault},
	}
}

func run(o options) {
	fmt.Printf("Decisions only, in memory, one core (GOMAXPROCS=1), %s %s/%s. Queue depth %d. Medians of %d rounds of %d passes;\n"+
		"before each pass as many jobs end as the last one started, chosen at random. Only the pass is timed.\n\n",
		runtime.Version(), runtime.GOOS, runtime.GOARCH, o.depth, o.rounds, o.passes)
	fmt.Printf("%6s %5s  %-36s %10s %10s %10s %10s %10s %10s %10s\n", "nodes", "full", "jobs", "a pass", "jobs/s", "per CPU s", "tasks/s", "p50 ms", "p99 ms", "cold ms")
	lowest := map[string]float64{}
	worst := 0.0
	for _, nodes := range o.nodes {
		for _, w := range workloads(nodes) {
			for _, full := range []int{50, 95} {
				if !strings.Contains(w.name, o.only) || (w.blocked && full < 95) {
					continue
				}
				res := measure(o, nodes, full, w)
				fmt.Printf("%6d %4d%%  %-36s %10.0f %10.0f %10.0f %10.0f %10.2f %10.2f %10.1f\n", nodes, full, w.name, res.perPass, res.jobs, res.onCPU, res.tasks, res.p50, res.p99, res.cold)
				key := fmt.Sprint(w.counts, nodes)
				if old, known := lowest[key]; !known || res.jobs < old {
					lowest[key] = res.jobs
				}
				if nodes == 10_000 && w.counts != "" {
					worst = max(worst, res.p99)
				}
			}
		}
	}
	fmt.Println("\nJSON: the lower of both fills; gangs are those of 8 x 8 GPUs; p99 is the highest of these rows.")
	line, _ := json.Marshal(figures{Singles10k: round(lowest["singles10000"], 0), Gangs10k: round(lowest["gangs10000"], 0), P99at10k: round(worst, 2),
		Singles1k: round(lowest["singles1000"], 0), Gangs1k: round(lowest["gangs1000"], 0)})
	fmt.Println(string(line))
}

func round(v float64, digits int) float64 {
	f, _ := strconv.ParseFloat(strconv.FormatFloat(v, 'f', digits, 64), 64)
	return f
}

// result is of one case.
type result struct {
	jobs, tasks    float64 // placed per second of passes
	onCPU          float64 // jobs per second that the process had a processor: the same on a machine of its own
	perPass        float64 // jobs placed, mean
	p50, p99, cold float64 // of a pass, milliseconds
}

func measure(o options, nodes, full int, w workload) result {
	var jobs, tasks, onCPU, perPass, cold, times []float64
	for seed := range o.rounds {
		l := newLeader(nodes, full, w, o.depth, int64(seed+1))
		l.pass()
		cold = append(cold, l.spent.Seconds()*1e3)
		for range 10 {
			l.turn()
			l.pass()
		}
		var spent, busy time.Duration
		placedJobs, placedTasks := 0, 0
		for range o.passes {
			l.turn()
			j, t := l.pass()
			spent += l.spent
			busy += l.cpu
			times = append(times, l.spent.Seconds()*1e3)
			placedJobs += j
			placedTasks += t
		}
		jobs = append(jobs, float64(placedJobs)/spent.Seconds())
		tasks = append(tasks, float64(placedTasks)/spent.Seconds())
		onCPU = append(onCPU, float64(placedJobs)/busy.Seconds())
		perPass = append(perPass, float64(placedJobs)/float64(o.passes))
	}
	return result{jobs: quantile(jobs, 0.5), onCPU: quantile(onCPU, 0.5), tasks: quantile(tasks, 0.5), perPass: quantile(perPass, 0.5),
		p50: quantile(times, 0.5), p99: quantile(times, 0.99), cold: quantile(cold, 0.5)}
}

func quantile(v []float64, q float64) float64 {
	slices.Sort(v)
	return v[min(len(v)-1, int(q*float64(len(v))))]
}
