package exec

import (
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// BenchmarkStart measures the time from handing a task to a warm shim to what the task's
// own program says is the time, and from there to the end as the agent hears of it.
func BenchmarkStart(b *testing.B) {
	self, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	d := NewDriver(DriverConfig{Self: self, Args: []string{"shim"}, NodeID: "n-exectest", Warm: 2, Log: slog.New(slog.DiscardHandler)})
	defer d.Close()
	var began, ended []time.Duration
	for b.Loop() {
		b.StopTimer()
		for d.warmCount() < 2 {
			time.Sleep(5 * time.Millisecond)
		}
		time.Sleep(60 * time.Millisecond) // for the shims to have become warm
		dir := b.TempDir()
		b.StartTimer()
		before := time.Now()
		h, err := d.Start(dir, Spec{TaskID: "bench", NodeName: "n1", Command: []string{"date", "+%s%N"}, Env: []string{"PATH=/usr/bin:/bin"}})
		if err != nil {
			b.Fatal(err)
		}
		for range h.Updates() {
		}
		after := time.Now()
		c, _, err := OpenLog(dir, 0).Next()
		if err != nil {
			b.Fatal(err)
		}
		ns, err := strconv.ParseInt(strings.TrimSpace(string(c.Data)), 10, 64)
		if err != nil {
			b.Fatal(err)
		}
		began = append(began, time.Unix(0, ns).Sub(before))
		ended = append(ended, after.Sub(time.Unix(0, ns)))
	}
	slices.Sort(began)
	slices.Sort(ended)
	b.ReportMetric(float64(began[len(began)/2].Microseconds()), "start_p50_us")
	b.ReportMetric(float64(began[len(began)*9/10].Microseconds()), "start_p90_us")
	b.ReportMetric(float64(ended[len(ended)/2].Microseconds()), "end_p50_us")
}

func (d *Driver) warmCount() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.warm)
}
