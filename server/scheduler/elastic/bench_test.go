package elastic

import (
	"fmt"
	"math"
	"testing"
)

// BenchmarkDecide measures a decision over so many jobs on as many nodes of eight GPUs, half
// of the jobs new.
func BenchmarkDecide(b *testing.B) {
	for _, n := range []int{16, 100, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			nodes := uniform(n, 8)
			p := profiled(typical)
			jobs := make([]Job, n)
			for i := range jobs {
				c := NewCurve(&p, Noise{Sqr: 1, Var: float64(i % 50)}, adaptive, 8, n)
				jobs[i] = Job{ID: fmt.Sprintf("%05d", i), Curve: c, Left: 1000 * math.Exp(float64(i%7)), Widest: 16, RestartS: 30}
			}
			jobs = hold(jobs, Decide(jobs[:n/2], nodes, Standard()), 0)
			for b.Loop() {
				Decide(jobs, nodes, Standard())
			}
		})
	}
}

// BenchmarkObserve measures one new configuration and the fit it calls for.
func BenchmarkObserve(b *testing.B) {
	p := profiled(typical)
	for b.Loop() {
		p.Observe(measure(typical, 3, 12, 64))
	}
}

// BenchmarkCurve measures the speeds of all sizes on 16 nodes of four.
func BenchmarkCurve(b *testing.B) {
	p := profiled(typical)
	for b.Loop() {
		NewCurve(&p, Noise{Sqr: 1, Var: 10}, adaptive, 4, 16)
	}
}
