package model

import "math"

// The usual constants of Adam (Kingma and Ba, 2015).
const (
	adamBeta1   = 0.9
	adamBeta2   = 0.99
	adamEpsilon = 1e-8
)

// Adam is the optimiser's memory: running means of the gradient and of its square.
type Adam struct {
	M, V []float32
}

// NewAdam makes the memory for so many parameters.
func NewAdam(params int) *Adam { return &Adam{M: make([]float32, params), V: make([]float32, params)} }

// Step moves the parameters against the gradient. step counts from 1; rate is the learning
// rate of this step.
func (a *Adam) Step(params, grad []float32, step int, rate float64) {
	size := float32(rate / (1 - math.Pow(adamBeta1, float64(step))))
	unbias := float32(1 / (1 - math.Pow(adamBeta2, float64(step))))
	m, v := a.M[:len(params)], a.V[:len(params)]
	grad = grad[:len(params)]
	for i, g := range grad {
		m[i] = adamBeta1*m[i] + (1-adamBeta1)*g
		v[i] = adamBeta2*v[i] + (1-adamBeta2)*g*g
		params[i] -= size * m[i] / (float32(math.Sqrt(float64(v[i]*unbias))) + adamEpsilon)
	}
}
