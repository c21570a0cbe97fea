package forecast_test

import (
	"encoding/csv"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"llmos/server/forecast"
)

// track is one series of demand with what its job asked for.
type track struct {
	group   string
	request float64
	t, v    []float64
}

// foresight is what one method says at a moment of the value some time ahead: the point, and
// the amount it would reserve.
type foresight struct{ point, reserve float64 }

// method makes a function of (track, samples so far, seconds ahead) out of the group's past.
type method struct {
	name string
	make func(tr track, others []track) func(seen int, ahead float64) foresight
}

// methods are llmos' fit and the four baselines of SCHEDULING.md C9.
func methods() []method {
	return []method{
		{"static request", func(tr track, _ []track) func(int, float64) foresight {
			return func(int, float64) foresight { return foresight{tr.request, tr.request} }
		}},
		{"last + 20 %", func(tr track, _ []track) func(int, float64) foresight {
			return func(seen int, _ float64) foresight {
				return foresight{tr.v[seen-1], 1.2 * tr.v[seen-1]}
			}
		}},
		{"max of last hour", func(tr track, _ []track) func(int, float64) foresight {
			return func(seen int, _ float64) foresight {
				most := 0.0
				for i := seen - 1; i >= 0 && tr.t[i] > tr.t[seen-1]-hour; i-- {
					most = max(most, tr.v[i])
				}
				return foresight{most, most}
			}
		}},
		{"group p95", func(_ track, others []track) func(int, float64) foresight {
			var all []float64
			for _, o := range others {
				all = append(all, o.v...)
			}
			slices.Sort(all)
			p := all[int(0.95*float64(len(all)-1))]
			return func(int, float64) foresight { return foresight{p, p} }
		}},
		{"llmos", func(tr track, _ []track) func(int, float64) foresight {
			s, fed := forecast.New(forecast.Prior{Request: tr.request}), 0
			return func(seen int, ahead float64) foresight {
				for ; fed < seen; fed++ {
					s.Observe(tr.t[fed], tr.v[fed])
				}
				p := s.Predict(tr.t[seen-1] + ahead)
				return foresight{p.Mean, p.Hi}
			}
		}},
	}
}

// score is how a method did.
type score struct {
	violations, checks       float64
	reserved, unused         float64 // shares of the request, summed
	error5, error60, n5, n60 float64
}

func (s score) row(name string) string {
	return fmt.Sprintf("%-18s violations %5.2f %%   reserved %5.1f %% of request   unused %5.1f %% of reserved   MAPE 5 min %6.2f %%, 1 h %6.2f %%",
		name, 100*s.violations/s.checks, 100*s.reserved/s.checks, 100*s.unused/s.reserved, 100*s.error5/s.n5, 100*s.error60/s.n60)
}

// judge asks a method every ten minutes for 5 minutes and 1 hour ahead.
func judge(m method, tracks []track) score {
	var s score
	for i, tr := range tracks {
		var others []track
		for j, o := range tracks {
			if j != i && o.group == tr.group {
				others = append(others, o)
			}
		}
		ask := m.make(tr, others)
		next := 10 * minute
		for k, t := range tr.t {
			if t-tr.t[0] < next {
				continue
			}
			next += 10 * minute
			for _, ahead := range []float64{5 * minute, hour} {
				at, found := slices.BinarySearch(tr.t, t+ahead)
				if !found && (at >= len(tr.t) || tr.t[at] > t+ahead+2*minute) {
					continue
				}
				s.add(ask(k+1, tr.t[at]-t), tr.v[at], tr.request, ahead)
			}
		}
	}
	return s
}

func (s *score) add(f foresight, actual, request, ahead float64) {
	s.checks++
	if actual > f.reserve*(1+1e-9) {
		s.violations++
	}
	s.reserved += f.reserve / request
	s.unused += max(f.reserve-actual, 0) / request
	if actual < request/1000 {
		return // a percentage of nothing
	}
	if e := math.Abs(f.point-actual) / actual; ahead == hour {
		s.error60, s.n60 = s.error60+e, s.n60+1
	} else {
		s.error5, s.n5 = s.error5+e, s.n5+1
	}
}

// shapes are the ways in which demand of training and serving jobs runs over time, as C9
// names them: what is flat after a warm-up, what grows, and what only looks as if.
func shapes() map[string]func(draw func() float64, level float64) func(t float64) float64 {
	return map[string]func(func() float64, float64) func(float64) float64{
		"flat (cpu, device memory)": func(draw func() float64, level float64) func(float64) float64 {
			x := 0.0
			return func(float64) float64 { x = 0.6*x + 0.8*draw(); return level * (1 + 0.03*x) }
		},
		"warm-up, then flat": func(draw func() float64, level float64) func(float64) float64 {
			return func(t float64) float64 { return level * (min(1, 0.1+t/(40*minute)) + 0.01*draw()) }
		},
		"leak (host memory)": func(draw func() float64, level float64) func(float64) float64 {
			return func(t float64) float64 { return level * (0.2 + 0.06*t/hour + 0.01*draw()) }
		},
		"stairs (disk, checkpoints)": func(draw func() float64, level float64) func(float64) float64 {
			period := (20 + 10*math.Abs(draw())) * minute
			return func(t float64) float64 {
				return level * (0.05 + 0.05*math.Floor(t/period) + 0.0005*math.Abs(draw()))
			}
		},
		"growth (data set, cache)": func(draw func() float64, level float64) func(float64) float64 {
			return func(t float64) float64 { return level * (0.1 + 0.1*t/hour + 0.03*draw()) }
		},
		"two phases": func(draw func() float64, level float64) func(float64) float64 {
			turn := (3 + math.Abs(draw())) * hour
			return func(t float64) float64 {
				if t < turn {
					return level * (0.3 + 0.02*draw())
				}
				return level * (0.6 + 0.05*(t-turn)/hour + 0.02*draw())
			}
		},
	}
}

