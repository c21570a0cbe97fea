package main

import (
	"cmp"
	"fmt"
	"math"
	"path/filepath"
	"slices"
)

// Limits of the measured placements (POLLUX.md 1 and 4.2).
const (
	exactNodesMax = 4  // up to here every placement was measured itself
	nodeGPUs      = 4  // GPUs on each node of the cluster
	clusterNodes  = 16 // nodes of the cluster
	clusterGPUs   = nodeGPUs * clusterNodes
)

// appNames are the applications of the artifact.
var appNames = []string{"bert", "cifar10", "deepspeech2", "imagenet", "ncf", "yolov3"}

// yoloLocalMax is forced upstream: larger local batches were measured and are not allowed.
const yoloLocalMax = 8

// point is a measured step at one local batch size.
type point struct{ local, step, sync float64 }

// epochRow is what a validation run recorded for one epoch.
type epochRow struct{ progress, sqr, variance float64 }

// application is the ground truth of one application: what a step takes and what it is worth.
type application struct {
	name               string
	minBatch, maxBatch int                // B0 and the largest total batch
	minLocal, maxLocal int                // per GPU
	epochs             int                // that complete a job
	placements         map[string][]point // by placement digits, smallest rotation
	counts             map[[2]int][]point // by nodes and GPUs, from five nodes on
	batches            []int              // of the validation runs, ascending
	validation         [][]epochRow       // by batch, by epoch
	prog               []float64          // progress that ends epoch k, k from 0
	aloneS             []float64          // s that a job needs alone, by GPUs; see alone
}

// loadApplications reads the profiles of every application below dir.
func loadApplications(dir string) (map[string]*application, error) {
	apps := map[string]*application{}
	for _, name := range appNames {
		a, err := loadApplication(filepath.Join(dir, name), name)
		if err != nil {
			return nil, err
		}
		a.alone(1) // computed here, before several runs share it
		apps[name] = a
	}
	return apps, nil
}

func loadApplication(dir, name string) (*application, error) {
	a := &application{name: name, placements: map[string][]point{}, counts: map[[2]int][]point{}}
	if err := a.loadPlacements(filepath.Join(dir, "placements.csv")); err != nil {
		return nil, err
	}
	if err := a.loadCounts(filepath.Join(dir, "interp5plus.csv")); err != nil {
		return nil, err
	}
	return a, a.loadValidation(dir)
}

func (a *application) loadPlacements(path string) error {
	rows, err := readTable(path, "placement", "local_bsz", "step_time", "sync_time")
	if err != nil {
		return err
	}
	a.minLocal, a.maxLocal = math.MaxInt, 0
	for _, r := range rows {
		local, err := r.integer(1)
		if err != nil {
			return err
		}
		p := point{local: float64(local)}
		if p.step, err = r.number(2); err != nil {
			return err
		}
		if p.sync, err = r.number(3); err != nil {
			return err
		}
		key := r.text(0)
		a.placements[key] = append(a.placements[key], p)
		a.minLocal, a.maxLocal = min(a.minLocal, local), max(a.maxLocal, local)
	}
	if a.name == "yolov3" {
		a.maxLocal = yoloLocalMax
	}
	for key, points := range a.placements { // each list is sorted by itself
		if !slices.IsSortedFunc(points, func(x, y point) int { return cmp.Compare(x.local, y.local) }) {
			return fmt.Errorf("%s: placement %s: local_bsz is not ascending", path, key)
		}
	}
	return nil
}

func (a *application) loadCounts(path string) error {
	rows, err := readTable(path, "num_nodes", "num_replicas", "local_bsz", "step_time", "sync_time")
	if err != nil {
		return err
	}
	for _, r := range rows {
		var n [3]int
		for i := range n {
			if n[i], err = r.integer(i); err != nil {
				return err
			}
		}
		p := point{local: float64(n[2])}
		if p.step, err = r.number(3); err != nil {
			return err
		}
		if p.sync, err = r.number(4); err != nil {
			return err
		}
		key := [2]int{n[0], n[1]}
		a.counts[key] = append(a.counts[key], p)
	}
	return nil
}

