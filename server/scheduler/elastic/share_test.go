package elastic

import (
	"testing"

	"pgregory.net/rapid"
)

// drawOffers draws a small case with values that need not be concave.
func drawOffers(t *rapid.T) ([]offer, int) {
	offers := make([]offer, rapid.IntRange(1, 5).Draw(t, "jobs"))
	for i := range offers {
		offers[i].choices = []choice{{value: rapid.SampledFrom([]float64{0, 0, -0.1}).Draw(t, "stop")}}
		v := 0.0
		for _, k := range []int{1, 2, 4, 8} {
			v += rapid.Float64Range(-0.2, 1).Draw(t, "more")
			offers[i].choices = append(offers[i].choices, choice{Size{GPUs: k}, v})
		}
	}
	return offers, rapid.IntRange(0, 16).Draw(t, "gpus")
}

func worth(offers []offer) (value float64, gpus int) {
	for i := range offers {
		c := offers[i].choices[offers[i].chosen]
		value, gpus = value+c.value, gpus+c.size.GPUs
	}
	return value, gpus
}

// try gives the highest value by looking at every combination.
func try(offers []offer, left int) float64 {
	if len(offers) == 0 {
		return 0
	}
	best := -1e9
	for _, c := range offers[0].choices {
		if c.size.GPUs <= left {
			best = max(best, c.value+try(offers[1:], left-c.size.GPUs))
		}
	}
	return best
}

func TestExactIsExact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		offers, total := drawOffers(t)
		exact(offers, total)
		got, gpus := worth(offers)
		if want := try(offers, total); got < want-1e-9 || gpus > total {
			t.Fatalf("value %v with %d of %d GPUs, best is %v", got, gpus, total, want)
		}
	})
}

// TestGreedyIsNear bounds what the greedy choice of large clusters loses. At each step it
// takes the best gain per GPU, so it can lose only what the last enlargement that no longer
// fitted would have brought, and that is at most the largest value of one job.
func TestGreedyIsNear(t *testing.T) {
	sum, all := 0.0, 0.0
	rapid.Check(t, func(t *rapid.T) {
		offers, total := drawOffers(t)
		greedy(offers, total)
		got, gpus := worth(offers)
		largest := 0.0
		for i := range offers {
			for _, c := range offers[i].choices {
				largest = max(largest, c.value-offers[i].choices[0].value)
			}
		}
		want := try(offers, total)
		sum, all = sum+got, all+want
		if got < want-largest-1e-9 || gpus > total {
			t.Fatalf("value %v with %d of %d GPUs, best is %v, the largest of one job %v", got, gpus, total, want, largest)
		}
	})
	t.Logf("greedy reaches %.2f %% of the exact value over these cases", 100*sum/all)
	if sum < 0.95*all {
		t.Errorf("greedy reaches only %.1f %% of the exact value", 100*sum/all)
	}
}
