package main

import (
	"fmt"
	"path/filepath"
)

// workloadsEach is how many workloads the artifact has of each load.
const workloadsEach = 8

// loads are the artifact's loads in the order in which they are shown.
var loads = []string{"0.5", "1.0", "1.5", "2.0"}

// loadWorkload reads one workload; load "1.0" is the one without a suffix.
func loadWorkload(dir, load string, number int, apps map[string]*application) ([]request, error) {
	folder := "workloads"
	if load != "1.0" {
		folder += "-" + load
	}
	path := filepath.Join(dir, folder, fmt.Sprintf("workload-%d.csv", number))
	rows, err := readTable(path, "name", "time", "application", "num_replicas", "batch_size")
	if err != nil {
		return nil, err
	}
	out := make([]request, len(rows))
	for i, r := range rows {
		q := request{name: r.text(0), app: apps[r.text(2)]}
		if q.app == nil {
			return nil, fmt.Errorf("%s:%d: application %q has no profile; hint: one of %v", path, r.line, r.text(2), appNames)
		}
		for k, at := range map[int]*int{1: &q.submit, 3: &q.gpus, 4: &q.batch} {
			if *at, err = r.integer(k); err != nil {
				return nil, err
			}
		}
		if q.gpus < 1 || q.gpus > clusterGPUs || q.batch < q.gpus*q.app.minLocal {
			return nil, fmt.Errorf("%s:%d: %d GPUs with batch %d cannot run", path, r.line, q.gpus, q.batch)
		}
		out[i] = q
	}
	return out, nil
}

// published is what the artifact's own run gave one job, s.
type published struct{ pollux, tiresias int }

// loadPublished reads the published completion times by load/workload/job.
func loadPublished(dir string) (map[string]published, error) {
	rows, err := readTable(filepath.Join(dir, "profiles", "published_jcts.csv"), "load", "workload", "name", "pollux_jct_s", "tiresias_jct_s")
	if err != nil {
		return nil, err
	}
	out := make(map[string]published, len(rows))
	for _, r := range rows {
		var p published
		if p.pollux, err = r.integer(3); err != nil {
			return nil, err
		}
		if p.tiresias, err = r.integer(4); err != nil {
			return nil, err
		}
		out[publishedKey(r.text(0), r.text(1), r.text(2))] = p
	}
	return out, nil
}

func publishedKey(load, workload, name string) string { return load + "/" + workload + "/" + name }
