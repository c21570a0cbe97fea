package simulate

import (
	"slices"
	"time"

	"llmos/server/trace"
)

// meter watches a simulation and remembers what the result is made of.
type meter struct {
	now        time.Duration
	devices    int
	rowOf      []int    // first row of each node
	rows       []string // of the Gantt chart
	live       map[*job]*run
	users      []string
	impossible int
	refused    int

	busy     float64 // devices held now, shares in part
	pending  int
	inSystem int
	crowd    float64 // integral of inSystem over seconds
	busyTime float64 // device seconds held

	demand, holding []float64 // devices by user: wanted and held now
	received, fair  []float64 // device seconds by user: held, and by equal shares
	stale           bool      // rates is behind demand
	rates           []float64 // equal shares now

	preemptions int
	lostWork    float64 // device seconds done again, restarts aside
	restarting  float64 // device seconds of restarts
	mix         []shape // of the trace
	lookedAt    time.Duration
	lookEvery   time.Duration
	fragSeen    float64 // fragmented devices, summed over looks
	idleSeen    float64

	load []Point
	bars []Bar
	done []*job
}

// Point is a moment of a simulation.
type Point struct {
	At      time.Duration // from the first submit
	Busy    float64       // devices held
	Pending int           // jobs waiting
}

// Bar is a time for which a job held a device.
type Bar struct {
	Row      int // of Result.Rows
	From, To time.Duration
	User     string
	Job      string
}

// Bounds of what is remembered for drawings: beyond them points are thinned out, and bars
// left out, the shortest first in effect since every second one goes.
const (
	pointsMax = 20_000
	barsMax   = 400_000
)

func newMeter(nodes []trace.Node, jobs []*job) *meter {
	m := &meter{live: map[*job]*run{}}
	for i := range nodes {
		m.rowOf = append(m.rowOf, len(m.rows))
		m.devices += nodes[i].GPUs
		for range nodes[i].GPUs {
			m.rows = append(m.rows, nodes[i].Name)
		}
	}
	index := map[string]int{}
	for _, j := range jobs {
		name := j.trace.User
		if name == "" {
			name = j.trace.Queue
		}
		at, ok := index[name]
		if !ok {
			at = len(m.users)
			index[name] = at
			m.users = append(m.users, name)
		}
		j.user = at
	}
	n := len(m.users)
	m.demand, m.holding, m.received, m.fair, m.rates = make([]float64, n), make([]float64, n), make([]float64, n), make([]float64, n), make([]float64, n)
	return m
}

// width is what a job holds of devices, shares in part.
func (j *job) width() float64 {
	return float64(j.trace.Tasks*j.trace.GPUs) * float64(j.trace.GPUMilli) / 1000
}

// advance adds up what holds until a time.
func (m *meter) advance(to time.Duration) {
	dt := (to - m.now).Seconds()
	if dt <= 0 {
		return
	}
	m.now = to
	m.busyTime += m.busy * dt
	m.crowd += float64(m.inSystem) * dt
	if m.stale {
		m.stale = false
		equalShares(m.demand, float64(m.devices), m.rates)
	}
	for u := range m.users {
		m.received[u] += m.holding[u] * dt
		m.fair[u] += m.rates[u] * dt
	}
}

// equalShares gives each user the same, but none more than it wants, and what is left to the
// others.
func equalShares(want []float64, capacity float64, out []float64) {
	order := make([]int, 0, len(want))
	for u := range want {
		out[u] = 0
		if want[u] > 0 {
			order = append(order, u)
		}
	}
	slices.SortFunc(order, func(a, b int) int {
		switch {
		case want[a] < want[b]:
			return -1
		case want[a] > want[b]:
			return 1
		}
		return a - b
	})
	for i, u := range order {
		out[u] = min(want[u], capacity/float64(len(order)-i))
		capacity -= out[u]
	}
}

func (m *meter) submitted(j *job) {
	m.pending++
	m.inSystem++
	m.demand[j.user] += j.width()
	m.stale = true
	j.waiting, j.crowd = m.now, m.crowd
	m.point()
}

func (m *meter) started(r *run) {
	j := r.job
	j.waiting = -1
	m.pending--
	m.busy += j.width()
	m.holding[j.user] += j.width()
	m.point()
}

// ended is the end of a run, however it came about.
func (m *meter) ended(r *run) {
	j := r.job
	held := m.now - r.started
	j.held += held
	m.busy -= j.width()
	m.holding[j.user] -= j.width()
	delete(m.live, j)
	for _, d := range r.devices {
		m.bars = append(m.bars, Bar{Row: d.row, From: r.started, To: m.now, User: m.users[j.user], Job: j.trace.Name})
	}
	if len(m.bars) > barsMax {
		m.bars = thin(m.bars)
	}
}

func (m *meter) interrupted(r *run, lost, restart time.Duration) {
	m.preemptions++
	if !r.live {
		delete(m.live, r.job)
		return
	}
	m.ended(r)
	m.lostWork += lost.Seconds() * r.job.width()
	m.restarting += restart.Seconds() * r.job.width()
	m.pending++
	r.job.waiting = m.now
	m.point()
}

func (m *meter) finished(r *run) {
	j := r.job
	m.ended(r)
	m.inSystem--
	m.demand[j.user] -= j.width()
	m.stale = true
	j.crowd = m.crowd - j.crowd
	m.done = append(m.done, j)
	m.point()
}

func (m *meter) point() {
	p := Point{At: m.now, Busy: m.busy, Pending: m.pending}
	if n := len(m.load); n > 0 && m.load[n-1].At == m.now {
		m.load[n-1] = p
		return
	}
	m.load = append(m.load, p)
	if len(m.load) > 2*pointsMax {
		m.load = thin(m.load)
	}
}

// thin leaves out every second one.
func thin[T any](v []T) []T {
	out := v[:0]
	for i := 0; i < len(v); i += 2 {
		out = append(out, v[i])
	}
	return out
}
