package device

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	pb "llmos/proto/llmos/v1"
)

const (
	useMiBMax    = memoryGiBMax << 10 // held by one scripted process
	pidBytesMax  = 32                 // of a file that holds the number of a process
	percentUnset = -1
)

// scriptUse is memory of a scripted device that a real process is said to hold. The process
// is told by its number or by a file in which it has written its number.
type scriptUse struct {
	Device   string `yaml:"device"`
	PID      int    `yaml:"pid"`
	PIDFile  string `yaml:"pid_file"`
	MemoryMB int64  `yaml:"memory_mb"`
}

// checkUses holds the uses of a script against its devices.
func checkUses(uses []scriptUse, devices []*pb.Device) error {
	if len(uses) > UsesMax {
		return invalid("%d uses, at most %d", len(uses), UsesMax).At("uses", 0)
	}
	known := map[string]bool{}
	for _, d := range devices {
		known[d.Id] = true
	}
	for i, u := range uses {
		field := fmt.Sprintf("uses[%d]", i)
		switch {
		case !known[u.Device]:
			return invalid("no device has the ID %.60q", u.Device).At(field+".device", 0)
		case (u.PID > 0) == (u.PIDFile != "") || u.PID < 0 || u.PID > math.MaxInt32:
			return invalid("a use has either the number of a process or a file with it").At(field+".pid", 0)
		case u.PIDFile != "" && !filepath.IsAbs(u.PIDFile):
			return invalid("%.60q is not an absolute path", u.PIDFile).At(field+".pid_file", 0)
		case u.MemoryMB < 0 || u.MemoryMB > useMiBMax:
			return invalid("%d MiB, want 0 to %d", u.MemoryMB, useMiBMax).At(field+".memory_mb", 0)
		}
	}
	return nil
}

// Use gives the uses as they are described now.
func (s *scripted) Use(context.Context) (Use, error) {
	if s.path == "" {
		return Use{}, nil
	}
	sc, err := s.read()
	if err != nil {
		return Use{}, err
	}
	if sc.Error != "" {
		return Use{}, errors.New(sc.Error)
	}
	return s.useOf(sc)
}

func (s *scripted) useOf(sc script) (Use, error) {
	use := Use{Figures: map[string]Figure{}}
	devices, err := s.expand(sc.Devices)
	if err != nil {
		return Use{}, err
	}
	busy := percents(sc.Devices)
	for i, d := range devices {
		if i < len(busy) && busy[i] != percentUnset {
			figure := NoFigure
			figure.Percent = busy[i]
			use.Figures[d.Id] = figure
		}
	}
	for _, u := range sc.Uses {
		pid := u.PID
		if u.PIDFile != "" {
			if pid, err = readPID(u.PIDFile); err != nil {
				return Use{}, err
			}
		}
		if pid > 0 {
			use.Processes = append(use.Processes, ProcessUse{DeviceID: u.Device, PID: pid, MemoryBytes: u.MemoryMB << 20})
		}
	}
	return use, nil
}

// percents gives the load of each device in order; percentUnset where none is given.
func percents(groups []scriptGroup) []int32 {
	var out []int32
	for _, g := range groups {
		count, percent := 1, int32(percentUnset)
		if g.Count != nil {
			count = *g.Count
		}
		if g.Percent != nil {
			percent = *g.Percent
		}
		for range count {
			out = append(out, percent)
		}
	}
	return out
}

// readPID reads the number of a process from a file; 0 when there is none yet.
func readPID(path string) (int, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(text) == 0 {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read the number of a process: %w", err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text[:min(len(text), pidBytesMax)])))
	if err != nil || pid < 1 || pid > math.MaxInt32 {
		return 0, fmt.Errorf("%s holds no number of a process", path)
	}
	return pid, nil
}
