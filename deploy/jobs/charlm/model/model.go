// Package model is a small neural language model of characters: the last characters are
// looked up in a table of embeddings, joined, and passed through one hidden layer of tanh
// units to a softmax over the next character. It holds the parameters as one flat vector, so
// that a gradient is one vector to add up over ranks, and computes gradients by hand-written
// backpropagation; the test compares them with differences. It reads no data and does no
// communication; package train calls it.
package model

import (
	"fmt"
	"math"
	"math/rand/v2"
)

// Shape is the size of every part of the model. Each is at least 1.
type Shape struct {
	Vocab   int `json:"vocab"`   // different characters, at most 256
	Context int `json:"context"` // characters that are looked at
	Embed   int `json:"embed"`   // numbers that stand for one character
	Hidden  int `json:"hidden"`  // units of the hidden layer
}

// paramsMax bounds the parameters of a model.
const paramsMax = 1 << 26

// Check says what is wrong with a shape.
func (s Shape) Check() error {
	for _, v := range []int{s.Vocab, s.Context, s.Embed, s.Hidden} {
		if v < 1 || v > 1<<16 {
			return fmt.Errorf("model of shape %+v: every size must be 1 to %d", s, 1<<16)
		}
	}
	if s.Vocab > 256 || s.Params() > paramsMax {
		return fmt.Errorf("model of shape %+v has %d parameters, at most %d, and at most 256 characters", s, s.Params(), paramsMax)
	}
	return nil
}

func (s Shape) input() int { return s.Context * s.Embed }

// Params is how many numbers the model learns.
func (s Shape) Params() int {
	return s.Vocab*s.Embed + s.input()*s.Hidden + s.Hidden + s.Vocab*s.Hidden + s.Vocab
}

// layers are the parts of a flat vector of parameters, or of their gradients.
type layers struct {
	embed []float32 // [vocab][embed]
	w1    []float32 // [context*embed][hidden]
	b1    []float32 // [hidden]
	w2    []float32 // [vocab][hidden]
	b2    []float32 // [vocab]
}

func (s Shape) layers(flat []float32) layers {
	cut := func(n int) []float32 {
		part := flat[:n:n]
		flat = flat[n:]
		return part
	}
	return layers{embed: cut(s.Vocab * s.Embed), w1: cut(s.input() * s.Hidden), b1: cut(s.Hidden),
		w2: cut(s.Vocab * s.Hidden), b2: cut(s.Vocab)}
}

// Net is a model with its parameters. One goroutine may use it at a time.
type Net struct {
	Shape  Shape
	Params []float32 // flat; written by the optimiser
	part   layers    // of Params

	// Scratch space of one sample.
	x, dx, h, dh, p []float32
}

// New makes a model whose parameters depend on shape and seed alone.
func New(shape Shape, seed uint64) (*Net, error) {
	if err := shape.Check(); err != nil {
		return nil, err
	}
	n := &Net{Shape: shape, Params: make([]float32, shape.Params()), x: make([]float32, shape.input()), dx: make([]float32, shape.input()),
		h: make([]float32, shape.Hidden), dh: make([]float32, shape.Hidden), p: make([]float32, shape.Vocab)}
	n.part = shape.layers(n.Params)
	r := rand.New(rand.NewPCG(seed, 0x6c6c6d6f73))
	fill := func(v []float32, deviation float64) {
		for i := range v {
			v[i] = float32(r.NormFloat64() * deviation)
		}
	}
	fill(n.part.embed, 0.5)
	fill(n.part.w1, 1/math.Sqrt(float64(shape.input())))
	// A small output layer makes the first guess uniform: the loss begins at ln(vocab).
	fill(n.part.w2, 0.1/math.Sqrt(float64(shape.Hidden)))
	return n, nil
}

// Predict fills p, of length Vocab, with the probability of each next character after the
// context, of length Context.
func (n *Net) Predict(context []byte, p []float32) {
	n.forward(context)
	copy(p, n.p)
}

// Loss is the negative log probability, in nats, that the model gives to the character after
// the context.
func (n *Net) Loss(context []byte, next byte) float64 {
	n.forward(context)
	return -math.Log(math.Max(float64(n.p[next]), math.SmallestNonzeroFloat32))
}

// forward leaves the input in x, the hidden layer in h and the probabilities in p.
func (n *Net) forward(context []byte) {
	e := n.Shape.Embed
	for t, c := range context[:n.Shape.Context] {
		copy(n.x[t*e:(t+1)*e], n.part.embed[int(c)*e:(int(c)+1)*e])
	}
	copy(n.h, n.part.b1)
	addRows(n.h, n.part.w1, n.x)
	for j, v := range n.h {
		n.h[j] = float32(math.Tanh(float64(v)))
	}
	hidden := n.Shape.Hidden
	largest := float32(math.Inf(-1))
	for v := range n.p {
		n.p[v] = n.part.b2[v] + dot(n.part.w2[v*hidden:(v+1)*hidden], n.h)
		largest = max(largest, n.p[v])
	}
	var total float64
	for v, logit := range n.p {
		e := math.Exp(float64(logit - largest))
		n.p[v] = float32(e)
		total += e
	}
	scale := float32(1 / total)
	for v := range n.p {
		n.p[v] *= scale
	}
}

// Gradient adds to grad, of length Params, the gradient of the sample's loss, and returns
// that loss.
func (n *Net) Gradient(grad []float32, context []byte, next byte) float64 {
	loss := n.Loss(context, next)
	g := n.Shape.layers(grad)
	hidden, e := n.Shape.Hidden, n.Shape.Embed
	clear(n.dh)
	for v, p := range n.p {
		if v == int(next) {
			p--
		}
		g.b2[v] += p
		backRow(g.w2[v*hidden:(v+1)*hidden], n.dh, n.part.w2[v*hidden:(v+1)*hidden], n.h, p)
	}
	for j, h := range n.h {
		n.dh[j] *= 1 - h*h
		g.b1[j] += n.dh[j]
	}
	for k, x := range n.x {
		n.dx[k] = backDot(g.w1[k*hidden:(k+1)*hidden], n.part.w1[k*hidden:(k+1)*hidden], n.dh, x)
	}
	for t, c := range context[:n.Shape.Context] {
		row := g.embed[int(c)*e : (int(c)+1)*e]
		for i, d := range n.dx[t*e : (t+1)*e] {
			row[i] += d
		}
	}
	return loss
}
