//go:build !(cgo && linux)

package device

func playSimulation() int { return 1 }
