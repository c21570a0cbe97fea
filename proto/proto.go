// Package proto holds the language that all llmos processes speak: the .proto files
// under llmos/v1 with their generated Go, the faults that people read (proto/fault)
// and the client (proto/client). It imports nothing else of ours.
//
// Field numbers, enum values and error kinds are never reused or renumbered: old logs
// and snapshots are read by new binaries. `make proto` regenerates the code.
package proto
