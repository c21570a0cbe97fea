package main

import (
	"fmt"
	"strings"
	"time"

	pb "llmos/proto/llmos/v1"
)

// sparks are the steps of a sparkline.
var sparks = []rune("▁▂▃▄▅▆▇█")

// spark draws values of 0 to 1.
func spark(values []float64) string {
	var line strings.Builder
	for _, v := range values {
		line.WriteRune(sparks[min(len(sparks)-1, max(0, int(v*float64(len(sparks)))))])
	}
	return line.String()
}

// jobTable lists the jobs; marked says that the chosen one is marked.
func (b *topBoard) jobTable(jobs []*pb.JobView, marked bool) *table {
	t := &table{header: []string{"JOB", "STATE", "TASKS", "CPU", "MEM", "GPU", "GPU MEM", "BUSY", "PROGRESS", "WHY"}}
	for i, v := range jobs {
		job, u := v.GetJob(), useOf(v)
		state := jobState(job)
		running, all := taskCounts(v)
		id := job.GetId()
		if marked && i == b.at {
			id = "▸" + id
		} else if marked {
			id = " " + id
		}
		why := b.a.stallText(v)
		if job.GetState() == pb.JobState_JOB_STATE_PENDING {
			why = firstOf(v.WaitingReason, job.GetReason())
		}
		cells := []cell{plain(id), {state, stateColour(state)}, plain(fmt.Sprintf("%d/%d", running, all))}
		if len(v.Progress) == 0 {
			cells = append(cells, plain("-"), plain("-"), plain("-"), plain("-"))
		} else {
			cells = append(cells, plain(coresText(u.cpuMilli)), plain(sizeText(u.memory)), plain(u.percent()), plain(sizeText(u.gpuMemory)))
		}
		t.add(append(cells, plain(spark(b.past[job.GetId()])), plain(progressText(v)), plain(why))...)
	}
	return t
}

// rankTable lists the ranks of one job.
func (b *topBoard) rankTable(v *pb.JobView) *table {
	names := map[string]string{}
	for _, n := range b.look.nodes {
		names[n.GetNode().GetId()] = n.GetNode().GetName()
	}
	told := map[int32]*pb.Progress{}
	for _, p := range v.Progress {
		told[p.Rank] = p
	}
	stalled := map[int32]bool{}
	for _, s := range v.Stalls {
		stalled[s.Rank] = true
	}
	t := &table{header: []string{"RANK OF " + v.GetJob().GetId(), "NODE", "STATE", "CPU", "MEM", "GPU", "GPU MEM", "STEP", "SAID"}}
	for _, task := range v.Tasks {
		state := word(task.State.String(), "TASK_STATE_")
		shown := cell{state, stateColour(state)}
		if stalled[task.Rank] {
			shown = cell{"stalled", red}
		}
		p := told[task.Rank]
		u := topUse{}
		u.add(p.GetSample())
		step, said := "-", "-"
		if p.GetStep() > 0 {
			step = stepText(p)
		}
		if p.GetTimeMs() > 0 {
			said = age(b.a.now().Sub(time.UnixMilli(p.TimeMs))) + " ago"
		}
		t.add(plain(fmt.Sprint(task.Rank)), plain(firstOf(names[task.NodeId], task.NodeId)), shown, plain(coresText(u.cpuMilli)),
			plain(sizeText(u.memory)), plain(u.percent()), plain(sizeText(u.gpuMemory)), plain(step), plain(said))
	}
	return t
}
