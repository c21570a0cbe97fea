package device

import "golang.org/x/sys/unix"

func diskOf(path string) Disk {
	var s unix.Statfs_t
	if err := unix.Statfs(path, &s); err != nil {
		return Disk{}
	}
	return Disk{Bytes: int64(s.Blocks) * s.Bsize, FreeBytes: int64(s.Bavail) * s.Bsize}
}
