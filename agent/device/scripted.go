package device

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"

	"github.com/goccy/go-yaml"

	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
)

const (
	scriptBytesMax = 256 << 10 // of a script file
	memoryGiBMax   = 4096      // of one scripted device
	idBytesMax     = 128       // of a scripted device's ID, model or bus ID
)

const scriptHint = "write COUNTxMODEL-SIZEGB, such as 4xH100-80GB or 2xA100-40GB,1xL4-24GB, or the path of a YAML file"

var (
	groupForm = regexp.MustCompile(`^([0-9]{1,4})x([A-Za-z0-9][A-Za-z0-9.-]*)$`)
	sizeForm  = regexp.MustCompile(`-([0-9]{1,5})GB$`)
	migForm   = regexp.MustCompile(`^(?i:[1-9]g\.([0-9]{1,3})gb(?:\+[a-z.]{1,8})?)$`)
)

// scripted invents devices from a description. It serves tests, demonstrations and the rig
// that breaks things; no task that needs a real device should be sent to such a node.
type scripted struct {
	nodeID string
	path   string        // of a script that is read at every probe, else empty
	fixed  []scriptGroup // when there is no path

	mu      sync.Mutex
	divided map[string][]string // by ID of a device: the profiles of the slices that Divide made of it
	heard   int                 // of the script's XID errors, those that were given
}

// script is the YAML form. Each group is count equal devices; health and reason are theirs.
type script struct {
	Error   string        `yaml:"error"` // when set, the probe fails with this text
	Devices []scriptGroup `yaml:"devices"`
	Uses    []scriptUse   `yaml:"uses"`
	XIDs    []scriptXID   `yaml:"xids"`
}

type scriptGroup struct {
	Model    string `yaml:"model"`
	Count    *int   `yaml:"count"`
	MemoryGB int    `yaml:"memory_gb"`
	ID       string `yaml:"id"`
	Health   string `yaml:"health"`
	Reason   string `yaml:"reason"`
	NUMANode *int32 `yaml:"numa_node"`
	BusID    string `yaml:"bus_id"`
	Island   string `yaml:"island"`
	MIG      string `yaml:"mig"`
	Parent   string `yaml:"parent"`
	Percent  *int32 `yaml:"percent"`
}

var healthWords = map[string]pb.DeviceHealth{
	"": pb.DeviceHealth_DEVICE_HEALTH_OK, "ok": pb.DeviceHealth_DEVICE_HEALTH_OK,
	"stale": pb.DeviceHealth_DEVICE_HEALTH_STALE, "failed": pb.DeviceHealth_DEVICE_HEALTH_FAILED,
	"gone": pb.DeviceHealth_DEVICE_HEALTH_GONE,
}

// Scripted makes a prober of devices that exist only in a description: groups such as
// "4xH100-80GB" or "2xA100-40GB,1xL4-24GB", or the path of a YAML file that is read again at
// every probe, so that a test can fail, heal, add and remove devices while the agent runs:
//
//	devices:
//	  - {model: H100-80GB, count: 3}
//	  - {model: L4-24GB, id: old-card, health: failed, reason: "XID 79: fallen off the bus", numa_node: 1}
//	  - {model: H100-80GB, count: 2, island: left, percent: 90}   # joined by NVLink; how busy they are
//	  - {model: A100-80GB, count: 7, mig: 1g.10gb, parent: gpu-9} # MIG slices of gpu-9
//	uses:        # processes that hold device memory; a pid_file that is not there is no process
//	  - {device: old-card, pid_file: /tmp/greedy.pid, memory_mb: 12000}
//	xids:        # errors in their order: each is told once, when it has been added behind the others
//	  - {device: old-card, xid: 79}
//	error: ""    # a text here makes the probe itself fail, and the look at the uses
//
// The size at the end of a model is its memory in GiB, that of a slice is in its profile,
// unless memory_gb says another. IDs are made of nodeID and the position when they are not
// given. The error is a fault.
func Scripted(spec, nodeID string) (Prober, error) {
	s := &scripted{nodeID: nodeID}
	spec = strings.TrimSpace(spec)
	if strings.ContainsAny(spec, "/\\") || strings.HasSuffix(spec, ".yaml") || strings.HasSuffix(spec, ".yml") {
		s.path = spec
		if _, err := s.read(); err != nil {
			return nil, err
		}
		return s, nil
	}
	groups, err := parseGroups(spec)
	if err != nil {
		return nil, err
	}
	s.fixed = groups
	if _, err := s.expand(groups); err != nil {
		return nil, err
	}
	return s, nil
}

// Name is "scripted".
func (s *scripted) Name() string { return "scripted" }

// Probe gives the described devices as they are described now.
func (s *scripted) Probe(context.Context) ([]*pb.Device, error) {
	groups := s.fixed
	if s.path != "" {
		sc, err := s.read()
		if err != nil {
			return nil, err
		}
		if sc.Error != "" {
			return nil, fmt.Errorf("%s", sc.Error)
		}
		groups = sc.Devices
	}
	devices, err := s.expand(groups)
	return s.cut(devices), err
}

func invalid(format string, args ...any) *fault.Error {
	return fault.New(pb.ErrorKind_ERROR_KIND_INVALID, format, args...).Hint("%s", scriptHint)
}

func parseGroups(spec string) ([]scriptGroup, error) {
	if spec == "" {
		return nil, invalid("the description of scripted devices is empty").At("devices", 0)
	}
	var groups []scriptGroup
	for part := range strings.SplitSeq(spec, ",") {
		m := groupForm.FindStringSubmatch(strings.TrimSpace(part))
		if m == nil {
			return nil, invalid("%q does not describe devices", part).At("devices", 0)
		}
		count, err := strconv.Atoi(m[1])
		if err != nil {
			return nil, invalid("%q does not begin with a count", part).At("devices", 0)
		}
		groups = append(groups, scriptGroup{Model: m[2], Count: &count})
	}
	return groups, nil
}

