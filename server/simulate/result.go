package simulate

import (
	"cmp"
	"math"
	"slices"
	"time"
)

// Result is what a simulation showed. Means and quantiles are over the jobs that ended,
// quantiles by the nearest rank. SCHEDULING.md B4 and the fields' comments define them.
type Result struct {
	Policy     string
	Jobs       int
	Impossible int // jobs that could not run on the empty cluster; they are left out of everything
	Refused    int // jobs refused at submit; likewise
	Devices    int

	JCT      Spread  // submit to end, s
	Queue    Spread  // all waiting: from submit to the first start and after each stop, s
	Slowdown Spread  // bounded: max(1, (end - submit) / max(work, 10 s))
	Makespan float64 // first submit to last end, s

	Utilisation   float64 // device seconds held / (devices x makespan)
	Fragmented    float64 // part of the idle device time on which the trace's mean job would not fit; see fragments
	Goodput       float64 // device seconds of work that counted / device seconds held
	Unfair        float64 // part of the jobs with a finish-time fairness above 1.05
	WorstFairness float64 // highest finish-time fairness
	Jain          float64 // Jain's index of users' device time over equal shares of it, 1 is fair
	Preemptions   int
	LostWork      float64 // device seconds done again after stops
	Restarts      float64 // device seconds spent on restarts

	Users []User // the worst mean slowdown first

	Load []Point  // over time, thinned out
	Bars []Bar    // of the Gantt chart
	Rows []string // node of each row
	Ends []End    // of each job that ended, in order of their ends
}

// End is how one job fared. Times count from the first submit of the trace.
type End struct {
	Job, User             string
	Devices               int
	Submit, Start, Finish time.Duration
	Work                  time.Duration
	Runs                  int // attempts that ran
}

// Spread is a mean with quantiles.
type Spread struct {
	Mean float64 `json:"mean"`
	P50  float64 `json:"p50"`
	P99  float64 `json:"p99"`
}

// User is how one user fared; where a trace has no users, one queue.
type User struct {
	Name      string  `json:"name"`
	Jobs      int     `json:"jobs"`
	Slowdown  float64 `json:"slowdown_mean"`
	WaitMean  float64 `json:"wait_mean_s"`
	WaitWorst float64 `json:"wait_worst_s"`
	Starved   bool    `json:"starved"`
}

// A user is starved whose mean bounded slowdown is above both: so many times that of all
// jobs, and an absolute bound below which nobody complains.
const (
	StarvedRatio = 10
	StarvedFloor = 10
)

const (
	slowdownBound = 10.0 // s
	unfairAbove   = 1.05
)

func spread(v []float64) Spread {
	v = slices.Clone(v)
	slices.Sort(v)
	return Spread{mean(v), quantile(v, 0.5), quantile(v, 0.99)}
}

func mean(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	sum := 0.0
	for _, x := range v {
		sum += x
	}
	return sum / float64(len(v))
}

// quantile is by the nearest rank.
func quantile(sorted []float64, q float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[max(0, int(math.Ceil(q*float64(len(sorted))))-1)]
}

func (j *job) slowdown() float64 {
	return max(1, (j.finished-j.submit).Seconds()/max(j.work.Seconds(), slowdownBound))
}

// fairness is the job's time in the system over the time that it would have taken on its
// part of the cluster, 1 in so many as there were jobs on average while it was there.
func (j *job) fairness(devices int) float64 {
	jct := (j.finished - j.submit).Seconds()
	if jct <= 0 || j.width() == 0 {
		return 1
	}
	crowd := max(1, j.crowd/jct)
	share := float64(devices) / crowd
	return jct / (j.work.Seconds() * max(1, j.width()/share))
}

func (w *world) result() *Result {
	m := w.meter
	r := &Result{Policy: w.opts.Policy, Jobs: len(m.done), Impossible: m.impossible, Refused: m.refused, Devices: m.devices,
		Preemptions: m.preemptions, LostWork: m.lostWork, Restarts: m.restarting, Load: m.load, Bars: m.bars, Rows: m.rows}
	var queue, slow []float64
	first, last, useful := time.Duration(math.MaxInt64), time.Duration(0), 0.0
	var jct []float64
	for _, j := range m.done {
		r.Ends = append(r.Ends, End{Job: j.trace.Name, User: m.users[j.user], Devices: j.trace.Width(), Submit: j.submit,
			Start: j.firstRun, Finish: j.finished, Work: j.work, Runs: j.runs})
		jct = append(jct, (j.finished - j.submit).Seconds())
		queue = append(queue, (j.finished - j.submit - j.held).Seconds())
		slow = append(slow, j.slowdown())
		first, last = min(first, j.submit), max(last, j.finished)
		useful += j.work.Seconds() * j.width()
		f := j.fairness(m.devices)
		r.WorstFairness = max(r.WorstFairness, f)
		if f > unfairAbove {
			r.Unfair++
		}
	}
	r.JCT, r.Queue, r.Slowdown = spread(jct), spread(queue), spread(slow)
	if len(m.done) == 0 {
		return r
	}
	r.Unfair /= float64(len(m.done))
	r.Makespan = (last - first).Seconds()
	if total := float64(m.devices) * r.Makespan; total > 0 {
		r.Utilisation = m.busyTime / total
	}
	if m.busyTime > 0 {
		r.Goodput = useful / m.busyTime
	}
	if m.idleSeen > 0 {
		r.Fragmented = m.fragSeen / m.idleSeen
	}
	r.Jain = jain(m)
	r.Users = w.users(r.Slowdown.Mean)
	return r
}

// jain is Jain's index of what each user got over its equal share of the time.
func jain(m *meter) float64 {
	sum, squares, n := 0.0, 0.0, 0.0
	for u := range m.users {
		if m.fair[u] > 0 {
			x := m.received[u] / m.fair[u]
			sum, squares, n = sum+x, squares+x*x, n+1
		}
	}
	if squares == 0 {
		return 1
	}
	return sum * sum / (n * squares)
}

func (w *world) users(overall float64) []User {
	users := make([]User, len(w.meter.users))
	for u, name := range w.meter.users {
		users[u].Name = name
	}
	for _, j := range w.meter.done {
		u := &users[j.user]
		u.Jobs++
		u.Slowdown += j.slowdown()
		wait := (j.finished - j.submit - j.held).Seconds()
		u.WaitMean += wait
		u.WaitWorst = max(u.WaitWorst, wait)
	}
	users = slices.DeleteFunc(users, func(u User) bool { return u.Jobs == 0 })
	for i := range users {
		u := &users[i]
		u.Slowdown /= float64(u.Jobs)
		u.WaitMean /= float64(u.Jobs)
		u.Starved = u.Slowdown > StarvedRatio*overall && u.Slowdown > StarvedFloor
	}
	slices.SortStableFunc(users, func(a, b User) int { return cmp.Compare(b.Slowdown, a.Slowdown) })
	return users
}
