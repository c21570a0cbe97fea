package sysfs

import (
	"context"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"llmos/agent/device"
	pb "llmos/proto/llmos/v1"
)

const (
	kfdNodes  = "sys/class/kfd/kfd/topology/nodes"
	kfdProc   = "sys/class/kfd/kfd/proc"
	kfdXGMI   = 11 // type of an io_link
	pciDomain = 16 // bits of a domain in KFD's location of a device
)

// AMD finds AMD GPUs by KFD, the part of the amdgpu driver that computes (Linux:
// drivers/gpu/drm/amd/amdkfd/kfd_topology.c), and knows who uses them.
type AMD struct{ tree tree }

// NewAMD looks below root, which is / but for tests.
func NewAMD(root string) *AMD { return &AMD{tree(root)} }

// Name is "amd".
func (a *AMD) Name() string { return "amd" }

// amdGPU is a GPU with what its files are found by.
type amdGPU struct {
	device *pb.Device
	node   int    // of KFD's topology
	gpuID  string // KFD's number
	pci    string
}

// Probe lists the GPUs.
func (a *AMD) Probe(context.Context) ([]*pb.Device, error) {
	gpus, err := a.gpus()
	if err != nil {
		return nil, err
	}
	out := make([]*pb.Device, len(gpus))
	for i, g := range gpus {
		out[i] = g.device
	}
	return out, nil
}

func (a *AMD) gpus() ([]amdGPU, error) {
	var nodes []int
	for _, name := range a.tree.names(kfdNodes) {
		if n, err := strconv.Atoi(name); err == nil {
			nodes = append(nodes, n)
		}
	}
	slices.Sort(nodes)
	var gpus []amdGPU
	for _, n := range nodes {
		dir := filepath.Join(kfdNodes, strconv.Itoa(n))
		gpuID := a.tree.text(dir, "gpu_id")
		if gpuID == "" || gpuID == "0" { // a CPU
			continue
		}
		p := a.tree.properties(dir, "properties")
		if len(p) == 0 {
			return nil, fmt.Errorf("GPU %s of KFD has no properties: the driver is being loaded, or this user may not read them", gpuID)
		}
		if len(gpus) == devicesMax {
			break
		}
		gpus = append(gpus, a.gpu(n, gpuID, p, len(gpus)))
	}
	a.islands(gpus)
	return gpus, nil
}

func (a *AMD) gpu(node int, gpuID string, p map[string]uint64, index int) amdGPU {
	location := p["location_id"]
	pci := fmt.Sprintf("%04x:%02x:%02x.%d", p["domain"]&(1<<pciDomain-1), location>>8&0xff, location>>3&0x1f, location&7)
	d := &pb.Device{Kind: "gpu", Vendor: "amd", Health: pb.DeviceHealth_DEVICE_HEALTH_OK, Index: int32(index), BusId: pci,
		NumaNode: a.tree.numaNode(pci), PciePath: a.tree.pciePath(pci)}
	if id := p["unique_id"]; id != 0 {
		d.Id = fmt.Sprintf("GPU-%016x", id) // as ROCr calls it
	} else {
		d.Id = "amd-" + pci
	}
	if n, ok := a.tree.number(pciDevices, pci, "mem_info_vram_total"); ok && n > 0 {
		d.MemoryBytes = n
	} else {
		d.MemoryBytes = a.bankBytes(node)
	}
	name := a.tree.text(pciDevices, pci, "product_name")
	if name == "" {
		name = a.tree.text(kfdNodes, strconv.Itoa(node), "name")
	}
	d.Model = sized(amdModel(name), d.MemoryBytes)
	if minor := p["drm_render_minor"]; minor > 0 && minor < 1<<20 {
		d.Path = fmt.Sprintf("/dev/dri/renderD%d", minor)
	}
	return amdGPU{device: d, node: node, gpuID: gpuID, pci: pci}
}

