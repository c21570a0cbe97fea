package api

import (
	"fmt"
	"strings"

	"llmos/fsm/state"
	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
)

const wholeDevice = 1000 // thousandths

// feasible refuses a job of which a task asks for more than any registered node could give
// it, even if that were empty. A gang that is too large only as a whole waits instead, and
// says why: more nodes of the same kind may join at any moment, and at a cluster's start
// usually do. With no node registered nothing is refused.
func feasible(st *state.State, spec *pb.JobSpec) error {
	var nodes []*pb.Node
	for n := range st.Nodes() {
		nodes = append(nodes, n)
	}
	if len(nodes) == 0 {
		return nil
	}
	for i, role := range spec.GetRoles() {
		if err := taskFits(nodes, role, fmt.Sprintf("roles[%d].resources", i)); err != nil {
			return err
		}
	}
	return nil
}

// quantity is one thing that is asked for, and what a node has of it in all.
type quantity struct {
	field string
	ask   int64
	on    func(*pb.Node) int64
	show  func(int64) string
}

func quantities(r *pb.Resources) []quantity {
	return []quantity{
		{"gpus", deviceShare(r), func(n *pb.Node) int64 { return shareOn(n, r) }, func(v int64) string { return showGPUs(v, r) }},
		{"cpus", r.GetCpuMilli(), (*pb.Node).GetCpuMilli, func(v int64) string { return trimmed(v, 1000) + " CPUs" }},
		{"memory", r.GetMemoryBytes(), (*pb.Node).GetMemoryBytes, func(v int64) string { return trimmed(v, 1<<30) + " GiB of memory" }},
	}
}

// taskFits checks that some node could hold one task of the role.
func taskFits(nodes []*pb.Node, role *pb.RoleSpec, path string) error {
	asks := quantities(role.GetResources())
	for _, q := range asks {
		largest, all := int64(0), int64(0)
		for _, n := range nodes {
			largest, all = max(largest, q.on(n)), all+q.on(n)
		}
		if q.ask > largest {
			return noCapacity("asks %s per task; the largest node has %s, the cluster %s",
				q.show(q.ask), number(q.show(largest)), number(q.show(all))).At(path+"."+q.field, 0)
		}
	}
	for _, n := range nodes {
		if fitsNode(n, asks) {
			return nil
		}
	}
	return noCapacity("no node has all of what one task of role %q asks for, though each part is on some node", role.GetName()).At(path, 0)
}

func fitsNode(n *pb.Node, asks []quantity) bool {
	for _, q := range asks {
		if q.ask > q.on(n) {
			return false
		}
	}
	return true
}

func noCapacity(format string, args ...any) *fault.Error {
	return fault.New(pb.ErrorKind_ERROR_KIND_NO_CAPACITY, format, args...).
		Hint("ask for less, or add nodes first; llmos nodes shows what there is")
}

// deviceShare gives the thousandths of devices that a task asks for.
func deviceShare(r *pb.Resources) int64 {
	if r.GetGpuShareMilli() > 0 {
		return int64(r.GetGpus()) * int64(r.GetGpuShareMilli())
	}
	return int64(r.GetGpus()) * wholeDevice
}

// shareOn gives the thousandths of the node's devices that suit the request. A device
// that has failed may heal; one that is gone is not counted.
func shareOn(n *pb.Node, r *pb.Resources) int64 {
	sum := int64(0)
	for _, d := range n.GetDevices() {
		suits := d.GetHealth() != pb.DeviceHealth_DEVICE_HEALTH_GONE &&
			(r.GetGpuModel() == "" || r.GetGpuModel() == d.GetModel()) && r.GetGpuMemoryBytes() <= d.GetMemoryBytes()
		if suits && r.GetGpuShareMilli() > 0 {
			sum += max(1, wholeDevice/int64(r.GetGpuShareMilli())) * int64(r.GetGpuShareMilli())
		} else if suits {
			sum += wholeDevice
		}
	}
	return sum
}

func showGPUs(v int64, r *pb.Resources) string {
	what := " GPUs"
	switch {
	case r.GetGpuModel() != "" && r.GetGpuMemoryBytes() > 0:
		what = fmt.Sprintf(" GPUs %s with %s GiB", r.GetGpuModel(), trimmed(r.GetGpuMemoryBytes(), 1<<30))
	case r.GetGpuModel() != "":
		what = " GPUs " + r.GetGpuModel()
	case r.GetGpuMemoryBytes() > 0:
		what = fmt.Sprintf(" GPUs with %s GiB", trimmed(r.GetGpuMemoryBytes(), 1<<30))
	}
	return trimmed(v, wholeDevice) + what
}

// trimmed shows v/unit with up to two decimals.
func trimmed(v, unit int64) string {
	if v%unit == 0 {
		return fmt.Sprintf("%d", v/unit)
	}
	return fmt.Sprintf("%.2f", float64(v)/float64(unit))
}

// number gives the number of a quantity alone, for its second and third mention in a sentence.
func number(shown string) string {
	n, _, _ := strings.Cut(shown, " ")
	return n
}