func (s *scripted) read() (script, error) {
	text, err := os.ReadFile(s.path)
	if err != nil {
		return script{}, invalid("read the script of devices: %w", err).At("devices", 0)
	}
	if len(text) > scriptBytesMax {
		return script{}, invalid("the script of devices %s has %d bytes, at most %d", s.path, len(text), scriptBytesMax).At("devices", 0)
	}
	var sc script
	if err := yaml.UnmarshalWithOptions(text, &sc, yaml.DisallowUnknownField()); err != nil {
		f := invalid("the script of devices %s: %s", s.path, firstLine(err)).At("devices", lineOf(err))
		return script{}, f
	}
	devices, err := s.expand(sc.Devices)
	if err == nil {
		err = checkUses(sc.Uses, devices)
	}
	if err == nil {
		err = checkXIDs(sc.XIDs, devices)
	}
	if err != nil {
		return script{}, fmt.Errorf("the script of devices %s: %w", s.path, err)
	}
	return sc, nil
}

// lineForm matches the position at the start of an error of the YAML library.
var lineForm = regexp.MustCompile(`^\[([0-9]+):[0-9]+\] `)

func firstLine(err error) string {
	text, _, _ := strings.Cut(err.Error(), "\n")
	return lineForm.ReplaceAllString(text, "")
}

func lineOf(err error) int {
	m := lineForm.FindStringSubmatch(err.Error())
	if m == nil {
		return 0
	}
	line, err := strconv.Atoi(m[1])
	if err != nil {
		return 0
	}
	return line
}

func (s *scripted) expand(groups []scriptGroup) ([]*pb.Device, error) {
	var devices []*pb.Device
	seen := map[string]bool{}
	for i, g := range groups {
		field := fmt.Sprintf("devices[%d]", i)
		memory, health, count, err := g.check(field)
		if err != nil {
			return nil, err
		}
		for range count {
			index := len(devices)
			if index == DevicesMax {
				return nil, invalid("more than %d devices on one node", DevicesMax).At(field+".count", 0)
			}
			d := &pb.Device{Id: g.ID, Kind: "gpu", Vendor: "scripted", Model: g.Model, MemoryBytes: memory,
				Health: health, Reason: g.Reason, Index: int32(index), NumaNode: -1, BusId: g.BusID,
				Island: g.Island, MigProfile: strings.ToLower(g.MIG), Parent: g.Parent}
			if d.Id == "" {
				d.Id = fmt.Sprintf("%s-g%d", s.nodeID, index)
			}
			if g.NUMANode != nil {
				d.NumaNode = *g.NUMANode
			}
			if seen[d.Id] {
				return nil, invalid("device ID %q is used twice", d.Id).At(field+".id", 0)
			}
			seen[d.Id] = true
			devices = append(devices, d)
		}
	}
	return devices, nil
}

// check reads one group: the memory of a device in bytes, its health and the count.
func (g scriptGroup) check(field string) (memory int64, health pb.DeviceHealth, count int, err error) {
	count = 1
	if g.Count != nil {
		count = *g.Count
	}
	switch {
	case count < 1 || count > DevicesMax:
		return 0, 0, 0, invalid("%d devices of model %q, want 1 to %d", count, g.Model, DevicesMax).At(field+".count", 0)
	case g.ID != "" && count != 1:
		return 0, 0, 0, invalid("one ID for %d devices", count).At(field+".id", 0)
	case g.Model == "" || max(len(g.Model), len(g.ID), len(g.BusID), len(g.Island), len(g.Parent)) > idBytesMax:
		return 0, 0, 0, invalid("model %q: the model is required, and it and the IDs have at most %d bytes", g.Model, idBytesMax).At(field+".model", 0)
	case g.MIG != "" && migForm.FindString(g.MIG) == "":
		return 0, 0, 0, invalid("%.40q is not a MIG profile such as 1g.10gb", g.MIG).At(field+".mig", 0)
	case g.Percent != nil && (*g.Percent < 0 || *g.Percent > 100):
		return 0, 0, 0, invalid("busy for %d %%, want 0 to 100", *g.Percent).At(field+".percent", 0)
	}
	size, err := g.size(field)
	if err != nil {
		return 0, 0, 0, err
	}
	if size < 1 || size > memoryGiBMax {
		return 0, 0, 0, invalid("%d GiB of memory, want 1 to %d", size, memoryGiBMax).At(field+".memory_gb", 0)
	}
	health, ok := healthWords[strings.ToLower(g.Health)]
	if !ok {
		return 0, 0, 0, invalid("health %q, want ok, stale, failed or gone", g.Health).At(field+".health", 0)
	}
	return int64(size) << 30, health, count, nil
}

// size is the memory of a device of the group in GiB: as given, of the profile, of the model.
func (g scriptGroup) size(field string) (int, error) {
	if g.MemoryGB != 0 {
		return g.MemoryGB, nil
	}
	m := migForm.FindStringSubmatch(g.MIG)
	if m == nil {
		m = sizeForm.FindStringSubmatch(g.Model)
	}
	if m == nil {
		return 0, invalid("model %q does not end with its memory", g.Model).At(field+".model", 0)
	}
	size, err := strconv.Atoi(m[1])
	if err != nil {
		return 0, invalid("model %q does not end with its memory", g.Model).At(field+".model", 0)
	}
	return size, nil
}
