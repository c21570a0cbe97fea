package device

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"

	pb "llmos/proto/llmos/v1"
)

// The agent and its NVML child speak in frames: a length of 4 bytes, big endian, and that
// many bytes of JSON. The agent asks, the child answers each question once, in order.

// childFrameMax bounds a frame in bytes: 256 devices of under 1 KiB each fit with room.
const childFrameMax = 512 << 10

// question is what the agent asks. The only one there is: which devices are there?
type question struct {
	ID uint64 `json:"id"`
}

// answer is what the child says. Either Absent, or Error, or the devices.
type answer struct {
	ID      uint64        `json:"id"`
	Absent  bool          `json:"absent,omitempty"` // there is no driver; nothing is wrong
	Error   string        `json:"error,omitempty"`
	Driver  string        `json:"driver,omitempty"` // version
	Devices []childDevice `json:"devices,omitempty"`
}

// childDevice is one GPU as the child sees it.
type childDevice struct {
	UUID        string `json:"uuid"`
	Name        string `json:"name"` // as NVML gives it
	MemoryBytes int64  `json:"memory_bytes"`
	Index       int32  `json:"index"`
	Minor       int32  `json:"minor"` // of /dev/nvidia<minor>; -1 when unknown
	BusID       string `json:"bus_id,omitempty"`
	NUMANode    int32  `json:"numa_node"`        // -1 when unknown
	Failed      string `json:"failed,omitempty"` // why it cannot be used
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
		if d.UUID == "" || len(d.UUID) > idBytesMax || len(d.Name) > idBytesMax || len(d.BusID) > idBytesMax || d.MemoryBytes < 0 {
			return fmt.Errorf("device %d is not well-formed (UUID %.40q)", d.Index, d.UUID)
		}
		if seen[d.UUID] {
			return fmt.Errorf("device %s is listed twice", d.UUID)
		}
		seen[d.UUID] = true
	}
	return nil
}

// devices turns the child's words into those of the inventory.
func (a answer) devices() []*pb.Device {
	out := make([]*pb.Device, 0, len(a.Devices))
	for _, d := range a.Devices {
		health := pb.DeviceHealth_DEVICE_HEALTH_OK
		if d.Failed != "" {
			health = pb.DeviceHealth_DEVICE_HEALTH_FAILED
		}
		out = append(out, &pb.Device{Id: d.UUID, Kind: "gpu", Vendor: "nvidia", Model: modelName(d.Name, d.MemoryBytes),
			MemoryBytes: d.MemoryBytes, Health: health, Reason: d.Failed, Index: d.Index, NumaNode: d.NUMANode, BusId: d.BusID})
	}
	return out
}
