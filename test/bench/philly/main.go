// Command philly measures how llmos orders the 82,247 jobs of the Philly trace beside FIFO,
// FIFO with EASY backfill and least attained service, and how fast its control plane takes
// the workloads of Kueue's generator. It prints tables and ends with one line of JSON. It
// judges nothing. make bench-philly runs it.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"math"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"llmos/server/simulate"
	"llmos/server/trace"
)

type options struct {
	bin, philly, only string
	jobs, product     int
	load              float64
	kueue             bool
}

func main() {
	var o options
	flag.StringVar(&o.bin, "bin", "bin", "folder of the built programs")
	flag.StringVar(&o.philly, "philly", "../shared/traces/philly", "folder of philly_sia.csv; empty: the trace is left out")
	flag.StringVar(&o.only, "only", "", "only these policies, separated by commas")
	flag.IntVar(&o.jobs, "jobs", 0, "only the first so many jobs; 0: all")
	flag.IntVar(&o.product, "product", -1, "so many first jobs also run through the real state machine and control loop; -1: all")
	flag.Float64Var(&o.load, "load", 0.9, "offered load to which the cluster is sized")
	flag.BoolVar(&o.kueue, "kueue", true, "run Kueue's generator")
	flag.Parse()
	if err := run(o); err != nil {
		fmt.Fprintln(os.Stderr, "bench-philly:", err)
		os.Exit(1)
	}
}

// figures are the results.
type figures struct {
	Jobs     int                `json:"jobs,omitempty"`
	GPUs     int                `json:"gpus,omitempty"`
	Policies []result           `json:"policies,omitempty"`
	Product  []simulate.Summary `json:"product,omitempty"`
	Kueue    *kueueResult       `json:"kueue,omitempty"`
}

// heapGrowth is by how many percent the heap may grow between two collections: most of what a
// pass makes lives for that pass alone, and there is memory enough.
const heapGrowth = 400

func run(o options) error {
	debug.SetGCPercent(heapGrowth)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var f figures
	if o.philly != "" {
		if err := philly(o, &f); err != nil {
			return err
		}
	}
	if o.kueue {
		r, err := kueue(ctx, o.bin)
		if err != nil {
			return err
		}
		r.show()
		f.Kueue = &r
	}
	line, err := json.Marshal(f)
	if err != nil {
		return err
	}
	fmt.Println(string(line))
	return nil
}

// policies are compared. Tiresias' usual setting has two queues; finer ones suit this trace
// better, so they are here too.
func policies() []policy {
	by := func(label string, i index) policy { return &order{label: label, margin: 1, index: i} }
	return []policy{
		fifo{}, &easy{},
		by("las 2 queues", &las{[]float64{16 * 3600}}),
		by("las 3 queues", &las{[]float64{3600, 16 * 3600}}),
		by("las x4", &las{geometric(60, 4, 1e8)}),
		by("las x2", &las{geometric(60, 2, 1e8)}),
		&order{label: "llmos", minRun: 60, margin: 2, index: &ranked{}},
	}
}

func philly(o options, f *figures) error {
	file, err := os.Open(filepath.Join(o.philly, "philly_sia.csv"))
	if err != nil {
		return fmt.Errorf("open the trace: %w", err)
	}
	defer file.Close()
	t, err := trace.Read(file.Name(), file)
	if err != nil {
		return err
	}
	work, span := 0.0, 0.0
	for _, j := range t.Jobs {
		work += float64(j.Duration) / 1000 * float64(j.Width())
		span = max(span, float64(j.Submit)/1000)
	}
	nodes := int(math.Round(work / span / o.load / nodeGPUs))
	jobs := t.Jobs
	if o.jobs > 0 {
		jobs = jobs[:min(o.jobs, len(jobs))]
	}
	f.Jobs, f.GPUs = len(jobs), nodes*nodeGPUs
	fmt.Printf("Philly: %d of %d jobs, %.0f GPU-seconds over %.0f s; %d nodes of %d for a load of %.2f\n", len(jobs), len(t.Jobs), work, span, nodes, nodeGPUs, o.load)
	fmt.Printf("a stop loses the work since the last checkpoint (one each %.0f s) and a restart costs %.0f s; no policy knows run times beforehand;\n", checkpointS, restartS)
	fmt.Printf("EASY predicts the mean of the last two runs of the same virtual cluster and width\n\n")
	f.Policies = compareAll(jobs, nodes, o.only)
	return product(o, jobs, nodes, f)
}

// compareAll runs the policies side by side, one on each processor, and prints them in order.
func compareAll(jobs []trace.Job, nodes int, only string) []result {
	var chosen []policy
	for _, p := range policies() {
		if only == "" || slices.Contains(strings.Split(only, ","), p.name()) {
			chosen = append(chosen, p)
		}
	}
	results := make([]result, len(chosen))
	slots := make(chan struct{}, runtime.GOMAXPROCS(0))
	var all sync.WaitGroup
	for i, p := range chosen {
		all.Go(func() {
			slots <- struct{}{}
			results[i] = replay(jobs, nodes, p)
			results[i].Policy = p.name()
			<-slots
		})
	}
	all.Wait()
	header()
	for i := range results {
		results[i].show()
	}
	return results
}

// tell says on standard error how far a simulation is, each tenth of the way.
func tell() func(finished, all int) {
	said := 0
	return func(finished, all int) {
		if tenth := 10 * finished / all; tenth > said {
			said = tenth
			fmt.Fprintf(os.Stderr, "bench-philly: %d of %d jobs have run through the product\n", finished, all)
		}
	}
}

// product runs the first jobs through the real state machine and control loop.
func product(o options, jobs []trace.Job, nodes int, f *figures) error {
	if o.product == 0 {
		return nil
	}
	if o.product > 0 {
		jobs = jobs[:min(o.product, len(jobs))]
	}
	shape, err := trace.ParseShape(fmt.Sprintf("%dx%d", nodes, nodeGPUs))
	if err != nil {
		return err
	}
	began := time.Now()
	r, err := simulate.Run(simulate.Options{Nodes: shape, Jobs: jobs, Policy: "las", Progress: tell()})
	if err != nil {
		return err
	}
	f.Product = append(f.Product, r.Summary())
	fmt.Printf("\nthe first %d jobs in %.0f s through the real state machine, scheduler and control loop (llmos simulate --policy las), beside the same jobs above:\n", len(jobs), time.Since(began).Seconds())
	fmt.Printf("  %-26s slowdown %.3f, p99 %.3f; JCT %.0f s; %d preemptions; worst user %s %.3f\n", "product", r.Slowdown.Mean, r.Slowdown.P99, r.JCT.Mean,
		r.Preemptions, r.Users[0].Name, r.Users[0].Slowdown)
	for _, p := range []policy{&order{label: "las x2", margin: 1, index: &las{geometric(60, 2, 1e8)}}, &order{label: "llmos", minRun: 60, margin: 2, index: &ranked{}}} {
		e := replay(jobs, nodes, p)
		fmt.Printf("  %-26s slowdown %.3f, p99 %.3f; JCT %.0f s; %d preemptions; worst user %s %.3f\n", "event simulation, "+p.name(), e.SlowMean, e.SlowP99, e.JCTMean,
			e.Preemptions, e.Worst, e.WorstSlow)
	}
	return nil
}
