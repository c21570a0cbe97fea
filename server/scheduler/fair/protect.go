package fair

// Protects says whether what a queue holds is guaranteed to it against jobs of another one:
// below their lowest common queue, it or one above it has a quota and holds no more than the
// nominal quota of anything that is limited. A job of from may then not have a job of it
// stopped, whatever their priorities, unless from is within its own guarantee.
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
