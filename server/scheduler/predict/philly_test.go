package predict_test

import (
	"container/heap"
	"encoding/csv"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"llmos/server/scheduler/predict"
)

// done is a job that runs, ordered by its end.
type done struct {
	at    int64
	key   predict.Key
	runMS int64
}

type running []done

func (r running) Len() int           { return len(r) }
func (r running) Less(i, j int) bool { return r[i].at < r[j].at }
func (r running) Swap(i, j int)      { r[i], r[j] = r[j], r[i] }
func (r *running) Push(x any)        { *r = append(*r, x.(done)) }
func (r *running) Pop() any {
	last := (*r)[len(*r)-1]
	*r = (*r)[:len(*r)-1]
	return last
}

// BenchmarkPhilly predicts each of the 82,247 Philly jobs at its start from those that have
// ended by then (started when submitted; the virtual cluster stands for the user, as the
// trace has neither users nor names). PHILLY names the CSV. It reports the share of run
// times at or below Q50 and Q90 (0.5 and 0.9 would be perfect) and the pinball loss of both
// against that of one quantile of all ended jobs.
func BenchmarkPhilly(b *testing.B) {
	file := os.Getenv("PHILLY")
	if file == "" {
		b.Skip("PHILLY names no file; the trace is not part of the repository")
	}
	jobs := readPhilly(b, file)
	for b.Loop() {
		var h predict.History
		var now running
		var all []int64 // run times of ended jobs, ascending
		var n, below50, below90, ours, plain float64
		for _, j := range jobs {
			start := j.at - j.runMS
			for len(now) > 0 && now[0].at <= start {
				d := heap.Pop(&now).(done)
				h.Observe(d.key, d.runMS)
				i, _ := slices.BinarySearch(all, d.runMS)
				all = slices.Insert(all, i, d.runMS)
			}
			heap.Push(&now, j)
			if len(all) < 100 {
				continue
			}
			p := h.Predict(j.key, 0, nothing, 0)
			n++
			if j.runMS <= p.Q50 {
				below50++
			}
			if j.runMS <= p.Q90 {
				below90++
			}
			ours += pinball(j.runMS, p.Q50, 0.5) + pinball(j.runMS, p.Q90, 0.9)
			plain += pinball(j.runMS, all[len(all)/2], 0.5) + pinball(j.runMS, all[len(all)*9/10], 0.9)
		}
		b.ReportMetric(below50/n, "at-or-below-q50")
		b.ReportMetric(below90/n, "at-or-below-q90")
		b.ReportMetric(ours/plain, "loss-against-one-quantile")
	}
}

// pinball is the loss that the quantile q minimises (Koenker and Bassett 1978).
func pinball(actual, predicted int64, q float64) float64 {
	d := float64(actual - predicted)
	return max(q*d, (q-1)*d)
}

func readPhilly(tb testing.TB, file string) []done {
	f, err := os.Open(file)
	if err != nil {
		tb.Fatal(err)
	}
	defer f.Close()
	rows, err := csv.NewReader(f).ReadAll()
	if err != nil {
		tb.Fatal(err)
	}
	var jobs []done
	for _, row := range rows[1:] {
		at, err1 := time.Parse(time.DateTime, row[0])
		seconds, err2 := strconv.ParseFloat(row[1], 64)
		gpus, err3 := strconv.Atoi(row[2])
		if err1 != nil || err2 != nil || err3 != nil {
			tb.Fatalf("%s: row %q", file, row)
		}
		ran := int64(seconds * 1000)
		jobs = append(jobs, done{at.UnixMilli() + ran, predict.NewKey(row[4], "", gpus), ran})
	}
	slices.SortStableFunc(jobs, func(a, b done) int { return int((a.at - a.runMS) - (b.at - b.runMS)) })
	return jobs
}
