package device

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math"

	pb "llmos/proto/llmos/v1"
)

// The agent and its NVML child speak in frames: a length of 4 bytes, big endian, and that
// many bytes of JSON. The agent asks, the child answers each question once, in order.

// pciePathMax bounds the path of bridges to a device, in bytes: of 13 each.
const pciePathMax = 256

// childFrameMax bounds a frame in bytes: DevicesMax devices of under 1 KiB each fit with
// room, and so do UsesMax processes of under 200 bytes each.
const childFrameMax = 512 << 10

// question is what the agent asks: which devices are there? Or, with Use: which processes
// use how much memory of which device, and how are the devices? Or, with Events: which
// errors came since the last such question? Or, with Divide, it is an order to make slices.
type question struct {
	ID     uint64       `json:"id"`
	Use    bool         `json:"use,omitempty"`
	Events bool         `json:"events,omitempty"`
	Divide *childDivide `json:"divide,omitempty"`
}

// childDivide is the order to make MIG slices of a GPU in place of those it has.
type childDivide struct {
	UUID     string   `json:"uuid"`
	Profiles []string `json:"profiles,omitempty"` // none: MIG off
}

// answer is what the child says. Either Absent, or Error, or what was asked for.
type answer struct {
	ID      uint64        `json:"id"`
	Absent  bool          `json:"absent,omitempty"` // there is no driver; nothing is wrong
	Error   string        `json:"error,omitempty"`
	Driver  string        `json:"driver,omitempty"` // version
	Devices []childDevice `json:"devices,omitempty"`
	Uses    []childUse    `json:"uses,omitempty"`
	Figures []childFigure `json:"figures,omitempty"`
	Events  []childEvent  `json:"events,omitempty"`
}

// childEvent is an XID error that the driver reported.
type childEvent struct {
	UUID string `json:"uuid"` // of the GPU, or of the slice that it hurt; empty: it is not known
	XID  uint32 `json:"xid"`
	AtMS int64  `json:"at_ms"`
}

// childUse is the memory of one device that one process holds.
type childUse struct {
	UUID  string `json:"uuid"`
	PID   uint32 `json:"pid"`
	Bytes int64  `json:"bytes"`
}

// childFigure is how a device is. What is not known is -1.
type childFigure struct {
	UUID           string `json:"uuid"`
	Percent        int32  `json:"percent"` // of the driver's last period that it was busy
	UsedBytes      int64  `json:"used_bytes"`
	Celsius        int32  `json:"celsius"`
	Milliwatt      int64  `json:"milliwatt"`
	ECCCorrected   int64  `json:"ecc_corrected"`
	ECCUncorrected int64  `json:"ecc_uncorrected"`
}

// namelessPrefix begins the ID of a GPU that never said its UUID; its index follows.
const namelessPrefix = "nvidia-index-"

// childDevice is one GPU as the child sees it.
type childDevice struct {
	UUID        string `json:"uuid"`
	Name        string `json:"name"` // of the GPU, as NVML gives it
	MemoryBytes int64  `json:"memory_bytes"`
	Index       int32  `json:"index"` // of the GPU
	Minor       int32  `json:"minor"` // of /dev/nvidia<minor>; -1 when unknown
	BusID       string `json:"bus_id,omitempty"`
	PCIePath    string `json:"pcie_path,omitempty"`   // the bridges from the root to it
	NVLinks     int32  `json:"nvlinks,omitempty"`     // that are up
	NUMANode    int32  `json:"numa_node"`             // -1 when unknown
	Island      string `json:"island,omitempty"`      // the same for GPUs joined by NVLink; empty: unknown
	Profile     string `json:"profile,omitempty"`     // of a MIG slice
	Parent      string `json:"parent,omitempty"`      // of a MIG slice: UUID of its GPU
	WholeBytes  int64  `json:"whole_bytes,omitempty"` // of a MIG slice: memory of its GPU; 0: unknown
	Failed      string `json:"failed,omitempty"`      // why it cannot be used
}

func writeFrame(w io.Writer, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode a frame: %w", err)
	}
	if len(body) > childFrameMax {
		return fmt.Errorf("a frame of %d bytes, at most %d", len(body), childFrameMax)
	}
	frame := binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(body)), uint32(len(body)))
	_, err = w.Write(append(frame, body...))
	return err
}

// readFrame reads one frame into v. io.EOF means that the other side ended between frames.
func readFrame(r io.Reader, v any) error {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n == 0 || n > childFrameMax {
		return fmt.Errorf("a frame that says it has %d bytes, want 1 to %d", n, childFrameMax)
	}
	// Read through a limit and not into a slice of n bytes, so that a lie costs no memory.
	body, err := io.ReadAll(io.LimitReader(r, int64(n)))
	if err != nil {
		return err
	}
	if len(body) < int(n) {
		return io.ErrUnexpectedEOF
	}
	if err := json.Unmarshal(body, v); err != nil {
		return fmt.Errorf("a frame that is not understood: %w", err)
	}
	return nil
}

