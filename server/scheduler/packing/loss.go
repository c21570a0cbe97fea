package packing

// The weights of the potential's terms, against the value of residuals.
const (
	FragmentWeight = 0.1 // of FGD's measure
	PriceWeight    = 2   // of the price of the model
)

const fragmentDivisor = 10 // 1 / FragmentWeight

// Node is what is free on a node whose devices are of one model.
type Node struct {
	Model int     // of the fleet; negative or beyond it: a model that was not there to learn
	CPU   int64   // millicores free
	Free  []int32 // thousandths free of each device in service, in any order
}

// phi gives the potential when take is taken of the device at place at, or when take whole
// devices are taken (at < 0), and cpu is what stays free.
func (p *Prices) phi(n *Node, cpu int64, at int, take int32) int64 {
	if n.Model < 0 || n.Model >= len(p.values) {
		return p.unknown(n, at, take)
	}
	values := p.values[n.Model]
	row := p.frags.row(n.Model, cpu)
	one, many := p.frags.one[row], p.frags.many[row]
	var idle, usable, worth, whole int64
	all := take
	for i, free := range n.Free {
		if at < 0 && take > 0 && free == Whole {
			take--
			continue
		}
		if i == at {
			free -= take
		}
		if free <= 0 {
			continue
		}
		idle += int64(free)
		usable += int64(free) * one[p.frags.sizeOf[free]]
		if free == Whole {
			whole++
		}
		if values != nil {
			worth += values[free]
		}
	}
	if len(p.frags.several) > 0 {
		usable += p.frags.usableBySeveral(n, cpu, at, all)
	}
	together := min(whole, devicesMax)
	usable += whole * Whole * many[together]
	worth += p.rooms[n.Model][min(len(n.Free), devicesMax)][together]
	potential := (idle*Device-usable)/(Whole*fragmentDivisor) - worth
	if relief := p.relief[n.Model]; relief > 0 {
		potential += max(0, idle*(Device/Whole)-int64(float64(max(0, cpu))*relief))
	}
	return potential
}

// unknown is the potential of a node of which nothing is learned: its devices are worth
// what they are, more than any other, so that it is used last.
func (p *Prices) unknown(n *Node, at int, take int32) int64 {
	sum := -int64(take)
	if at < 0 {
		sum *= Whole
	}
	for _, free := range n.Free {
		sum += int64(free)
	}
	return -sum * (Device / Whole)
}

// Phi is the potential of a node, in billionths of a device: idle devices that few tasks can
// use and that lack CPU, less what the rests, and whole devices that are free together, are
// worth.
func (p *Prices) Phi(n *Node) int64 { return p.phi(n, n.CPU, -1, 0) }

// Loss is what the cluster loses by the task on this node, in billionths of a device: for a
// shared task on the device at this place, for others at is without meaning. The node must
// admit the task. A task with shares of several devices is valued by one of them.
func (p *Prices) Loss(s *Shape, n *Node, at int) int64 {
	return p.loss(s, n, at, p.Phi(n))
}

func (p *Prices) loss(s *Shape, n *Node, at int, before int64) int64 {
	take := s.Share
	if !s.shared() {
		at, take = -1, s.GPUs
	}
	loss := p.phi(n, n.CPU-s.CPU, at, take) - before
	if s.GPUs > 0 && n.Model >= 0 && n.Model < len(p.prices) {
		loss += p.prices[n.Model] * s.Demand() / Whole
	}
	return loss
}

// Best gives the loss of the task on the node and the device for it: for a shared task the
// fullest one that admits it, the first of equals, else -1. What a rest is worth chooses the
// node; among the devices of a node it gains nothing over the fullest, and where tasks come
// and go it opens devices that bursts of large shares need whole (DESIGN.md). admits says by
// place in n.Free whether a device may be taken; nil: where the share is free. With several
// devices a task the first one is given.
func (p *Prices) Best(s *Shape, n *Node, admits []bool) (loss int64, at int) {
	at = -1
	if s.shared() {
		for i, free := range n.Free {
			if free >= s.Share && (admits == nil || admits[i]) && (at < 0 || free < n.Free[at]) {
				at = i
			}
		}
		if at < 0 {
			return 0, -1
		}
	}
	return p.Loss(s, n, at), at
}

// usableBySeveral sums what tasks that ask shares of several devices could use.
func (f *fragments) usableBySeveral(n *Node, cpu int64, at int, take int32) int64 {
	sum := int64(0)
	for k := range f.several {
		s := &f.several[k].shape
		if s.CPU > cpu || !s.Models.Has(n.Model) {
			continue
		}
		count, free, left := int32(0), int64(0), take
		for i, have := range n.Free {
			if i == at {
				have -= take
			} else if at < 0 && left > 0 && have == Whole {
				left--
				continue
			}
			if have >= s.Share {
				count++
				free += int64(have)
			}
		}
		if count >= s.GPUs {
			sum += free * billionths(f.several[k].share)
		}
	}
	return sum
}
