package simulate

import (
	"cmp"
	"slices"
	"time"

	pb "llmos/proto/llmos/v1"
)

// shape is a kind of task of the trace with its part of all tasks that use devices.
type shape struct {
	gpus   int
	milli  int32
	models []string
	part   float64
}

// The mix is the most frequent shapes, up to this part of the tasks and this number.
const (
	mixPart  = 0.95
	mixMax   = 64
	looksMax = 500 // looks at the fragments in one simulation

	deviceWhole = 1000 // thousandths
)

// mixOf gives the shapes of the trace's tasks, as FGD (ATC 2023) takes its typical pods.
func mixOf(jobs []*job) []shape {
	counts, shapes := map[string]int{}, map[string]shape{}
	total := 0
	for _, j := range jobs {
		if j.trace.GPUs == 0 {
			continue
		}
		key := j.shape()
		shapes[key] = shape{gpus: j.trace.GPUs, milli: int32(j.trace.GPUMilli), models: j.trace.Models}
		counts[key] += j.trace.Tasks
		total += j.trace.Tasks
	}
	keys := make([]string, 0, len(counts))
	for k := range counts {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b string) int { return cmp.Or(cmp.Compare(counts[b], counts[a]), cmp.Compare(a, b)) })
	var mix []shape
	sum := 0
	for _, k := range keys {
		if len(mix) == mixMax || float64(sum) >= mixPart*float64(total) {
			break
		}
		s := shapes[k]
		s.part = float64(counts[k])
		sum += counts[k]
		mix = append(mix, s)
	}
	for i := range mix {
		mix[i].part /= float64(sum)
	}
	return mix
}

// fragments looks at how much of what is idle the trace's mix could not use: FGD's measure,
// of devices alone. It looks at most looksMax times, evenly over the time in which jobs come.
func (w *world) fragments() {
	m := w.meter
	if w.now < m.lookedAt || len(m.mix) == 0 {
		return
	}
	m.lookedAt = w.now + m.lookEvery
	st := w.log.State()
	for account := range st.Accounts() {
		m.look(account)
	}
}

func (m *meter) look(a *pb.NodeAccount) {
	idle := 0.0
	for _, d := range a.Devices {
		idle += float64(deviceWhole-d.ShareAllocated) / deviceWhole
	}
	if idle == 0 {
		return
	}
	m.idleSeen += idle
	for _, s := range m.mix {
		usable, fits := 0.0, 0
		for _, d := range a.Devices {
			free := deviceWhole - d.ShareAllocated
			if free >= s.milli && (len(s.models) == 0 || slices.Contains(s.models, d.Model)) {
				fits++
				usable += float64(free) / deviceWhole
			}
		}
		if fits < s.gpus {
			usable = 0
		}
		m.fragSeen += s.part * (idle - usable)
	}
}

// lookSpan spreads the looks over the time in which jobs are submitted.
func lookSpan(jobs []*job) time.Duration {
	if len(jobs) == 0 {
		return 0
	}
	return (jobs[len(jobs)-1].submit - jobs[0].submit) / looksMax
}