func (a *application) loadValidation(dir string) error {
	files, err := filepath.Glob(filepath.Join(dir, "validation-*.csv"))
	if err != nil {
		return err
	}
	if len(files) == 0 {
		return fmt.Errorf("%s: no validation-*.csv; hint: POLLUX=DIR names the folder with profiles and workloads", dir)
	}
	byBatch := map[int][]epochRow{}
	for _, f := range files {
		batch := 0
		if _, err := fmt.Sscanf(filepath.Base(f), "validation-%d.csv", &batch); err != nil {
			return fmt.Errorf("%s: the file's name holds no batch size: %w", f, err)
		}
		rows, err := readValidation(f)
		if err != nil {
			return err
		}
		byBatch[batch] = rows
		a.batches = append(a.batches, batch)
	}
	slices.Sort(a.batches)
	a.minBatch, a.maxBatch = a.batches[0], a.batches[len(a.batches)-1]
	a.epochs = len(byBatch[a.minBatch])
	a.prog = make([]float64, a.epochs+1)
	for k := 1; k <= a.epochs; k++ {
		a.prog[k] = math.Inf(1)
	}
	for _, b := range a.batches {
		rows := byBatch[b]
		if len(rows) != a.epochs {
			return fmt.Errorf("%s: batch %d has %d epochs, batch %d has %d", dir, b, len(rows), a.minBatch, a.epochs)
		}
		a.validation = append(a.validation, rows)
		for e, r := range rows {
			a.prog[e+1] = min(a.prog[e+1], r.progress)
		}
	}
	return nil
}

func readValidation(path string) ([]epochRow, error) {
	rows, err := readTable(path, "progress", "grad_sqr", "grad_var")
	if err != nil {
		return nil, err
	}
	out := make([]epochRow, len(rows))
	for i, r := range rows {
		for k, at := range []*float64{&out[i].progress, &out[i].sqr, &out[i].variance} {
			if *at, err = r.number(k); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

// gradient gives the squared gradient and its variance at a total batch size in an epoch,
// linear between the two neighbouring validation runs.
func (a *application) gradient(batch float64, epoch int) (sqr, variance float64) {
	for i, b := range a.batches {
		if float64(b) == batch {
			r := a.validation[i][epoch]
			return r.sqr, r.variance
		}
	}
	i := 1
	for i < len(a.batches)-1 && float64(a.batches[i]) < batch {
		i++
	}
	lo, hi := a.validation[i-1][epoch], a.validation[i][epoch]
	x0, x1 := float64(a.batches[i-1]), float64(a.batches[i])
	w := (batch - x0) / (x1 - x0)
	return lo.sqr + float64(w*(hi.sqr-lo.sqr)), lo.variance + float64(w*(hi.variance-lo.variance))
}

// step gives the seconds of one step and of its synchronisation on a placement.
func (a *application) step(place []int, local int) (step, sync float64) {
	n := 0
	for _, k := range place {
		n += k
	}
	points := a.counts[[2]int{len(place), n}]
	if len(place) <= exactNodesMax {
		points = a.placements[smallestRotation(place)]
	}
	return interpolate(points, float64(local))
}

func interpolate(points []point, local float64) (step, sync float64) {
	i := 1
	for i < len(points)-1 && points[i].local < local {
		i++
	}
	if len(points) == 1 {
		return points[0].step, points[0].sync
	}
	lo, hi := points[i-1], points[i]
	w := (local - lo.local) / (hi.local - lo.local)
	return lo.step + float64(w*(hi.step-lo.step)), lo.sync + float64(w*(hi.sync-lo.sync))
}

// smallestRotation names a placement: its digits, rotated to come first in order.
func smallestRotation(place []int) string {
	digits := make([]byte, len(place))
	for i, k := range place {
		digits[i] = byte('0' + k)
	}
	s := string(digits)
	best := s
	for i := 1; i < len(s); i++ {
		best = min(best, s[i:]+s[:i])
	}
	return best
}

// split is how a job takes a step: GPUs x batch per GPU x (accumulations + 1).
type split struct{ local, accumulate int }

func (s split) batch(gpus int) int { return gpus * s.local * (s.accumulate + 1) }

// divide gives the split of a fixed total batch over GPUs (POLLUX.md 4.1).
func (a *application) divide(total, gpus int) split {
	const slack = 1e-8
	ceil := func(x float64) int { return int(math.Ceil(x - slack)) }
	local := ceil(float64(total) / float64(gpus))
	acc := ceil(float64(local)/float64(a.maxLocal)) - 1
	if gpus == 1 && total > a.minBatch {
		acc = max(1, acc)
	}
	atomic := ceil(float64(local) / float64(acc+1))
	return split{local: min(atomic, a.maxBatch/(gpus*(acc+1))), accumulate: acc}
}

// rate gives progress per second (steps at the initial batch size) on a placement.
func (a *application) rate(place []int, s split, epoch int) float64 {
	n := 0
	for _, k := range place {
		n += k
	}
	batch := float64(s.batch(n))
	sqr, variance := a.gradient(batch, epoch)
	scale := batch / float64(a.minBatch)
	gain := (variance + sqr) / (variance/scale + sqr)
	step, sync := a.step(place, s.local)
	return gain / (step + float64(float64(s.accumulate)*(step-sync)))
}
