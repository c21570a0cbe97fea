package fair

// Protects says whether a job of the leaf from, with demand d, may not have a live attempt of
// another leaf stopped however high its priority is: below their lowest common queue the
// victim's leaf, or a queue above it, has a quota and holds no more than the nominal quota of
// anything that is limited, while from's side would hold more than is guaranteed to it.
//
// Otherwise the victim's queue could take back at once, by MayReclaim, what it lost.
func (t *Tree) Protects(leaf, from int, d Demand) bool {
	if leaf == from {
		return false
	}
	above := map[int]bool{0: true}
	for at := leaf; at != 0; at = t.nodes[at].parent {
		above[at] = true
	}
	side := from // child of the lowest common queue
	for !above[t.nodes[side].parent] {
		side = t.nodes[side].parent
	}
	common := t.nodes[side].parent
	if from == 0 || above[from] || t.within(side, t.vector(d)) {
		return false
	}
	for at := leaf; at != common; at = t.nodes[at].parent {
		n := &t.nodes[at]
		limited, within := false, true
		for r := range n.limited {
			if n.limited[r] {
				limited = true
				within = within && n.used[r] <= n.nominal[r]
			}
		}
		if limited && within {
			return true
		}
	}
	return false
}
