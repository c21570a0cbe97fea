package fair

// Protects says whether a job of the leaf from may not have a live attempt of another leaf
// stopped however high its priority is: below their lowest common queue the victim's leaf, or
// a queue above it, has a quota and holds no more than the nominal quota of anything that is
// limited. Book each victim with End before asking for the next.
//
// Otherwise the victim's queue could take back, by MayReclaim, what it lost.
func (t *Tree) Protects(leaf, from int) bool {
	common := map[int]bool{0: true}
	for at := from; at != 0; at = t.nodes[at].parent {
		common[at] = true
	}
	for at := leaf; !common[at]; at = t.nodes[at].parent {
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
