//go:build race

package exec

// shimPeakMax bounds the memory of a shim: under the race detector, which keeps several bytes
// for each, this test binary is its own shim.
const shimPeakMax = 160 << 20
