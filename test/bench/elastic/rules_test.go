package main

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"llmos/server/scheduler/elastic"
)

func toy(t *testing.T) *application {
	t.Helper()
	a, err := loadApplication("testdata/toy", "toy")
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestApplication(t *testing.T) {
	a := toy(t)
	if a.minBatch != 10 || a.maxBatch != 200 || a.minLocal != 5 || a.maxLocal != 10 || a.epochs != 2 {
		t.Errorf("limits %d..%d, %d..%d, %d epochs", a.minBatch, a.maxBatch, a.minLocal, a.maxLocal, a.epochs)
	}
	if want := []float64{0, 100, 200}; !reflect.DeepEqual(a.prog, want) {
		t.Errorf("epochs end at %v, want the least of all runs, %v", a.prog, want)
	}
	if sqr, variance := a.gradient(105, 1); sqr != 1 || variance != 19 {
		t.Errorf("gradient %v, %v", sqr, variance)
	}
	for _, c := range []struct {
		place []int
		local int
		step  float64
	}{
		{[]int{1}, 8, 0.8}, {[]int{4, 4}, 10, 1.3}, {[]int{4, 4, 4, 4, 4}, 6, 1.2},
	} {
		if step, _ := a.step(c.place, c.local); !near(step, c.step) {
			t.Errorf("a step on %v with %d takes %v, want %v", c.place, c.local, step, c.step)
		}
	}
}

func TestSmallestRotation(t *testing.T) {
	for _, c := range []struct {
		place []int
		want  string
	}{{[]int{4, 2}, "24"}, {[]int{1, 2, 1, 2}, "1212"}, {[]int{1, 4, 3, 2}, "1432"}, {[]int{2, 3, 4, 1}, "1234"}} {
		if got := smallestRotation(c.place); got != c.want {
			t.Errorf("%v is %s, want %s", c.place, got, c.want)
		}
	}
}

// TestClock works one workload out by hand. toy-0 starts at the first tick, 60, runs from 90
// and makes one step of 1 s after the other: epochs end at 190 and 290. toy-1, there from 70,
// starts at 120, runs from 150; its gain is 10/(9/4+1) a step of 1.1 s in the first epoch,
// 20/(19/4+1) in the second: 100/2.797 is 36 s, 100/3.162 is 32 s.
func TestClock(t *testing.T) {
	apps := map[string]*application{"toy": toy(t)}
	requests, err := loadWorkload("testdata", "1.0", 1, apps)
	if err != nil {
		t.Fatal(err)
	}
	for name, p := range map[string]policy{"strict": &fifo{strict: true}, "backfill": &fifo{}, "tiresias": newTiresias()} {
		jobs, err := simulate(requests, p)
		if err != nil {
			t.Fatal(err)
		}
		if jobs[0].completed != 290 || jobs[1].completed != 150+36+32 {
			t.Errorf("%s: completed at %d and %d, want 290 and 218", name, jobs[0].completed, jobs[1].completed)
		}
		if jobs[0].attained != 230 || jobs[1].attained != 4*98 || jobs[0].restarts != 0 {
			t.Errorf("%s: held %d and %d GPU-s, restarted %d times", name, jobs[0].attained, jobs[1].attained, jobs[0].restarts)
		}
	}
}

// TestStrictBlocks has a large job wait for a larger one, and a small one pass it or not.
func TestStrictBlocks(t *testing.T) {
	a := toy(t)
	requests := []request{{"big", 0, a, 8, 40}, {"all", 1, a, 20, 100}, {"one", 2, a, 1, 10}}
	requests[1].gpus = 60 // does not fit beside big
	requests[1].batch = 60 * a.minLocal
	a.maxBatch = requests[1].batch
	a.counts[[2]int{15, 60}] = a.counts[[2]int{5, 20}]
	a.batches[1] = a.maxBatch
	first := func(strict bool) (int, int) {
		jobs, err := simulate(requests, &fifo{strict: strict})
		if err != nil {
			t.Fatal(err)
		}
		return jobs[1].first, jobs[2].first
	}
	if all, one := first(true); one < all || all == 60 {
		t.Errorf("strict: one starts at %d, before the blocked job at %d", one, all)
	}
	if _, one := first(false); one != 60 {
		t.Errorf("backfill: one starts at %d, want 60", one)
	}
}

// TestLlmosOnToy runs llmos' policy on jobs that all come at once, under every view.
func TestLlmosOnToy(t *testing.T) {
	a := toy(t)
	a.placements["34"], a.placements["14"], a.placements["24"] = a.placements["44"], a.placements["44"], a.placements["44"]
	for k := 5; k <= clusterNodes; k++ {
		a.counts[[2]int{k, 4 * k}] = a.counts[[2]int{5, 20}]
	}
	requests := make([]request, 40)
	for i := range requests {
		requests[i] = request{name: "toy", submit: 10 * i, app: a, gpus: 1, batch: 10}
	}
	for k := knowsNothing; k <= knowsSteps; k++ {
		jobs, err := simulate(requests, newLlmos(k, elastic.Standard()))
		if err != nil {
			t.Fatal(err)
		}
		for i, j := range jobs {
			if j.jct() > 400 {
				t.Errorf("view %d: job %d takes %d s; alone on one GPU it takes 230 s", k, i, j.jct())
			}
		}
	}
}

func TestBrokenDecisionIsRefused(t *testing.T) {
	a := toy(t)
	for _, nodes := range [][]int{{16}, {-1}, {0, 0, 0, 0, 0}} {
		_, err := simulate([]request{{"toy", 0, a, 1, 10}}, &stubborn{nodes: nodes})
		if err == nil || !strings.Contains(err.Error(), "at 60 s") {
			t.Errorf("placing on %v gives %v", nodes, err)
		}
	}
}

// stubborn gives every job the same nodes.
type stubborn struct {
	fixed
	nodes []int
}

func (s *stubborn) decide(_ int, active []*job) [][]int {
	out := make([][]int, len(active))
	for i := range out {
		out[i] = s.nodes
	}
	return out
}

func TestBrokenTables(t *testing.T) {
	apps := map[string]*application{"toy": toy(t)}
	for _, c := range []struct{ name, text, want string }{
		{"a column is missing", "name,time,application,num_replicas\n", "column batch_size is missing"},
		{"a negative time", "name,time,application,num_replicas,batch_size\nx,-1,toy,1,10\n", ":2: column time"},
		{"no number", "name,time,application,num_replicas,batch_size\nx,1,toy,one,10\n", ":2: column num_replicas"},
		{"an unknown application", "name,time,application,num_replicas,batch_size\nx,1,tony,1,10\n", `"tony" has no profile`},
		{"too many GPUs", "name,time,application,num_replicas,batch_size\nx,1,toy,65,10\n", "65 GPUs"},
		{"a short line", "name,time,application,num_replicas,batch_size\nx,1\n", "wrong number of fields"},
		{"nothing", "name,time,application,num_replicas,batch_size\n", "no rows"},
	} {
		dir := t.TempDir()
		if err := os.MkdirAll(filepath.Join(dir, "workloads"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "workloads", "workload-1.csv"), []byte(c.text), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := loadWorkload(dir, "1.0", 1, apps); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
	if _, err := loadApplications("testdata"); err == nil || !strings.Contains(err.Error(), "hint") {
		t.Errorf("a folder without profiles gives %v, want a hint", err)
	}
}

func TestPercentile(t *testing.T) {
	values := []float64{4, 1, 3, 2}
	for q, want := range map[float64]float64{0: 1, 0.5: 2.5, 1: 4} {
		if got := percentile(values, q); got != want {
			t.Errorf("quantile %v is %v, want %v", q, got, want)
		}
	}
}

// TestFairness has two equal jobs share the cluster: one that takes twice as long as on its
// half of the GPUs is treated unfairly.
func TestFairness(t *testing.T) {
	a := toy(t)
	a.aloneS = make([]float64, clusterGPUs+1)
	for k := range a.aloneS {
		a.aloneS[k] = 6400 / float64(max(1, k))
	}
	rhos := fairness([]outcome{{app: a, submit: 0, jct: 230}, {app: a, submit: 0, jct: 230}})
	if !near(rhos[0], 1) {
		t.Errorf("a job that takes 200 s on half the GPUs, and 30 s to start, has rho %v in 230 s", rhos[0])
	}
	if rhos := fairness([]outcome{{app: a, submit: 0, jct: 460}, {app: a, submit: 0, jct: 460}}); !near(rhos[1], 2) {
		t.Errorf("rho %v in 460 s, want 2", rhos[1])
	}
}
