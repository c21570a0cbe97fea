package model

import (
	"math"
	"testing"
)

// sample is one context with the character that follows it.
type sample struct {
	context []byte
	next    byte
}

func samples(shape Shape) []sample {
	var out []sample
	for i := range 5 {
		context := make([]byte, shape.Context)
		for t := range context {
			context[t] = byte((i*7 + t*3) % shape.Vocab)
		}
		out = append(out, sample{context, byte((i * 5) % shape.Vocab)})
	}
	return out
}

// TestGradientIsTheSlope compares backpropagation with differences of the loss, for every
// parameter, in shapes that do and do not fill the unrolled loops.
func TestGradientIsTheSlope(t *testing.T) {
	for _, shape := range []Shape{{Vocab: 7, Context: 3, Embed: 3, Hidden: 5}, {Vocab: 4, Context: 4, Embed: 2, Hidden: 8}, {Vocab: 2, Context: 1, Embed: 1, Hidden: 1}} {
		net, err := New(shape, 3)
		if err != nil {
			t.Fatal(err)
		}
		for i := range net.part.w2 {
			net.part.w2[i] *= 10 // larger slopes, so that rounding does not hide a mistake
		}
		data := samples(shape)
		loss := func() (sum float64) {
			for _, s := range data {
				sum += net.Loss(s.context, s.next)
			}
			return sum
		}
		grad := make([]float32, shape.Params())
		var total float64
		for _, s := range data {
			total += net.Gradient(grad, s.context, s.next)
		}
		if want := loss(); math.Abs(total-want) > 1e-9 {
			t.Errorf("%+v: Gradient says the loss is %v, Loss says %v", shape, total, want)
		}
		moved := 0
		for i := range net.Params {
			const h = 1.0 / 256
			old := net.Params[i]
			net.Params[i] = old + h
			up := loss()
			net.Params[i] = old - h
			slope := (up - loss()) / (2 * h)
			net.Params[i] = old
			if diff := math.Abs(slope - float64(grad[i])); diff > 2e-3*math.Max(1, math.Abs(slope)) {
				t.Errorf("%+v: parameter %d: gradient %v, slope %v", shape, i, grad[i], slope)
			}
			if grad[i] != 0 {
				moved++
			}
		}
		if moved < shape.Params()/2 {
			t.Errorf("%+v: only %d of %d parameters have a gradient", shape, moved, shape.Params())
		}
	}
}

func TestProbabilitiesAddUpToOne(t *testing.T) {
	net, err := New(Shape{Vocab: 96, Context: 8, Embed: 4, Hidden: 16}, 1)
	if err != nil {
		t.Fatal(err)
	}
	p := make([]float32, 96)
	net.Predict(make([]byte, 8), p)
	var sum float64
	for _, x := range p {
		sum += float64(x)
	}
	if math.Abs(sum-1) > 1e-5 {
		t.Errorf("they add up to %v", sum)
	}
	if loss := net.Loss(make([]byte, 8), 5); math.Abs(loss-math.Log(96)) > 0.5 {
		t.Errorf("the first guess has loss %v, want about %v", loss, math.Log(96))
	}
}

func TestAdamFindsAMinimum(t *testing.T) {
	params := []float32{3, -2}
	adam := NewAdam(2)
	for step := 1; step <= 500; step++ {
		adam.Step(params, []float32{2 * (params[0] - 1), 8 * (params[1] - 1)}, step, 0.05)
	}
	for i, p := range params {
		if math.Abs(float64(p)-1) > 0.05 {
			t.Errorf("parameter %d ends at %v, want 1", i, p)
		}
	}
}

func TestShapesThatAreRefused(t *testing.T) {
	for _, s := range []Shape{{}, {Vocab: 300, Context: 1, Embed: 1, Hidden: 1}, {Vocab: 96, Context: 60000, Embed: 60000, Hidden: 60000}} {
		if _, err := New(s, 1); err == nil {
			t.Errorf("shape %+v is accepted", s)
		}
	}
}

func BenchmarkGradient(b *testing.B) {
	shape := Shape{Vocab: 96, Context: 16, Embed: 16, Hidden: 160}
	net, err := New(shape, 1)
	if err != nil {
		b.Fatal(err)
	}
	grad := make([]float32, shape.Params())
	context := make([]byte, shape.Context)
	for b.Loop() {
		net.Gradient(grad, context, 1)
	}
}
