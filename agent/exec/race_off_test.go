//go:build !race

package exec

// shimPeakMax bounds the memory of a shim, whatever its task writes.
const shimPeakMax = 40 << 20
