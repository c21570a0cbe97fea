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
	flag.IntVar(&o.passes, "passes", 100, "timed passes a round, after the first and 10 more")
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

// figures are the results; the names hold the units. Rates and p99 are by the time that the
// process had a processor, its garbage collection included: what a clock would show on a
// machine of its own. Those by the clock of this machine, whatever else it does, follow.
type figures struct {
	Singles10k float64 `json:"singles_per_s_10k"`
	Gangs10k   float64 `json:"gangs_per_s_10k"`
	P99at10k   float64 `json:"pass_p99_ms_10k"`
	Singles1k  float64 `json:"singles_per_s_1k"`
	Gangs1k    float64 `json:"gangs_per_s_1k"`

	SinglesClock10k float64 `json:"singles_per_s_10k_clock"`
	GangsClock10k   float64 `json:"gangs_per_s_10k_clock"`
	P99Clock10k     float64 `json:"pass_p99_ms_10k_clock"`
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
		"before each pass as many jobs end as it may start, chosen at random, so that the cluster is as full again after it. A pass\n"+
		"starts as many jobs as the column says (Policy.GangsMax). Only the pass is timed; cold is the first one of an empty cache.\n"+
		"Times on CPU are of this process alone, garbage collection included; by the clock others on the machine count as well.\n\n",
		runtime.Version(), runtime.GOOS, runtime.GOARCH, o.depth, o.rounds, o.passes)
	fmt.Printf("%13s  %-36s %6s | %9s %9s %8s %8s | %9s %8s %8s %8s\n", "", "", "", "on CPU", "", "", "", "by clock", "", "", "")
	fmt.Printf("%6s %6s  %-36s %6s | %9s %9s %8s %8s | %9s %8s %8s %8s\n", "nodes", "full", "jobs", "a pass", "jobs/s", "tasks/s", "p50 ms", "p99 ms",
		"jobs/s", "p50 ms", "p99 ms", "cold ms")
	onCPU, byClock := lowest{}, lowest{}
	var p99 measured
	for _, nodes := range o.nodes {
		for _, w := range workloads(nodes) {
			for _, full := range []int{50, 95} {
				if !strings.Contains(w.name, o.only) || (w.blocked && full < 95) {
					continue
				}
				res := measure(o, nodes, full, w)
				c, k := res.onCPU, res.byClock
				fmt.Printf("%6d %5d%%  %-36s %6.0f | %9.0f %9.0f %8.2f %8.2f | %9.0f %8.2f %8.2f %8.1f\n", nodes, full, w.name, res.perPass,
					c.jobs, c.tasks, c.p50, c.p99, k.jobs, k.p50, k.p99, res.cold)
				onCPU.note(fmt.Sprint(w.counts, nodes), c.jobs)
				byClock.note(fmt.Sprint(w.counts, nodes), k.jobs)
				if nodes == 10_000 && w.counts != "" {
					p99.onCPU, p99.byClock = max(p99.onCPU, c.p99), max(p99.byClock, k.p99)
				}
			}
		}
	}
	fmt.Println("\nJSON: of rates the lower of both fills; gangs are those of 8 x 8 GPUs; p99 is the highest of these rows.")
	line, _ := json.Marshal(figures{Singles10k: round(onCPU["singles10000"], 0), Gangs10k: round(onCPU["gangs10000"], 0), P99at10k: round(p99.onCPU, 2),
		Singles1k: round(onCPU["singles1000"], 0), Gangs1k: round(onCPU["gangs1000"], 0),
		SinglesClock10k: round(byClock["singles10000"], 0), GangsClock10k: round(byClock["gangs10000"], 0), P99Clock10k: round(p99.byClock, 2)})
	fmt.Println(string(line))
}

// measured is one figure, timed both ways.
type measured struct{ onCPU, byClock float64 }

// lowest keeps the lowest figure of each name.
type lowest map[string]float64

func (l lowest) note(name string, v float64) {
	if old, known := l[name]; !known || v < old {
		l[name] = v
	}
}

func round(v float64, digits int) float64 {
	f, _ := strconv.ParseFloat(strconv.FormatFloat(v, 'f', digits, 64), 64)
	return f
}

// result is of one case.
type result struct {
	onCPU, byClock speed
	perPass        float64 // jobs placed, mean
	cold           float64 // the first pass, milliseconds by the clock
}

// speed is timed one way.
type speed struct {
	jobs, tasks float64 // placed per second of passes
	p50, p99    float64 // of a pass, milliseconds
}

// tally collects the passes of one case.
type tally struct {
	spent       []float64 // by pass of all rounds, milliseconds
	round       float64   // of this round, seconds
	jobs, tasks []float64 // by round, per second
}

func (t *tally) pass(d time.Duration) {
	t.spent = append(t.spent, d.Seconds()*1e3)
	t.round += d.Seconds()
}

func (t *tally) end(jobs, tasks int) {
	t.jobs = append(t.jobs, float64(jobs)/t.round)
	t.tasks = append(t.tasks, float64(tasks)/t.round)
	t.round = 0
}

func (t *tally) speed() speed {
	return speed{jobs: quantile(t.jobs, 0.5), tasks: quantile(t.tasks, 0.5), p50: quantile(t.spent, 0.5), p99: quantile(t.spent, 0.99)}
}

// warmUp is the number of passes after the first that are not timed.
const warmUp = 10

func measure(o options, nodes, full int, w workload) result {
	var onCPU, byClock tally
	var perPass, cold []float64
	for seed := range o.rounds {
		l := newLeader(nodes, full, w, o.depth, int64(seed+1))
		l.pass()
		cold = append(cold, l.spent.Seconds()*1e3)
		for range warmUp {
			l.turn()
			l.pass()
		}
		jobs, tasks := 0, 0
		for range o.passes {
			l.turn()
			j, t := l.pass()
			jobs, tasks = jobs+j, tasks+t
			onCPU.pass(l.cpu)
			byClock.pass(l.spent)
		}
		onCPU.end(jobs, tasks)
		byClock.end(jobs, tasks)
		perPass = append(perPass, float64(jobs)/float64(o.passes))
	}
	return result{onCPU: onCPU.speed(), byClock: byClock.speed(), perPass: quantile(perPass, 0.5), cold: quantile(cold, 0.5)}
}

func quantile(v []float64, q float64) float64 {
	slices.Sort(v)
	return v[min(len(v)-1, int(q*float64(len(v))))]
}
