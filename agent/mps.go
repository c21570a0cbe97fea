package agent

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"llmos/agent/reconcile"
	pb "llmos/proto/llmos/v1"
)

const (
	mpsVariable  = "CUDA_MPS_PIPE_DIRECTORY"
	mpsDefault   = "/tmp/nvidia-mps" // where the control daemon listens when nobody names a place
	mpsControl   = "control"         // the daemon's pipe in that directory
	mpsLimit     = "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT"
	mpsThreads   = "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"
	mibibyte     = 1 << 20
	milliPerCent = 10
)

// isFraction says whether a grant is less than its device, which has capacity bytes of
// memory; 0: unknown.
func isFraction(g *pb.DeviceGrant, capacity int64) bool {
	return g.GetShareMilli() > 0 && g.GetShareMilli() < reconcile.WholeDevice ||
		g.GetMemoryBytes() > 0 && g.GetMemoryBytes() < capacity
}

// mpsDir gives the pipe directory of the CUDA Multi-Process Service on this host, named by
// the agent's environment or the default; empty when no control daemon has made one. What
// belongs neither to root nor to the agent's user does not count: any user can make the
// default one and would then be given the work of others.
func mpsDir() string {
	dir := os.Getenv(mpsVariable)
	if dir == "" {
		dir = mpsDefault
	}
	for _, path := range []string{dir, filepath.Join(dir, mpsControl)} {
		info, err := os.Lstat(path)
		if err != nil {
			return ""
		}
		stat, ok := info.Sys().(*syscall.Stat_t)
		if !ok || stat.Uid != 0 && int(stat.Uid) != os.Geteuid() {
			return ""
		}
	}
	return dir
}

// setMPS bounds what the task's processes can take of shared devices, where MPS runs: the
// memory of each device by its position among the task's devices, and the part of its
// multiprocessors. A device granted whole is not bounded. The limit is each process's own
// (NVIDIA, Multi-Process Service, "Environment Variables"), so agent/fraction still looks at
// their sum.
func (s site) setMPS(a *pb.Assignment, set func(name, value string)) {
	var limits []string
	share := int32(0)
	for i, g := range a.GetAllocation().GetDevices() {
		if !isFraction(g, s.memoryOf(g.GetDeviceId())) {
			continue
		}
		share = max(share, g.GetShareMilli())
		if mib := g.GetMemoryBytes() / mibibyte; mib > 0 {
			limits = append(limits, fmt.Sprintf("%d=%dM", i, mib))
		}
	}
	if len(limits) == 0 || s.mps == nil {
		return
	}
	dir := s.mps()
	if dir == "" {
		return
	}
	set(mpsVariable, dir)
	set(mpsLimit, strings.Join(limits, ","))
	if share > 0 && share < reconcile.WholeDevice {
		set(mpsThreads, strconv.Itoa(int(share+milliPerCent-1)/milliPerCent))
	}
}

// memoryOf gives the memory of a device of this node in bytes; 0: unknown.
func (s site) memoryOf(deviceID string) int64 {
	if s.deviceMemory == nil {
		return 0
	}
	return s.deviceMemory(deviceID)
}
