package trace

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// readPhilly reads the Philly trace as Sia's artifact has it: timestamp (local, without a
// zone), duration (s), num_gpus, gpu_time (GPU-s, not used), cluster. A virtual cluster is
// both user and queue here: the file knows no users.
//
// A job within one node is one task; a wider one is tasks of eight devices, as on
// Philly's nodes, or of the largest power of two that divides its width.
func readPhilly(t *table) ([]Job, error) {
	if err := t.need(FormatPhilly, "timestamp", "duration", "num_gpus", "cluster"); err != nil {
		return nil, err
	}
	var jobs []Job
	for {
		more, err := t.next()
		if err != nil || !more {
			return fromFirst(jobs), err
		}
		at, err := time.Parse(time.DateTime, t.text("timestamp"))
		if err != nil {
			return nil, t.bad("timestamp", "%s is not a time", quoted(t.text("timestamp"))).Hint("write it as 2017-10-09 07:01:55")
		}
		duration, err := t.seconds("duration", 0)
		if err != nil {
			return nil, err
		}
		width, err := t.whole("num_gpus", 0, gpusMax)
		if err != nil {
			return nil, err
		}
		cluster, err := t.label("cluster")
		if err != nil {
			return nil, err
		}
		j := Job{Name: fmt.Sprintf("philly-%d", t.rows), User: cluster, Queue: cluster, Submit: at.UnixMilli(), Duration: max(1, duration)}
		j.Tasks, j.GPUs = split(int(width))
		j.GPUMilli = wholeMilli(j.GPUs)
		jobs = append(jobs, j)
	}
}

// nodeWidth is the devices of one node of the clusters that Philly and Pollux ran on, at most.
const nodeWidth = 8

// split divides a width into equal tasks of at most nodeWidth devices.
func split(width int) (tasks, gpus int) {
	if width <= nodeWidth {
		return 1, width
	}
	gpus = nodeWidth
	for width%gpus != 0 {
		gpus /= 2
	}
	return width / gpus, gpus
}

func wholeMilli(gpus int) int {
	if gpus == 0 {
		return 0
	}
	return 1000
}

// fromFirst moves the origin of time to the first submit.
func fromFirst(jobs []Job) []Job {
	if len(jobs) == 0 {
		return jobs
	}
	first := jobs[0].Submit
	for _, j := range jobs {
		first = min(first, j.Submit)
	}
	for i := range jobs {
		jobs[i].Submit -= first
	}
	return jobs
}

// readOpenb reads a pod list of openb: name, cpu_milli, memory_mib, num_gpu, gpu_milli (of
// each device; below 1000 only with num_gpu = 1), gpu_spec ("A|B": allowed models),
// creation_time, deletion_time (s). Lists without times cannot be replayed.
func readOpenb(t *table) ([]Job, error) {
	if err := t.need(FormatOpenb, "name", "cpu_milli", "memory_mib", "num_gpu", "gpu_milli", "creation_time", "deletion_time"); err != nil {
		return nil, err
	}
	var jobs []Job
	for {
		more, err := t.next()
		if err != nil || !more {
			return jobs, err
		}
		j := Job{Tasks: 1}
		if j.Name, err = t.label("name"); err != nil {
			return nil, err
		}
		if err := t.openbDemand(&j); err != nil {
			return nil, err
		}
		if j.Submit, err = t.seconds("creation_time", 0); err != nil {
			return nil, err
		}
		gone, err := t.seconds("deletion_time", 0)
		if err != nil {
			return nil, err
		}
		if gone < j.Submit {
			return nil, t.bad("deletion_time", "the pod is deleted %d s before it is created", (j.Submit-gone)/1000).
				Hint("deletion_time is at least creation_time")
		}
		j.Duration = max(1, gone-j.Submit)
		if scheduled := t.text("scheduled_time"); scheduled != "" { // it ran from here on
			at, err := t.seconds("scheduled_time", 0)
			if err != nil {
				return nil, err
			}
			if at >= j.Submit && at < gone {
				j.Duration = gone - at
			}
		}
		jobs = append(jobs, j)
	}
}

func (t *table) openbDemand(j *Job) error {
	var err error
	if j.CPUMilli, err = t.whole("cpu_milli", 0, milliMax); err != nil {
		return err
	}
	memory, err := t.whole("memory_mib", 0, bytesMax>>20)
	if err != nil {
		return err
	}
	j.MemoryBytes = memory << 20
	gpus, err := t.whole("num_gpu", 0, gpusMax)
	if err != nil {
		return err
	}
	milli, err := t.whole("gpu_milli", 0, 1000)
	if err != nil {
		return err
	}
	switch {
	case gpus == 0:
		milli = 0
	case milli == 0:
		return t.bad("gpu_milli", "a pod with %d devices uses 0 thousandths of each", gpus).Hint("1 to 1000 are possible")
	case gpus > 1 && milli < 1000:
		return t.bad("gpu_milli", "%d thousandths of each of %d devices", milli, gpus).Hint("only a single device can be shared")
	}
	j.GPUs, j.GPUMilli = int(gpus), int(milli)
	spec, err := t.label("gpu_spec")
	if err != nil {
		return err
	}
	j.Models = models(spec)
	return nil
}

// models gives the names of A|B, ascending.
func models(spec string) []string {
	var out []string
	for m := range strings.SplitSeq(spec, "|") {
		if m = strings.TrimSpace(m); m != "" {
			out = append(out, m)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// readPollux reads a workload of Pollux: name, time (s), application, num_replicas,
// batch_size. The files have no run times, which follow from profiles: a column duration
// (s at num_replicas devices) must be added.
func readPollux(t *table) ([]Job, error) {
	if err := t.need(FormatPollux, "name", "time", "application", "num_replicas"); err != nil {
		return nil, err
	}
	if !t.has("duration") {
		return nil, invalid(t.name, 1, "duration", "Pollux workloads do not say how long a job runs, and this column is missing").
			Hint("add it: the seconds that the job takes on num_replicas devices, from the profiles (make bench-elastic prints them)")
	}
	var jobs []Job
	for {
		more, err := t.next()
		if err != nil || !more {
			return jobs, err
		}
		j := Job{}
		if j.Name, err = t.label("name"); err != nil {
			return nil, err
		}
		if j.User, err = t.label("application"); err != nil {
			return nil, err
		}
		if j.Submit, err = t.seconds("time", 0); err != nil {
			return nil, err
		}
		if j.Duration, err = t.seconds("duration", 0); err != nil {
			return nil, err
		}
		j.Duration = max(1, j.Duration)
		width, err := t.whole("num_replicas", 1, gpusMax)
		if err != nil {
			return nil, err
		}
		j.Tasks, j.GPUs = int(width), 1
		j.GPUMilli = 1000
		jobs = append(jobs, j)
	}
}