// check refuses an answer that no child of ours gives.
func (a answer) check(id uint64) error {
	if a.ID != id {
		return fmt.Errorf("an answer to question %d, asked was %d", a.ID, id)
	}
	if len(a.Devices) > DevicesMax {
		return fmt.Errorf("%d devices, at most %d", len(a.Devices), DevicesMax)
	}
	seen := map[string]bool{}
	for _, d := range a.Devices {
		if d.UUID == "" || d.longest() > idBytesMax || len(d.PCIePath) > pciePathMax || d.MemoryBytes < 0 || d.WholeBytes < 0 || d.NVLinks < 0 {
			return fmt.Errorf("device %d is not well-formed (UUID %.40q)", d.Index, d.UUID)
		}
		if seen[d.UUID] {
			return fmt.Errorf("device %s is listed twice", d.UUID)
		}
		seen[d.UUID] = true
	}
	return a.checkUse()
}

// longest is the length in bytes of the device's longest word but for Failed.
func (d childDevice) longest() int {
	return max(len(d.UUID), len(d.Name), len(d.BusID), len(d.Island), len(d.Profile), len(d.Parent))
}

func (a answer) checkUse() error {
	if len(a.Uses) > UsesMax || len(a.Figures) > DevicesMax || len(a.Events) > EventsMax {
		return fmt.Errorf("%d processes, %d devices in use and %d events, at most %d, %d and %d", len(a.Uses), len(a.Figures), len(a.Events),
			UsesMax, DevicesMax, EventsMax)
	}
	type holder struct {
		uuid string
		pid  uint32
	}
	seen := map[holder]bool{}
	for _, u := range a.Uses {
		h := holder{u.UUID, u.PID}
		if u.UUID == "" || len(u.UUID) > idBytesMax || u.PID == 0 || u.PID > math.MaxInt32 || u.Bytes < 0 || seen[h] {
			return fmt.Errorf("the use of device %.40q by process %d is not well-formed or is listed twice", u.UUID, u.PID)
		}
		seen[h] = true
	}
	for _, f := range a.Figures {
		if f.UUID == "" || len(f.UUID) > idBytesMax || f.Percent < unknown || f.Percent > 100 {
			return fmt.Errorf("device %.40q is busy for %d %%", f.UUID, f.Percent)
		}
		if min(f.UsedBytes, int64(f.Celsius), f.Milliwatt, f.ECCCorrected, f.ECCUncorrected) < unknown {
			return fmt.Errorf("a figure of device %.40q is negative", f.UUID)
		}
	}
	for _, e := range a.Events {
		if len(e.UUID) > idBytesMax || e.AtMS < 0 {
			return fmt.Errorf("the event of device %.40q is not well-formed", e.UUID)
		}
	}
	return nil
}

// use turns the child's words into those of a look.
func (a answer) use() Use {
	u := Use{Figures: make(map[string]Figure, len(a.Figures))}
	for _, p := range a.Uses {
		u.Processes = append(u.Processes, ProcessUse{DeviceID: p.UUID, PID: int(p.PID), MemoryBytes: p.Bytes})
	}
	for _, f := range a.Figures {
		u.Figures[f.UUID] = Figure{Percent: f.Percent, UsedBytes: f.UsedBytes, Celsius: f.Celsius, Milliwatt: f.Milliwatt,
			ECCCorrected: f.ECCCorrected, ECCUncorrected: f.ECCUncorrected}
	}
	return u
}

// devices turns the child's words into those of the inventory.
func (a answer) devices() []*pb.Device {
	out := make([]*pb.Device, 0, len(a.Devices))
	for _, d := range a.Devices {
		health := pb.DeviceHealth_DEVICE_HEALTH_OK
		if d.Failed != "" {
			health = pb.DeviceHealth_DEVICE_HEALTH_FAILED
		}
		whole := d.MemoryBytes
		if d.Parent != "" {
			whole = d.WholeBytes
		}
		path := ""
		if d.Minor >= 0 {
			path = fmt.Sprintf("/dev/nvidia%d", d.Minor)
		}
		out = append(out, &pb.Device{Id: d.UUID, Kind: "gpu", Vendor: "nvidia", Model: modelName(d.Name, whole),
			MemoryBytes: d.MemoryBytes, Health: health, Reason: d.Failed, Index: d.Index, NumaNode: d.NUMANode, BusId: d.BusID,
			Path: path, Island: d.Island, MigProfile: d.Profile, Parent: d.Parent, PciePath: d.PCIePath, Nvlinks: d.NVLinks})
	}
	return out
}
