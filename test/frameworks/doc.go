// Package frameworks holds the test of the example jobs of deploy/jobs that train with PyTorch,
// TensorFlow, JAX and MPI: real frameworks, on a real cluster of this machine. `make
// e2e-frameworks` runs it; without the frameworks that `make frameworks` installs it is skipped.
package frameworks
