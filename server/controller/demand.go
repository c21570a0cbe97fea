package controller

import (
	"fmt"
	"math"
	"slices"
	"time"

	pb "llmos/proto/llmos/v1"
	"llmos/server/forecast"
)

// demandFit is the fit of what an attempt's tasks were seen to use, summed over them. Time
// runs in seconds since the attempt was placed.
type demandFit struct {
	epoch  uint64
	latest map[string]*pb.Sample // by task ID
	leader string                // task whose samples set the beat
	fit    forecast.Job
	points []seen // newest last
	alarm  string // why the attempt should be stopped before it is killed; empty: it should not
}

// seen is what was measured at a time, by place in measured. Large clusters keep millions.
type seen struct {
	atMS   int64
	values [4]float32
}

// sampleGap is the least time between two sums: agents sample every few seconds, and one
// that does so more often is not listened to more often.
const sampleGap = time.Second

// pointsMax bounds the samples of one series that are kept to be shown.
const pointsMax = 512

// measured are the resources that agents sample, as the API names them.
var measured = [4]struct {
	resource forecast.Resource
	unit     string
	scale    float64 // of the sample's unit to this one
	of       func(*pb.Sample) int64
	request  func(*pb.Resources) float64
}{
	{forecast.CPU, "cores", 1e-3, (*pb.Sample).GetCpuMilli, func(r *pb.Resources) float64 { return float64(r.GetCpuMilli()) / 1000 }},
	{forecast.HostMemory, "bytes", 1, (*pb.Sample).GetMemoryBytes, func(r *pb.Resources) float64 { return float64(r.GetMemoryBytes()) }},
	{forecast.Disk, "bytes", 1, (*pb.Sample).GetDiskBytes, func(*pb.Resources) float64 { return 0 }},
	{forecast.DeviceMemory, "bytes", 1, (*pb.Sample).GetGpuMemoryBytes,
		func(r *pb.Resources) float64 { return float64(r.GetGpuMemoryBytes()) * float64(r.GetGpus()) }},
}

// sampled takes in a sample of a task. A sum is observed each time the task with the lowest
// rank is heard, from the newest samples of all.
func (c *Controller) sampled(e *jobEntry, task *pb.Task, s *pb.Sample) {
	if s == nil || e.attempt == nil {
		return
	}
	d := e.demand
	if d == nil || d.epoch != task.Epoch {
		d = &demandFit{epoch: task.Epoch, latest: map[string]*pb.Sample{}, leader: task.Id}
		e.demand = d
	}
	if before := d.latest[task.Id]; before != nil && before.TimeMs >= s.TimeMs {
		return
	}
	d.latest[task.Id] = s
	if task.Id != d.leader {
		return
	}
	nowMS := c.wallMS()
	if n := len(d.points); n > 0 && nowMS-d.points[n-1].atMS < sampleGap.Milliseconds() {
		return
	}
	t := float64(nowMS-e.attempt.PlacedMs) / 1000
	now := seen{atMS: nowMS}
	for i := range measured {
		sum := int64(0)
		for _, sample := range d.latest { // unordered: a sum of integers
			sum += measured[i].of(sample)
		}
		value := float64(sum) * measured[i].scale
		d.fit.Of(measured[i].resource).Observe(t, value)
		now.values[i] = float32(value)
	}
	d.points = append(d.points, now)
	if len(d.points) > pointsMax {
		d.points = slices.Delete(d.points, 0, pointsMax/4)
	}
	if reason, yes := c.exhausted(e, nowMS); yes && d.alarm == "" {
		d.alarm = reason
		c.times.at = c.now
	}
}

// bandPoints is how many points ahead a forecast shows.
const bandPoints = 32

