package metrics

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"llmos/fsm/state"
	pb "llmos/proto/llmos/v1"
)

// look is one look at the cluster.
type look struct {
	st  *state.State
	src Source
	out chan<- prometheus.Metric
}

func (l *look) give(d *prometheus.Desc, value float64, labels ...string) {
	l.out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
}

func (l *look) standing(s Standing) {
	leads := 0.0
	if s.Leads {
		leads = 1
	}
	l.give(serverInfo, 1, s.ServerID, s.Version)
	l.give(serverLeads, leads)
	l.give(serverTerm, float64(s.Term))
	l.give(serverCommit, float64(s.Commit))
	l.give(serverApplied, float64(s.Applied))
}

// word is the name of an enum's value as people write it.
func word(name, prefix string) string { return strings.ToLower(strings.TrimPrefix(name, prefix)) }

// The states of what a node has.
const (
	free        = "free"
	held        = "held"
	unavailable = "unavailable"
)

// amounts sums what is in each state.
type amounts map[string]float64

// split divides a capacity into what is held and the rest, which is free if it is available.
func (a amounts) split(capacity, allocated float64, available bool) {
	a[held] += allocated
	if available {
		a[free] += capacity - allocated
	} else {
		a[unavailable] += capacity - allocated
	}
}

func (l *look) nodes() {
	states := map[string]float64{}
	for n := range l.st.Nodes() {
		states[word(n.State.String(), "NODE_STATE_")]++
	}
	for _, s := range slices.Sorted(maps.Keys(states)) {
		l.give(nodes, states[s], s)
	}
	cpu, memory, byModel := amounts{}, amounts{}, map[string]amounts{}
	for a := range l.st.Accounts() {
		cpu.split(float64(a.CpuCapacity)/1000, float64(a.CpuAllocated)/1000, a.Available)
		memory.split(float64(a.MemoryCapacity), float64(a.MemoryAllocated), a.Available)
		for _, d := range a.Devices {
			if byModel[d.Model] == nil {
				byModel[d.Model] = amounts{}
			}
			byModel[d.Model].split(1, float64(d.ShareAllocated)/1000, a.Available && d.Available)
		}
	}
	for _, s := range []string{free, held, unavailable} {
		l.give(cpuCores, cpu[s], s)
		l.give(memoryBytes, memory[s], s)
		for _, model := range slices.Sorted(maps.Keys(byModel)) {
			l.give(devices, byModel[model][s], model, s)
		}
	}
}

// queueState is a label pair.
type queueState struct{ queue, state string }

func (l *look) jobs(nowMS int64) {
	counts, waits, holds := map[queueState]float64{}, map[string]int64{}, map[string]float64{}
	left := tasksMax
	out := 0
	for j := range l.st.UnfinishedJobs() {
		queue := cmp.Or(j.GetSpec().GetQueue(), "default")
		counts[queueState{queue, word(j.State.String(), "JOB_STATE_")}]++
		if j.State == pb.JobState_JOB_STATE_PENDING {
			waits[queue] = max(waits[queue], nowMS-j.ReadyMs)
			continue
		}
		for t := range l.st.JobTasks(j.Id, j.Epoch) {
			for _, g := range l.st.Allocation(t.Id).GetDevices() {
				holds[queue] += float64(g.ShareMilli) / 1000
			}
		}
		shown, skipped := l.job(j, queue, left)
		left -= shown
		out += skipped
	}
	for _, k := range slices.SortedFunc(maps.Keys(counts), func(a, b queueState) int {
		return cmp.Or(cmp.Compare(a.queue, b.queue), cmp.Compare(a.state, b.state))
	}) {
		l.give(jobs, counts[k], k.queue, k.state)
	}
	for _, q := range slices.Sorted(maps.Keys(waits)) {
		l.give(oldest, float64(max(0, waits[q]))/1000, q)
	}
	for _, q := range slices.Sorted(maps.Keys(holds)) {
		l.give(queueHolds, holds[q], q)
	}
	l.give(tasksLeftOut, float64(out))
}

// job gives what a running job and at most so many of its tasks told.
func (l *look) job(j *pb.Job, queue string, most int) (shown, skipped int) {
	var first *pb.Progress
	for _, p := range l.src.Progress(j.Id) {
		if first == nil || p.Rank < first.Rank {
			first = p
		}
		if p.Sample == nil {
			continue
		}
		if shown == most {
			skipped++
			continue
		}
		shown++
		l.task(j, queue, p)
	}
	l.give(jobStalled, float64(len(l.src.Stalls(j.Id))), j.Id, queue)
	if first.GetStep() == 0 {
		return shown, skipped
	}
	l.give(jobStep, float64(first.Step), j.Id, queue)
	if first.Steps > 0 {
		l.give(jobSteps, float64(first.Steps), j.Id, queue)
	}
	names := slices.Sorted(maps.Keys(first.Values))
	for _, name := range names[:min(len(names), valuesMax)] {
		l.give(jobValue, first.Values[name], j.Id, queue, strings.ToValidUTF8(name, "?"))
	}
	return shown, skipped
}

func (l *look) task(j *pb.Job, queue string, p *pb.Progress) {
	node := l.st.Task(p.TaskId).GetNodeId()
	if n := l.st.Node(node); n.GetName() != "" {
		node = n.Name
	}
	labels := []string{j.Id, strconv.Itoa(int(p.Rank)), node, queue}
	s := p.Sample
	l.give(taskCPU, float64(s.CpuMilli)/1000, labels...)
	l.give(taskMemory, float64(s.MemoryBytes), labels...)
	l.give(taskDisk, float64(s.DiskBytes), labels...)
	l.give(taskGPUMemory, float64(s.GpuMemoryBytes), labels...)
	if s.GpuPercent >= 0 {
		l.give(taskGPUUse, float64(s.GpuPercent)/100, labels...)
	}
}
