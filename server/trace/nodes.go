package trace

import (
	"fmt"
	"io"
	"regexp"
	"strconv"

	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
)

// Node is a host of a cluster to simulate.
type Node struct {
	Name        string
	CPUMilli    int64
	MemoryBytes int64
	GPUs        int
	Model       string
}

// Hosts of a shape have so much for each device, or without devices for the host, so that
// devices are what runs out first.
const (
	shapeCPUMilli    = 16_000
	shapeMemoryBytes = 256 << 30
)

// NodesMax bounds a cluster to simulate.
const NodesMax = 100_000

// ReadNodes reads openb's list of nodes: sn, cpu_milli, memory_mib, gpu (devices), model.
// Errors are as those of Read.
func ReadNodes(name string, r io.Reader) ([]Node, error) {
	_, rest, err := peekLine(name, r)
	if err != nil {
		return nil, err
	}
	t, err := newTable(name, rest)
	if err != nil {
		return nil, err
	}
	for _, c := range []string{"sn", "cpu_milli", "memory_mib", "gpu", "model"} {
		if !t.has(c) {
			return nil, invalid(name, 1, c, "a list of nodes needs this column, and it is missing").
				Hint("the columns are sn,cpu_milli,memory_mib,gpu,model; or give a shape such as 64x8xH100-80GB")
		}
	}
	var nodes []Node
	for {
		more, err := t.next()
		if err != nil || !more {
			return nodes, err
		}
		if len(nodes) >= NodesMax {
			return nil, limit(name, t.line, "there are more than %d nodes", NodesMax).Hint("simulate a part of it")
		}
		n, err := t.node()
		if err != nil {
			return nil, err
		}
		nodes = append(nodes, n)
	}
}

func (t *table) node() (n Node, err error) {
	if n.Name, err = t.label("sn"); err != nil {
		return n, err
	}
	if n.CPUMilli, err = t.whole("cpu_milli", 1, milliMax); err != nil {
		return n, err
	}
	memory, err := t.whole("memory_mib", 1, bytesMax>>20)
	if err != nil {
		return n, err
	}
	n.MemoryBytes = memory << 20
	gpus, err := t.whole("gpu", 0, 1024)
	if err != nil {
		return n, err
	}
	n.GPUs = int(gpus)
	n.Model, err = t.label("model")
	return n, err
}

var shape = regexp.MustCompile(`^([0-9]{1,6})x([0-9]{1,4})(?:x([A-Za-z0-9._-]+))?$`)

// IsShape says whether the text is a shape rather than the name of a file.
func IsShape(text string) bool { return shape.MatchString(text) }

// ParseShape gives the nodes of a shape: nodes x devices each x model, such as
// 64x8xH100-80GB; the model may be left out.
func ParseShape(text string) ([]Node, error) {
	m := shape.FindStringSubmatch(text)
	if m == nil {
		return nil, fault.New(pb.ErrorKind_ERROR_KIND_INVALID, "%s is not the shape of a cluster", quoted(text)).
			Hint("write nodes x devices x model, such as 64x8xH100-80GB").At("nodes", 0)
	}
	count, _ := strconv.Atoi(m[1]) // the expression bounds the digits
	gpus, _ := strconv.Atoi(m[2])
	if count < 1 || count > NodesMax || gpus > 1024 {
		return nil, fault.New(pb.ErrorKind_ERROR_KIND_INVALID, "a cluster of %d nodes with %d devices each cannot be simulated", count, gpus).
			Hint("1 to %d nodes with up to 1024 devices are possible", NodesMax).At("nodes", 0)
	}
	model := m[3]
	if model == "" {
		model = "gpu"
	}
	nodes := make([]Node, count)
	for i := range nodes {
		nodes[i] = Node{Name: fmt.Sprintf("node-%05d", i), GPUs: gpus, Model: model,
			CPUMilli: shapeCPUMilli * int64(max(1, gpus)), MemoryBytes: shapeMemoryBytes * int64(max(1, gpus))}
	}
	return nodes, nil
}

// Scale gives a cluster factor times as large, rounded to whole nodes, at least one: nodes
// are left out or repeated evenly over the list, so that the mix of shapes stays.
func Scale(nodes []Node, factor float64) []Node {
	n := max(1, int(float64(len(nodes))*factor+0.5))
	out := make([]Node, n)
	seen := map[string]int{}
	for i := range out {
		out[i] = nodes[i*len(nodes)/n]
		if again := seen[out[i].Name]; again > 0 {
			seen[out[i].Name]++
			out[i].Name = fmt.Sprintf("%s+%d", out[i].Name, again)
			continue
		}
		seen[out[i].Name] = 1
	}
	return out
}
