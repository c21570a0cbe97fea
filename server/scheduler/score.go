package scheduler

// Weights weigh the terms of the score. The node with the lowest sum takes the task; equal
// sums go to the first node by ID.
type Weights struct {
	Scarce   float64 // per step of device memory size above the smallest that suits
	Broken   float64 // per whole device that a share would break
	Guard    float64 // per free device of a node that a task without GPUs would sit on
	Stranded float64 // per device that could no longer be used for lack of CPU
	Open     float64 // per device's worth still free on the node after a GPU task
	Left     float64 // for the free part of the node's CPU and memory
}

// DefaultWeights orders the terms: spare large devices, keep whole devices whole, keep GPU
// nodes for GPU tasks, strand nothing, fill what is nearly full, and then fit best.
func DefaultWeights() Weights {
	return Weights{Scarce: 64, Broken: 32, Guard: 8, Stranded: 4, Open: 1, Left: 0.25}
}

// term is one view of what the cluster loses when a node that admits a task of the shape
// takes it. A value is not negative and is in the unit that Weights names.
type term struct {
	name   string
	weight func(*Weights) float64
	value  func(r *room, node int, s *shape) float64
}

// terms are summed in this order, so that rounding is the same every time.
var terms = []term{
	{"scarce", func(w *Weights) float64 { return w.Scarce }, losesScarce},
	{"broken", func(w *Weights) float64 { return w.Broken }, losesWhole},
	{"guard", func(w *Weights) float64 { return w.Guard }, losesGuard},
	{"stranded", func(w *Weights) float64 { return w.Stranded }, losesStranded},
	{"open", func(w *Weights) float64 { return w.Open }, losesOpen},
	{"left", func(w *Weights) float64 { return w.Left }, losesLeft},
}

// score is the loss of placing one task of the shape on a node that admits it.
func (r *room) score(node int, s *shape) float64 {
	if r.pricing.prices != nil {
		return r.priced(node, s)
	}
	sum := 0.0
	for i := range terms {
		if w := terms[i].weight(&r.weights); w != 0 {
			sum += w * terms[i].value(r, node, s)
		}
	}
	return sum
}

// losesScarce counts by how many sizes the devices that would be taken are too large.
func losesScarce(r *room, node int, s *shape) float64 {
	if s.gpus == 0 || len(r.kinds) < 2 {
		return 0
	}
	at := r.wouldUse(node, s)
	if at < 0 {
		return 0
	}
	return float64(r.devicesOf(node)[at].rank)
}

func losesWhole(r *room, node int, s *shape) float64 {
	if s.share == 0 {
		return 0
	}
	if at := r.wouldUse(node, s); at >= 0 && r.devicesOf(node)[at].isWhole() {
		return float64(s.gpus)
	}
	return 0
}

// wouldUse gives a device of the node that a task of the shape would get.
func (r *room) wouldUse(node int, s *shape) int {
	devices := r.devicesOf(node)
	if s.share != 0 {
		return fullest(devices, s, func(int) bool { return false })
	}
	if r.nodes[node].uniform {
		return 0
	}
	return bestKind(devices, s)
}

// losesGuard keeps tasks without GPUs away from nodes with free devices and, less, from
// nodes with devices.
func losesGuard(r *room, node int, s *shape) float64 {
	n := &r.nodes[node]
	if s.gpus != 0 || n.first == n.last {
		return 0
	}
	return 0.5 + float64(n.share)/deviceWhole
}

// losesStranded is the growth of idle devices beyond those that the node's free CPU could
// serve at the usual ratio.
func losesStranded(r *room, node int, s *shape) float64 {
	n := &r.nodes[node]
	if n.first == n.last || r.ratio <= 0 {
		return 0
	}
	before := r.stranded(n.share, n.cpu)
	return max(0, r.stranded(n.share-s.deviceShare(), n.cpu-s.cpu)-before)
}

func (r *room) stranded(share, cpu int64) float64 {
	return max(0, float64(share)/deviceWhole-float64(cpu)/r.ratio)
}

func (s *shape) deviceShare() int64 {
	if s.share != 0 {
		return int64(s.gpus) * int64(s.share)
	}
	return int64(s.gpus) * deviceWhole
}

func losesOpen(r *room, node int, s *shape) float64 {
	if s.gpus == 0 {
		return 0
	}
	return float64(r.nodes[node].share-s.deviceShare()) / deviceWhole
}

func losesLeft(r *room, node int, s *shape) float64 {
	n, spec := &r.nodes[node], &r.spec[node]
	return (part(n.cpu-s.cpu, spec.CPU) + part(n.memory-s.memory, spec.Memory)) / 2
}

func part(free, capacity int64) float64 {
	if capacity <= 0 {
		return 0
	}
	return float64(free) / float64(capacity)
}

// cpuPerDevice is the CPU that the pending GPU tasks ask per device, in millicores: the
// measure of stranding. 0 when none asks any.
func cpuPerDevice(jobs []Job) float64 {
	var cpu, share int64
	for i := range jobs {
		for _, role := range jobs[i].Roles {
			if role.Task.GPUs > 0 {
				each := int64(role.Task.GPUs) * deviceWhole
				if role.Task.Share > 0 {
					each = int64(role.Task.GPUs) * int64(role.Task.Share)
				}
				cpu += int64(role.Count) * role.Task.CPU
				share += int64(role.Count) * each
			}
		}
	}
	if share == 0 {
		return 0
	}
	return float64(cpu) * deviceWhole / float64(share)
}
