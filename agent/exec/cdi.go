package exec

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml"

	"llmos/agent/exec/engine"
)

// NVIDIA's GPUs come into a container by CDI, a file in which the vendor's tools have written what
// each device takes, or else by NVIDIA's own runtime.

const (
	cdiKind      = "nvidia.com/gpu"
	cdiFileMax   = 4 << 20
	nvidiaDriver = "nvidia"
	nvidiaFiles  = "/dev/nvidia"
)

// noDevices keeps NVIDIA's runtime, where it is the engine's default, from giving a
// container all devices because its image says so.
const noDevices = "NVIDIA_VISIBLE_DEVICES=void"

// cdiSpec is what is read of a CDI file.
type cdiSpec struct {
	Kind    string `yaml:"kind"`
	Devices []struct {
		Name string `yaml:"name"`
	} `yaml:"devices"`
}

// devices says how the task's devices come into its container.
func (k *contained) devices(ctx context.Context) ([]engine.DeviceRequest, []string, *startError) {
	spec := k.shim.spec
	if !slices.ContainsFunc(spec.Devices, func(f string) bool { return strings.HasPrefix(f, nvidiaFiles) }) {
		return nil, []string{noDevices}, nil
	}
	info, err := k.engine.Info(ctx)
	if err != nil {
		return nil, nil, cannot(ExitCannotStart, "the container engine of node %s does not say what it can do: %v", spec.NodeName, err)
	}
	names, missing := cdiNames(cdiDevices(info.CDISpecDirs), spec)
	_, runtime := info.Runtimes[nvidiaDriver]
	switch {
	case missing == "":
		return []engine.DeviceRequest{{Driver: "cdi", DeviceIDs: names}}, []string{noDevices}, nil
	case runtime:
		return []engine.DeviceRequest{{Driver: nvidiaDriver, DeviceIDs: spec.DeviceIDs, Capabilities: [][]string{{"gpu"}}}}, nil, nil
	}
	return nil, nil, cannot(ExitCannotStart, "node %s cannot give device %s to a container: its engine knows no CDI device of it and no runtime of NVIDIA's "+
		"(run `nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml` there)", spec.NodeName, missing)
}

// cdiDevices gives the names of the GPUs that the CDI files in the folders describe.
func cdiDevices(dirs []string) map[string]bool {
	known := map[string]bool{}
	for _, dir := range dirs {
		files, err := filepath.Glob(filepath.Join(dir, "*"))
		if err != nil {
			continue
		}
		for _, f := range files {
			if ext := filepath.Ext(f); ext != ".yaml" && ext != ".yml" && ext != ".json" {
				continue
			}
			info, err := os.Stat(f)
			if err != nil || info.Size() > cdiFileMax {
				continue
			}
			data, err := os.ReadFile(f)
			var spec cdiSpec
			if err != nil || yaml.Unmarshal(data, &spec) != nil || spec.Kind != cdiKind {
				continue
			}
			for _, d := range spec.Devices {
				known[d.Name] = true
			}
		}
	}
	return known
}

// cdiNames gives the task's devices their CDI names: by UUID, else by the number in the name
// of the device's file. missing is the first that has none.
func cdiNames(known map[string]bool, spec Spec) (names []string, missing string) {
	for i, id := range spec.DeviceIDs {
		name := id
		if !known[name] && i < len(spec.Devices) {
			name = strings.TrimPrefix(spec.Devices[i], nvidiaFiles)
			if _, err := strconv.Atoi(name); err != nil || strings.HasPrefix(id, "MIG") {
				name = id
			}
		}
		if !known[name] {
			return nil, id
		}
		names = append(names, cdiKind+"="+name)
	}
	return names, ""
}
