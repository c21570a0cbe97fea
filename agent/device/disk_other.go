//go:build !linux

package device

func diskOf(string) Disk { return Disk{} }
