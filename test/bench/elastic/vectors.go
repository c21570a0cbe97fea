package main

import (
	"fmt"
	"math"
	"slices"
)

// checkVectors compares the rules with values that a reimplementation of the artifact gave
// (POLLUX.md 9): splits, step times, gradients, progress, and isolated runs to the second.
func checkVectors(apps map[string]*application) error {
	if err := checkSplits(apps); err != nil {
		return err
	}
	if err := checkSteps(apps); err != nil {
		return err
	}
	return checkRuns(apps)
}

func checkSplits(apps map[string]*application) error {
	for _, v := range []struct {
		app         string
		total, gpus int
		want        split
		batch       int
	}{
		{"bert", 384, 6, split{10, 5}, 360},
		{"cifar10", 2048, 6, split{342, 0}, 2052},
		{"ncf", 32768, 1, split{16384, 1}, 32768},
		{"yolov3", 64, 4, split{8, 1}, 64},
		{"imagenet", 3200, 24, split{134, 0}, 3216},
	} {
		got := apps[v.app].divide(v.total, v.gpus)
		if got != v.want || got.batch(v.gpus) != v.batch {
			return fmt.Errorf("%s: batch %d on %d GPUs is split %+v, want %+v", v.app, v.total, v.gpus, got, v.want)
		}
	}
	return nil
}

func near(got, want float64) bool { return math.Abs(got-want) <= 1e-12*math.Abs(want) }

func checkSteps(apps map[string]*application) error {
	eight := []int{4, 4, 4, 4, 4, 4, 4, 4}
	for _, v := range []struct {
		app        string
		place      []int
		local      int
		step, sync float64
	}{
		{"cifar10", []int{4, 2}, 342, 0.26877741386305615, 0.02007606602389857},
		{"bert", []int{4, 2}, 10, 2.3849132309357324, 1.6419117482503254},
		{"cifar10", []int{1, 2, 1, 2}, 342, 0.27746933361269394, 0.03476582945697713},
		{"cifar10", []int{1, 1, 1, 1, 2}, 342, 0.2667531416101276, 0.014445083026091257},
		{"imagenet", eight, 200, 1.0932517528533936, 0.0950473083496094},
	} {
		if step, sync := apps[v.app].step(v.place, v.local); !near(step, v.step) || !near(sync, v.sync) {
			return fmt.Errorf("%s on %v with %d: a step takes %v (%v), want %v (%v)", v.app, v.place, v.local, step, sync, v.step, v.sync)
		}
	}
	cifar := apps["cifar10"]
	if sqr, variance := cifar.gradient(2100, 5); !near(sqr, 0.26380849093442593) || !near(variance, 2.878901255503967) {
		return fmt.Errorf("cifar10: gradient %v, %v", sqr, variance)
	}
	for k, want := range []float64{0, 390.71438596642224, 781.5989447399924, 1171.9635319400413} {
		if cifar.prog[k] != want {
			return fmt.Errorf("cifar10: epoch %d ends at %v, want %v", k, cifar.prog[k], want)
		}
	}
	return nil
}

func checkRuns(apps map[string]*application) error {
	for _, v := range []struct {
		app         string
		gpus, batch int
		want        int
	}{
		{"cifar10", 6, 2048, 940}, {"cifar10", 16, 4096, 512}, {"bert", 6, 384, 3122}, {"deepspeech2", 8, 320, 3560},
		{"imagenet", 24, 3200, 31835}, {"imagenet", 48, 6400, 19719}, {"ncf", 1, 32768, 77}, {"yolov3", 4, 64, 14132},
	} {
		jobs, err := simulate([]request{{name: v.app, app: apps[v.app], gpus: v.gpus, batch: v.batch}}, &alone{})
		if err != nil {
			return err
		}
		if got := jobs[0].completed - tickS; got != v.want {
			return fmt.Errorf("%s alone on %d GPUs with batch %d takes %d s, want %d", v.app, v.gpus, v.batch, got, v.want)
		}
	}
	return nil
}

// alone gives every job its tuned GPUs, packed, as if nobody else were there.
type alone struct{ fixed }

func (alone) decide(_ int, active []*job) [][]int {
	decision := make([][]int, len(active))
	for i, j := range active {
		for len(decision[i]) < j.gpus {
			decision[i] = append(decision[i], len(decision[i])/nodeGPUs)
		}
	}
	return slices.Clip(decision)
}
