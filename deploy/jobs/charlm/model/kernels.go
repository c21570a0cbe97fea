package model

// The loops in which the time is spent. They are written so that the compiler drops the
// bounds checks, and so that the order of additions never depends on anything but lengths.

// addRows adds x[k] times row k of w to out, for every k; w has len(x) rows of len(out).
func addRows(out, w, x []float32) {
	n := len(out)
	k := 0
	for ; k+4 <= len(x); k += 4 {
		x0, x1, x2, x3 := x[k], x[k+1], x[k+2], x[k+3]
		w0 := w[k*n:][:n]
		w1 := w[(k+1)*n:][:n]
		w2 := w[(k+2)*n:][:n]
		w3 := w[(k+3)*n:][:n]
		for j := range out {
			out[j] += (x0*w0[j] + x1*w1[j]) + (x2*w2[j] + x3*w3[j])
		}
	}
	for ; k < len(x); k++ {
		row := w[k*n:][:n]
		for j := range out {
			out[j] += x[k] * row[j]
		}
	}
}

// dot is the product of two vectors of one length.
func dot(a, b []float32) float32 {
	b = b[:len(a)]
	var s0, s1, s2, s3 float32
	i := 0
	for ; i+4 <= len(a); i += 4 {
		s0 += a[i] * b[i]
		s1 += a[i+1] * b[i+1]
		s2 += a[i+2] * b[i+2]
		s3 += a[i+3] * b[i+3]
	}
	for ; i < len(a); i++ {
		s0 += a[i] * b[i]
	}
	return (s0 + s1) + (s2 + s3)
}

// backRow passes the gradient d of one output back: to its weights by the input h, and to
// the input by the weights w.
func backRow(gw, dh, w, h []float32, d float32) {
	n := len(h)
	gw, dh, w = gw[:n], dh[:n], w[:n]
	for j := range h {
		gw[j] += d * h[j]
		dh[j] += d * w[j]
	}
}

// backDot passes the gradients dh back over one input x: to its weights, and returns that of
// the input.
func backDot(gw, w, dh []float32, x float32) float32 {
	n := len(dh)
	gw, w = gw[:n], w[:n]
	var s0, s1 float32
	j := 0
	for ; j+2 <= n; j += 2 {
		d0, d1 := dh[j], dh[j+1]
		gw[j] += x * d0
		gw[j+1] += x * d1
		s0 += w[j] * d0
		s1 += w[j+1] * d1
	}
	for ; j < n; j++ {
		gw[j] += x * dh[j]
		s0 += w[j] * dh[j]
	}
	return s0 + s1
}