// bankBytes sums the banks of the GPU's own memory.
func (a *AMD) bankBytes(node int) (sum int64) {
	banks := filepath.Join(kfdNodes, strconv.Itoa(node), "mem_banks")
	for _, bank := range a.tree.names(banks) {
		p := a.tree.properties(banks, bank, "properties")
		if heap := p["heap_type"]; (heap == 1 || heap == 2) && p["size_in_bytes"] < math.MaxInt64 { // frame buffer, seen by the CPU or not
			sum += int64(p["size_in_bytes"])
		}
	}
	return sum
}

// amdModel is the name that people use, such as MI300X of "AMD Instinct MI300X OAM".
func amdModel(name string) string {
	var parts []string
	for _, word := range strings.Fields(name) {
		switch strings.ToLower(word) {
		case "amd", "instinct", "radeon", "oam", "pcie", "graphics", "(tm)":
		default:
			parts = append(parts, word)
		}
	}
	if len(parts) == 0 {
		return "AMD-GPU"
	}
	return dashed(strings.Join(parts, " "))
}

// islands names the GPUs that XGMI joins.
func (a *AMD) islands(gpus []amdGPU) {
	at := map[uint64]int{}
	first := make([]int, len(gpus))
	for i, g := range gpus {
		at[uint64(g.node)], first[i] = i, i
	}
	for i, g := range gpus {
		links := filepath.Join(kfdNodes, strconv.Itoa(g.node), "io_links")
		for _, name := range a.tree.names(links) {
			p := a.tree.properties(links, name, "properties")
			j, gpu := at[p["node_to"]]
			if p["type"] != kfdXGMI || !gpu || first[i] == first[j] {
				continue
			}
			from, to := max(first[i], first[j]), min(first[i], first[j])
			for k := range first {
				if first[k] == from {
					first[k] = to
				}
			}
		}
	}
	size := make([]int, len(gpus))
	for _, f := range first {
		size[f]++
	}
	for i, f := range first {
		if size[f] > 1 {
			gpus[i].device.Island = fmt.Sprintf("xgmi%d", f)
		}
	}
}

// Use says who uses the GPUs and how they are.
func (a *AMD) Use(context.Context) (device.Use, error) {
	gpus, err := a.gpus()
	if err != nil {
		return device.Use{}, err
	}
	use := device.Use{Figures: map[string]device.Figure{}}
	for _, g := range gpus {
		use.Figures[g.device.Id] = a.figure(g.pci)
	}
	for _, name := range a.tree.names(kfdProc) {
		pid, err := strconv.Atoi(name)
		if err != nil || pid < 1 {
			continue
		}
		for _, g := range gpus {
			if n, ok := a.tree.number(kfdProc, name, "vram_"+g.gpuID); ok && n > 0 && len(use.Processes) < device.UsesMax {
				use.Processes = append(use.Processes, device.ProcessUse{DeviceID: g.device.Id, PID: pid, MemoryBytes: n})
			}
		}
	}
	return use, nil
}

func (a *AMD) figure(pci string) device.Figure {
	dir, f := filepath.Join(pciDevices, pci), device.NoFigure
	if n, ok := a.tree.number(dir, "gpu_busy_percent"); ok && n >= 0 && n <= 100 {
		f.Percent = int32(n)
	}
	if n, ok := a.tree.number(dir, "mem_info_vram_used"); ok && n >= 0 {
		f.UsedBytes = n
	}
	if n, ok := a.tree.first(dir, "hwmon/hwmon*/temp1_input"); ok && n >= 0 {
		f.Celsius = int32(min(n/1000, 1000))
	}
	for _, name := range []string{"power1_average", "power1_input"} { // in microwatts
		if n, ok := a.tree.first(dir, "hwmon/hwmon*", name); ok && n >= 0 {
			f.Milliwatt = n / 1000
			break
		}
	}
	for line := range strings.Lines(a.tree.text(dir, "ras/umc_err_count")) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		n, err := strconv.ParseInt(value, 10, 64)
		switch {
		case err != nil || n < 0:
		case name == "ue":
			f.ECCUncorrected = n
		case name == "ce":
			f.ECCCorrected = n
		}
	}
	return f
}
