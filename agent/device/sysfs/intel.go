package sysfs

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"llmos/agent/device"
	pb "llmos/proto/llmos/v1"
)

const (
	drmCards    = "sys/class/drm"
	intelVendor = 0x8086
)

// intelModels are the GPUs that computers are bought for, by PCI device (Linux:
// include/drm/intel/pciids.h). Others are called by their number.
var intelModels = map[int64]string{
	0x56a0: "Arc-A770", 0x56a1: "Arc-A750", 0x56a5: "Arc-A380", 0xe20b: "Arc-B580", 0xe20c: "Arc-B570",
	0x56c0: "Flex-170", 0x56c1: "Flex-140", 0x0bd5: "Max-1550", 0x0bd6: "Max-1550", 0x0bda: "Max-1100", 0x0bdb: "Max-1100",
}

// Intel finds Intel GPUs that have memory of their own, by the files of the drivers xe and
// i915. Graphics within a CPU share its memory and are not listed.
type Intel struct{ tree tree }

// NewIntel looks below root, which is / but for tests.
func NewIntel(root string) *Intel { return &Intel{tree(root)} }

// Name is "intel".
func (x *Intel) Name() string { return "intel" }

// Probe lists the GPUs.
func (x *Intel) Probe(context.Context) ([]*pb.Device, error) {
	var out []*pb.Device
	for _, card := range x.cards() {
		dir := filepath.Join(drmCards, card)
		id, ok := x.tree.number(dir, "device/device")
		bytes := x.memory(dir)
		pci := x.tree.base(dir, "device")
		if !ok || bytes <= 0 || strings.Count(pci, ":") != 2 || len(out) == devicesMax {
			continue
		}
		model := intelModels[id]
		if model == "" {
			model = fmt.Sprintf("Intel-%04x", id)
		}
		d := &pb.Device{Id: "intel-" + pci, Kind: "gpu", Vendor: "intel", Model: sized(model, bytes), MemoryBytes: bytes,
			Health: pb.DeviceHealth_DEVICE_HEALTH_OK, Index: int32(len(out)), BusId: pci, NumaNode: x.tree.numaNode(pci), PciePath: x.tree.pciePath(pci)}
		for _, name := range x.tree.names(dir, "device/drm") {
			if strings.HasPrefix(name, "renderD") {
				d.Path = "/dev/dri/" + name
			}
		}
		out = append(out, d)
	}
	return out, nil
}

// cards lists Intel's cards by number; what hangs on them, such as card0-HDMI-A-1, is none.
func (x *Intel) cards() []string {
	var numbers []int
	for _, name := range x.tree.names(drmCards) {
		n, err := strconv.Atoi(strings.TrimPrefix(name, "card"))
		if err != nil || !strings.HasPrefix(name, "card") {
			continue
		}
		if vendor, ok := x.tree.number(drmCards, name, "device/vendor"); ok && vendor == intelVendor {
			numbers = append(numbers, n)
		}
	}
	slices.Sort(numbers)
	var cards []string
	for _, n := range numbers {
		cards = append(cards, fmt.Sprintf("card%d", n))
	}
	return cards
}

// memory is the card's own: of each tile by xe, of all by i915.
func (x *Intel) memory(dir string) (sum int64) {
	for _, name := range x.tree.names(dir, "device") {
		if strings.HasPrefix(name, "tile") {
			if n, ok := x.tree.number(dir, "device", name, "physical_vram_size_bytes"); ok && n > 0 {
				sum += n
			}
		}
	}
	if n, ok := x.tree.number(dir, "lmem_total_bytes"); ok && n > sum {
		sum = n
	}
	return sum
}

// Use says how the GPUs are. Who uses them the drivers do not tell by files.
func (x *Intel) Use(ctx context.Context) (device.Use, error) {
	devices, err := x.Probe(ctx)
	if err != nil {
		return device.Use{}, err
	}
	use := device.Use{Figures: map[string]device.Figure{}}
	for _, d := range devices {
		f := device.NoFigure
		if n, ok := x.tree.first(pciDevices, d.BusId, "hwmon/hwmon*/temp*_input"); ok && n >= 0 {
			f.Celsius = int32(min(n/1000, 1000))
		}
		use.Figures[d.Id] = f
	}
	return use, nil
}