// Forecast gives the fit of a job's demand and its band ahead, horizonMS from now. A job
// that was not sampled gives no series.
func (c *Controller) Forecast(jobID string, horizonMS int64) *pb.Forecast {
	out := &pb.Forecast{JobId: jobID}
	c.catchUp()
	e := c.world.jobs[jobID]
	if e == nil || e.demand == nil || e.demand.epoch != e.job.Epoch {
		return out
	}
	nowMS, placed := c.wallMS(), e.attempt.GetPlacedMs()
	for i := range measured {
		series := e.demand.fit.Of(measured[i].resource)
		if series.Samples() == 0 || !slices.ContainsFunc(e.demand.points, func(p seen) bool { return p.values[i] > 0 }) {
			continue
		}
		line := series.Line()
		_, start, _ := series.Phase()
		s := &pb.ForecastSeries{Resource: measured[i].resource.String(), Unit: measured[i].unit,
			Level: line.Intercept + line.Slope*start, Slope: line.Slope * 3600, Significant: series.Significant(),
			PhaseStartMs: placed + int64(start*1000), Request: requested(e.job.GetSpec(), e.attempt.GetCounts(), measured[i].request)}
		for _, p := range e.demand.points {
			s.Samples = append(s.Samples, &pb.ForecastPoint{TimeMs: p.atMS, Mean: float64(p.values[i])})
		}
		for k := range bandPoints + 1 {
			at := nowMS + horizonMS*int64(k)/bandPoints
			p := series.Predict(float64(at-placed) / 1000)
			s.Band = append(s.Band, &pb.ForecastPoint{TimeMs: at, Mean: p.Mean, Low: p.Lo, High: p.Hi})
		}
		out.Series = append(out.Series, s)
	}
	return out
}

func requested(spec *pb.JobSpec, counts []int32, of func(*pb.Resources) float64) float64 {
	sum := 0.0
	for i, r := range spec.GetRoles() {
		count := r.Count
		if i < len(counts) {
			count = counts[i]
		}
		sum += float64(count) * of(r.GetResources())
	}
	return sum
}

// exhaustionLeadMS is how long before its memory runs out a job is stopped: time for its
// grace, in which it can save itself, and for the samples that are on their way.
const exhaustionLeadMS = 60_000

// After a stop for its memory the next attempt is not stopped so before it ran for
// stopAgainMS, twice as long each time up to stopAgainMaxMS: a job whose memory only settles
// near what it asked for shall get there, and restarts shall cost a job little of its time.
const (
	stopAgainMS    = int64(10 * time.Minute / time.Millisecond)
	stopAgainMaxMS = int64(time.Hour / time.Millisecond)
)

// leastRunMS is how long an attempt runs before it may be stopped for its memory, by how
// many attempts in a row before it were.
func (c *Controller) leastRunMS(e *jobEntry) int64 {
	least := int64(0)
	for epoch := e.job.Epoch - 1; epoch > 0 && least < stopAgainMaxMS; epoch-- {
		if c.st.Attempt(e.job.Id, epoch).GetEviction() != pb.EvictionKind_EVICTION_KIND_FORECAST {
			break
		}
		least = min(stopAgainMaxMS, max(stopAgainMS, 2*least))
	}
	return least
}

// exhausted says whether an attempt's memory grows beyond doubt and its upper bound passes
// what the job asked for, at which the kernel would kill it, within the lead. Stopped with
// its grace it loses the work since its checkpoint at most, and what leaked is given back;
// so only a job that has saved itself, or says how often it does, is stopped.
func (c *Controller) exhausted(e *jobEntry, nowMS int64) (reason string, yes bool) {
	spec := e.job.GetSpec()
	if e.demand == nil || e.demand.epoch != e.job.Epoch || spec.GetCheckpointEveryMs() <= 0 && e.job.SavedMs == 0 || e.attempt.GetState() != pb.AttemptState_ATTEMPT_STATE_LIVE {
		return "", false
	}
	series := e.demand.fit.Of(forecast.HostMemory)
	limit := requested(spec, e.attempt.GetCounts(), measured[1].request)
	if limit <= 0 || !series.Significant() || series.Line().Slope <= 0 {
		return "", false
	}
	if nowMS-e.attempt.PlacedMs < c.leastRunMS(e) {
		return "", false
	}
	age := float64(nowMS-e.attempt.PlacedMs) / 1000
	demand := forecast.Demand{Job: e.job.Id, Curve: series, Finish: math.Inf(1)}
	x := forecast.Exhaustion(limit, []forecast.Demand{demand}, age, exhaustionLeadMS/1000, age+2*exhaustionLeadMS/1000)
	if math.IsInf(x.Soonest, 1) || x.Soonest > age+exhaustionLeadMS/1000 {
		return "", false
	}
	return fmt.Sprintf("its memory grows by %.0f MiB an hour and would pass the %.0f MiB it asked for in %.0f s",
		series.Line().Slope*3600/(1<<20), limit/(1<<20), max(0, x.Soonest-age)), true
}