const (
	jobsOfShape  = 12
	hoursOfShape = 8
)

func synthetic(shape string) []track {
	out := make([]track, jobsOfShape)
	for job := range out {
		draw := noise(uint64(1000 + job))
		level := 64e9 * math.Exp(0.5*draw())
		value, tr := shapes()[shape](draw, level), track{group: shape}
		for t := 0.0; t < hoursOfShape*hour; t += every {
			tr.t, tr.v = append(tr.t, t), append(tr.v, max(value(t), 0))
		}
		tr.request = 1.3 * slices.Max(tr.v) // people ask for the peak and a third more
		out[job] = tr
	}
	return out
}

// TestAgainstBaselines prints the table with -v. It holds what is claimed: few values above
// what is reserved, on every shape, and less reserved than asked for; better points an hour
// ahead than the last value where demand grows.
func TestAgainstBaselines(t *testing.T) {
	var names []string
	for name := range shapes() {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, shape := range names {
		t.Run(shape, func(t *testing.T) {
			tracks, got := synthetic(shape), map[string]score{}
			for _, m := range methods() {
				got[m.name] = judge(m, tracks)
				t.Log(got[m.name].row(m.name))
			}
			ours, static, last := got["llmos"], got["static request"], got["last + 20 %"]
			most := 0.04
			if shape == "two phases" { // nobody sees the jump coming: an hour's questions before it
				most = 0.1
			}
			if share := ours.violations / ours.checks; share > most {
				t.Errorf("%.1f %% of values pass what llmos reserves", 100*share)
			}
			if ours.reserved > 0.9*static.reserved {
				t.Errorf("llmos reserves %.0f %% of the requests", 100*ours.reserved/static.reserved)
			}
			if grows := strings.HasPrefix(shape, "growth") || strings.HasPrefix(shape, "leak"); grows && ours.error60/ours.n60 > 0.5*last.error60/last.n60 {
				t.Errorf("an hour ahead llmos errs by %.1f %%, the last value by %.1f %%", 100*ours.error60/ours.n60, 100*last.error60/last.n60)
			}
		})
	}
}

// realFiles are the series of Alibaba's cluster-trace-v2026-GenAI (serving, 208 pods, one
// sample in 57 s over 22.8 h), unpacked, with what stands for the request.
var realFiles = []struct {
	file    string
	request float64
}{{"pod_memory_util_anon.csv", 1}, {"pod_gpu_memory_used_bytes_anon.csv", 51_527_024_640}, {"pod_gpu_duty_cycle_anon.csv", 100}}

// BenchmarkRealSeries compares on real series: FORECAST_DIR names the folder of realFiles. It
// prints the table and reports in how many series, at their ends, a slope was significant.
func BenchmarkRealSeries(b *testing.B) {
	dir := os.Getenv("FORECAST_DIR")
	if dir == "" {
		b.Skip("FORECAST_DIR names no folder with the series; they are not part of the repository")
	}
	for _, f := range realFiles {
		b.Run(f.file, func(b *testing.B) {
			tracks := readTracks(b, filepath.Join(dir, f.file), f.request)
			significant, turns := 0, 0
			for _, tr := range tracks {
				s := forecast.New(forecast.Prior{})
				for k := range tr.t {
					s.Observe(tr.t[k], tr.v[k])
				}
				changes, _, _ := s.Phase()
				turns += changes
				if s.Significant() {
					significant++
				}
			}
			b.Logf("%d series, %d with a significant slope at the end, %.1f changes of phase each", len(tracks), significant, float64(turns)/float64(len(tracks)))
			for b.Loop() {
				for _, m := range methods() {
					b.Log(judge(m, tracks).row(m.name))
				}
			}
		})
	}
}

const samplesLeast = 180 // of a real series: three hours

func readTracks(tb testing.TB, file string, request float64) []track {
	f, err := os.Open(file)
	if err != nil {
		tb.Fatal(err)
	}
	defer f.Close()
	r := csv.NewReader(f)
	head, err := r.Read()
	if err != nil {
		tb.Fatal(err)
	}
	time, value, pod := slices.Index(head, "timestamp_anon"), slices.Index(head, "value"), slices.Index(head, "container_ip")
	byPod, order := map[string]*track{}, []string{}
	for {
		row, err := r.Read()
		if err == io.EOF {
			break
		}
		if err != nil {
			tb.Fatal(err)
		}
		tr := byPod[row[pod]]
		if tr == nil {
			tr = &track{group: "pods", request: request}
			byPod[row[pod]], order = tr, append(order, row[pod])
		}
		t, err1 := strconv.ParseFloat(row[time], 64)
		v, err2 := strconv.ParseFloat(row[value], 64)
		if err1 != nil || err2 != nil {
			tb.Fatalf("%s: row %q", file, row)
		}
		if n := len(tr.t); n == 0 || t > tr.t[n-1] {
			tr.t, tr.v = append(tr.t, t), append(tr.v, max(v, 0))
		}
	}
	var out []track
	for _, name := range order {
		if len(byPod[name].t) >= samplesLeast {
			out = append(out, *byPod[name])
		}
	}
	return out
}
