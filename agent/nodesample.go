package agent

import (
	"time"

	"llmos/agent/device"
	pb "llmos/proto/llmos/v1"
)

// usesFresh is how old a look at the devices may be to be told.
const usesFresh = 30 * time.Second

// sample says what the node has left and how its devices are.
func (k *keeper) sample(now time.Time) *pb.NodeSample {
	s := &pb.NodeSample{TimeMs: now.UnixMilli(), MemoryAvailableBytes: device.MemoryAvailable(), DiskFreeBytes: device.DiskOf(k.cfg.DataDir).FreeBytes}
	for _, h := range device.ProbeHugePages() {
		s.HugePagesFree = append(s.HugePagesFree, &pb.HugePages{PageBytes: h.PageBytes, Pages: h.Free})
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, r := range k.wires.Rates(k.found.Host.Interfaces, now) {
		s.Interfaces = append(s.Interfaces, &pb.InterfaceSample{Name: r.Name, ReceiveBytesPerS: r.ReceiveBytesPerS, SendBytesPerS: r.SendBytesPerS})
	}
	if now.Sub(k.usedAt) > usesFresh {
		return s
	}
	for _, d := range k.found.Devices {
		f, known := k.use.Figures[d.GetId()]
		if !known {
			f = device.NoFigure
		}
		used := f.UsedBytes
		if used < 0 {
			used = k.heldOf(d.GetId())
		}
		s.Devices = append(s.Devices, &pb.DeviceSample{DeviceId: d.GetId(), Percent: f.Percent, MemoryUsedBytes: used, Celsius: f.Celsius,
			Milliwatt: f.Milliwatt, EccCorrected: f.ECCCorrected, EccUncorrected: f.ECCUncorrected, StrangerBytes: k.strangers[d.GetId()].Bytes})
	}
	return s
}

// heldOf sums what processes hold of a device; the caller holds the lock.
func (k *keeper) heldOf(id string) (sum int64) {
	for _, p := range k.use.Processes {
		if p.DeviceID == id {
			sum += p.MemoryBytes
		}
	}
	return sum
}

// hostOf writes what was found of the host besides devices.
func hostOf(n *pb.Node, h device.Host) {
	n.NumaNodes, n.CpuModel, n.Os = int32(h.NUMANodes), h.CPUModel, h.OS
	n.Interfaces, n.HugePages = nil, nil
	for _, i := range h.Interfaces {
		n.Interfaces = append(n.Interfaces, &pb.NetworkInterface{Name: i.Name, SpeedMbit: i.SpeedMbit, NumaNode: i.NUMANode, BusId: i.BusID})
	}
	for _, p := range h.HugePages {
		n.HugePages = append(n.HugePages, &pb.HugePages{PageBytes: p.PageBytes, Pages: p.Pages})
	}
}
