// Command openb measures placement on Alibaba's openb traces. By the protocol of FGD (Weng
// and others, ATC 2023) it runs the policies of that paper, FGD and llmos' own, beside the
// figures that the authors published and an upper bound; and with departures, BestFit, FGD
// and llmos. llmos is the real scheduler, which learns the mix as pods come. It judges
// nothing. `make bench-openb` runs it; the last line is JSON.
package main

import (
	"flag"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// listsDefault are the lists on which the prototype was tuned.
const listsDefault = "default,cpu100,gpushare40,gpushare100,gpuspec33,multigpu20"

// departuresDefault is the number of seeds with departures: the policies are so close that
// fewer cannot tell them apart.
const departuresDefault = 16

// seedsMax bounds the seeds of a run.
const seedsMax = 1000

type options struct {
	folder string
	lists  []string
	seeds  []int64

	departures int // seeds of the runs with departures
}

func main() {
	var o options
	var lists, seeds string
	flag.StringVar(&o.folder, "openb", "../shared/traces/openb", "folder of the traces")
	flag.StringVar(&lists, "lists", "", "lists of pods: NAME stands for openb_pod_list_NAME.csv; empty: "+listsDefault)
	flag.StringVar(&seeds, "seeds", "10", "number of seeds, from 42 on")
	flag.IntVar(&o.departures, "departures", departuresDefault, "number of seeds with departures, from 42 on; 0: none")
	flag.Parse()
	if strings.TrimSpace(lists) == "" {
		lists = listsDefault
	}
	o.lists = strings.FieldsFunc(lists, func(r rune) bool { return r == ',' || r == ' ' })
	n, err := strconv.Atoi(seeds)
	if err != nil || n < 1 || n > seedsMax {
		fmt.Fprintf(os.Stderr, "bench-openb: seeds: %q is not a number from 1 to %d; 10 is the protocol's\n", seeds, seedsMax)
		os.Exit(2)
	}
	if o.departures < 0 || o.departures > seedsMax {
		fmt.Fprintf(os.Stderr, "bench-openb: departures: %d is not a number from 0 to %d; %d tells the policies apart\n", o.departures, seedsMax, departuresDefault)
		os.Exit(2)
	}
	for i := range n {
		o.seeds = append(o.seeds, seedFirst+int64(i))
	}
	all, err := measure(o)
	if err == nil {
		err = report(os.Stdout, o, all)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench-openb:", err)
		os.Exit(1)
	}
}
