package sysfs

import (
	"context"
	"os"
	"slices"
	"strings"

	pb "llmos/proto/llmos/v1"
)

const (
	googleVendor = 0x1ae0
	tpuV2        = 0x004e // subsystem of the chips that share a device number with v3
)

// tpuModels are the chips by PCI device, with their memory in GiB, as Google's own tools know
// them (jax: hardware_utils.py; cloud-accelerator-diagnostics: tpu_info).
var tpuModels = map[int64]struct {
	name string
	gib  int64
}{
	0x0027: {"v3", 32}, 0x005e: {"v4", 32}, 0x0062: {"v5p", 95}, 0x0063: {"v5e", 16}, 0x006f: {"v6e", 32}, 0x0076: {"v7x", 192},
}

// TPU finds Google's chips on the PCI bus, with the file that a program opens: /dev/accel<n> of
// the older driver, or /dev/vfio/<group>.
type TPU struct{ tree tree }

// NewTPU looks below root, which is / but for tests.
func NewTPU(root string) *TPU { return &TPU{tree(root)} }

// Name is "tpu".
func (p *TPU) Name() string { return "tpu" }

// Probe lists the chips. One that no driver offers to programs is failed.
func (p *TPU) Probe(context.Context) ([]*pb.Device, error) {
	addresses := p.tree.names(pciDevices)
	slices.Sort(addresses)
	var out []*pb.Device
	for _, pci := range addresses {
		vendor, _ := p.tree.number(pciDevices, pci, "vendor")
		id, _ := p.tree.number(pciDevices, pci, "device")
		model, known := tpuModels[id]
		if vendor != googleVendor || !known || len(out) == devicesMax {
			continue
		}
		if subsystem, ok := p.tree.number(pciDevices, pci, "subsystem_device"); ok && id == 0x0027 && subsystem == tpuV2 {
			model.name, model.gib = "v2", 16
		}
		d := &pb.Device{Id: "tpu-" + pci, Kind: "tpu", Vendor: "google", Model: sized("TPU-"+model.name, model.gib<<30), MemoryBytes: model.gib << 30,
			Health: pb.DeviceHealth_DEVICE_HEALTH_OK, Index: int32(len(out)), BusId: pci, NumaNode: p.tree.numaNode(pci), PciePath: p.tree.pciePath(pci),
			Path: p.file(pci)}
		if d.Path == "" {
			d.Health, d.Reason = pb.DeviceHealth_DEVICE_HEALTH_FAILED, "no driver offers it to programs: there is neither /dev/accel* nor /dev/vfio/* of it"
		}
		out = append(out, d)
	}
	return out, nil
}

// file is what a program opens; empty: there is none.
func (p *TPU) file(pci string) string {
	for _, name := range p.tree.names(pciDevices, pci, "accel") {
		if _, err := os.Stat(p.tree.path("dev", name)); err == nil && strings.HasPrefix(name, "accel") {
			return "/dev/" + name
		}
	}
	group := p.tree.base(pciDevices, pci, "iommu_group")
	if group == "" {
		return ""
	}
	if _, err := os.Stat(p.tree.path("dev/vfio", group)); err != nil {
		return ""
	}
	return "/dev/vfio/" + group
}
