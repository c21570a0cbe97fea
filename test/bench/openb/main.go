// Command openb measures placement on Alibaba's openb traces by the protocol of FGD (ATC
// 2023): the policies of the paper, FGD and llmos' own, beside the figures that the paper's
// authors published and an upper bound. `make bench-openb` runs it. Its last line is JSON.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"math"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"text/tabwriter"

	"llmos/server/scheduler/packing"
)

var listsDefault = "default,cpu100,gpushare40,gpushare100,gpuspec33,multigpu20"

type options struct {
	folder string
	lists  []string
	seeds  []int64
}

func main() {
	var o options
	var lists, seeds string
	flag.StringVar(&o.folder, "openb", "../shared/traces/openb", "folder of the traces")
	flag.StringVar(&lists, "lists", listsDefault, "lists of pods: NAME stands for openb_pod_list_NAME.csv")
	flag.StringVar(&seeds, "seeds", "10", "number of seeds, from 42 on")
	flag.Parse()
	o.lists = strings.FieldsFunc(lists, func(r rune) bool { return r == ',' || r == ' ' })
	n, err := strconv.Atoi(seeds)
	if err != nil || n < 1 || n > 1000 {
		fmt.Fprintf(os.Stderr, "bench-openb: seeds: %q is not a number from 1 to 1000\n", seeds)
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

func newPlacer(name string, tr *trace, l *list, seed int64) placer {
	_, source := order(l.pods, tr.capacity(), seed)
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

type result struct {
	list, policy string
	seed         int64
	value        float64
}

func run(o options) error {
	tr, err := readNodes(o.folder)
	if err != nil {
		return err
	}
	var lists []*list
	for _, name := range o.lists {
		l, err := tr.readList(o.folder, name)
		if err != nil {
			return err
		}
		lists = append(lists, l)
	}
	type task struct {
		l      *list
		policy string
		seed   int64
	}
	var tasks []task
	for _, l := range lists {
		for _, seed := range o.seeds {
			for _, p := range policies {
				tasks = append(tasks, task{l, p, seed})
			}
		}
	}
	results := make([]result, len(tasks))
	var wg sync.WaitGroup
	next := make(chan int)
	for range min(2, runtime.NumCPU()) {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := range next {
				t := tasks[i]
				arrivals, _ := order(t.l.pods, tr.capacity(), t.seed)
				byArrived := fill(tr, arrivals, newPlacer(t.policy, tr, t.l, t.seed))
				results[i] = result{t.l.name, t.policy, t.seed, byArrived[headline]}
			}
		}()
	}
	for i := range tasks {
		next <- i
	}
	close(next)
	wg.Wait()
	return report(o, results)
}

func report(o options, results []result) error {
	means := map[string]map[string]float64{}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "list\t"+strings.Join(policies, "\t"))
	for _, l := range o.lists {
		means[l] = map[string]float64{}
		fmt.Fprint(w, l)
		for _, p := range policies {
			sum, n := 0.0, 0.0
			for _, r := range results {
				if r.list == l && r.policy == p {
					sum += r.value
					n++
				}
			}
			means[l][p] = math.Round(sum/n*100) / 100
			fmt.Fprintf(w, "\t%.2f", means[l][p])
		}
		fmt.Fprintln(w)
	}
	w.Flush()
	out, err := json.Marshal(map[string]any{"lists": means})
	if err != nil {
		return err
	}
	fmt.Println(string(out))
	return nil
}
