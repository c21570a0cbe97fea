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

// childFrameMax bounds a frame in bytes: DevicesMax devices of under 1 KiB each fit with
// room, and so do UsesMax processes of under 200 bytes each.
const childFrameMax = 512 << 10

// question is what the agent asks: which devices are there? Or, with Use: which processes
// use how much memory of which device, and how busy are the devices?
type question struct {
	ID  uint64 `json:"id"`
	Use bool   `json:"use,omitempty"`
}

// answer is what the child says. Either Absent, or Error, or what was asked for.
type answer struct {
	ID      uint64        `json:"id"`
	Absent  bool          `json:"absent,omitempty"` // there is no driver; nothing is wrong
	Error   string        `json:"error,omitempty"`
	Driver  string        `json:"driver,omitempty"` // version
	Devices []childDevice `json:"devices,omitempty"`
	Uses    []childUse    `json:"uses,omitempty"`
	Busy    []childBusy   `json:"busy,omitempty"`
}

// childUse is the memory of one device that one process holds.
type childUse struct {
	UUID  string `json:"uuid"`
	PID   uint32 `json:"pid"`
	Bytes int64  `json:"bytes"`
}

// childBusy is how much of the time a device was busy in the driver's last period.
type childBusy struct {
	UUID    string `json:"uuid"`
	Percent int32  `json:"percent"`
}

// childDevice is one GPU as the child sees it.
type childDevice struct {
	UUID        string `json:"uuid"`
	Name        string `json:"name"` // of the GPU, as NVML gives it
	MemoryBytes int64  `json:"memory_bytes"`
	Index       int32  `json:"index"` // of the GPU
	Minor       int32  `json:"minor"` // of /dev/nvidia<minor>; -1 when unknown
	BusID       string `json:"bus_id,omitempty"`
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
		if d.UUID == "" || d.longest() > idBytesMax || d.MemoryBytes < 0 || d.WholeBytes < 0 {
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
	if len(a.Uses) > UsesMax || len(a.Busy) > DevicesMax {
		return fmt.Errorf("%d processes and %d devices in use, at most %d and %d", len(a.Uses), len(a.Busy), UsesMax, DevicesMax)
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
	for _, b := range a.Busy {
		if b.UUID == "" || len(b.UUID) > idBytesMax || b.Percent < 0 || b.Percent > 100 {
			return fmt.Errorf("device %.40q is busy for %d %%", b.UUID, b.Percent)
		}
	}
	return nil
}

// use turns the child's words into those of a look.
func (a answer) use() Use {
	u := Use{Percent: make(map[string]int32, len(a.Busy))}
	for _, p := range a.Uses {
		u.Processes = append(u.Processes, ProcessUse{DeviceID: p.UUID, PID: int(p.PID), MemoryBytes: p.Bytes})
	}
	for _, b := range a.Busy {
		u.Percent[b.UUID] = b.Percent
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
			Path: path, Island: d.Island, MigProfile: d.Profile, Parent: d.Parent})
	}
	return out
}
