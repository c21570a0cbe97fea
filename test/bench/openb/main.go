// Command openb measures placement on Alibaba's openb traces by the protocol of FGD (ATC
// 2023): the policies of the paper, FGD and llmos' own, beside the figures that the paper's
// authors published and an upper bound. `make bench-openb` runs it. Its last line is JSON.
package main

import (
	"flag"
	"fmt"
	"math/rand"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"

	"llmos/server/scheduler/packing"
)

// listsDefault are the lists that the prototype was tuned on.
const listsDefault = "default,cpu100,gpushare40,gpushare100,gpuspec33,multigpu20"

type options struct {
	folder string
	lists  []string
	seeds  []int64
}

func main() {
	var o options
	var lists, seeds string
	flag.StringVar(&o.folder, "openb", "../shared/traces/openb", "folder of the traces")
	flag.StringVar(&lists, "lists", "", "lists of pods: NAME stands for openb_pod_list_NAME.csv; empty: "+listsDefault)
	flag.StringVar(&seeds, "seeds", "10", "number of seeds, from 42 on")
	flag.Parse()
	if strings.TrimSpace(lists) == "" {
		lists = listsDefault
	}
	o.lists = strings.FieldsFunc(lists, func(r rune) bool { return r == ',' || r == ' ' })
	n, err := strconv.Atoi(seeds)
	if err != nil || n < 1 || n > 1000 {
		fmt.Fprintf(os.Stderr, "bench-openb: seeds: %q is not a number from 1 to 1000; SEEDS=10 is the protocol\n", seeds)
		os.Exit(2)
	}
	for i := range n {
		o.seeds = append(o.seeds, seedFirst+int64(i))
	}
	if err := run(o); err != nil {
		fmt.Fprintln(os.Stderr, "bench-openb:", err)
		os.Exit(1)
	}
}

// policies in the order in which they are shown.
var policies = []string{"random", "dotprod", "clustering", "packing", "bestfit", "fgd", "llmos"}

func newPlacer(name string, tr *trace, l *list, source *rand.Rand) placer {
	switch name {
	case "random":
		return &randomly{ranked: ranked{grade: func(*node, *packing.Shape) grade { return grade{} }}, source: source}
	case "dotprod":
		return &ranked{grade: gradeDotProd}
	case "clustering":
		return &ranked{grade: gradeClustering}
	case "packing":
		return &ranked{grade: gradePacking}
	case "bestfit":
		return &ranked{grade: gradeBestFit}
	case "fgd":
		f := &fgd{mix: typical(l.pods), memo: map[nodeShape]float64{}}
		return &ranked{grade: f.grade}
	}
	return newOurs(tr)
}

// result is one policy's figure for one list and seed; the bound's too.
type result struct {
	list, policy string
	seed         int64
	value        float64
	err          error
}

func run(o options) error {
	tr, err := readNodes(o.folder)
	if err != nil {
		return err
	}
	lists := map[string]*list{}
	var tasks []result
	for _, name := range o.lists {
		l, err := tr.readList(o.folder, name)
		if err != nil {
			return err
		}
		lists[name] = l
		for _, seed := range o.seeds {
			for _, p := range append(policies, "bound") {
				tasks = append(tasks, result{list: name, policy: p, seed: seed})
			}
		}
	}
	each(len(tasks), func(i int) {
		t := &tasks[i]
		l := lists[t.list]
		here := seated(tr, t.seed)
		arrivals, source := order(l.pods, tr.capacity(), t.seed)
		if t.policy == "bound" {
			t.value, t.err = bound(here, arrivals)
			return
		}
		t.value = fill(here, arrivals, newPlacer(t.policy, here, l, source))[headline]
	})
	for i := range tasks {
		if tasks[i].err != nil {
			return fmt.Errorf("%s, seed %d: %w", tasks[i].list, tasks[i].seed, tasks[i].err)
		}
	}
	return report(o, tasks)
}

// workersMax is the number of runs at a time.
const workersMax = 2

// each calls do with 0 to n-1, several at a time.
func each(n int, do func(i int)) {
	var wg sync.WaitGroup
	next := make(chan int)
	for range min(workersMax, runtime.NumCPU()) {
		wg.Go(func() {
			for i := range next {
				do(i)
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	wg.Wait()
}
