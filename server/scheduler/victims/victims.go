// Package victims chooses which running attempts to stop so that a waiting job can start: a
// cheap set for which a test says that it is enough.
//
// The least set of gangs whose room holds another gang is a covering problem, which is hard in
// general. Choose is greedy along several orders with the members that turn out to be
// superfluous taken out again, the costliest first; with few candidates it then searches
// exactly. It knows nothing of nodes, jobs or queues. Package scheduler calls it.
package victims

import (
	"cmp"
	"slices"
)

// ExactMax is the number of candidates up to which the search is exact, as long as TestsMax
// tests are enough for it.
const ExactMax = 12

// TestsMax bounds the tests of one call.
const TestsMax = 512

// Candidate is something that may be stopped.
type Candidate struct {
	Cost float64 // of stopping it, in any unit; not negative
	Tier int     // those of a lower tier are all tried before any of a higher one
}

// Choose gives the cheapest set that it finds, as ascending indexes of the candidates, for
// which enough holds; ok is false when not even all together are enough, or none was found
// within TestsMax tests. enough must hold for a set if it holds for a part of it, or the
// result is only one that is enough, not a small one; it may not keep the slice.
//
// orders are permutations of the candidates, or of some of them: in each it looks for the
// shortest beginning that is enough. Ties go to the first found.
func Choose(candidates []Candidate, orders [][]int, enough func(set []int) bool) (set []int, ok bool) {
	c := &choice{candidates: candidates, enough: enough, best: -1}
	for _, order := range orders {
		c.tryOrder(c.byTier(order))
	}
	if c.best >= 0 && len(candidates) <= ExactMax {
		c.exact()
	}
	slices.Sort(c.set)
	return c.set, c.best >= 0
}

type choice struct {
	candidates []Candidate
	enough     func(set []int) bool
	tests      int
	set        []int
	best       float64 // its cost; negative: none found yet
}

func (c *choice) test(set []int) bool {
	if c.tests >= TestsMax {
		return false
	}
	c.tests++
	return c.enough(set)
}

func (c *choice) cost(set []int) float64 {
	sum := 0.0
	for _, i := range set {
		sum += c.candidates[i].Cost
	}
	return sum
}

// byTier is the order with lower tiers first.
func (c *choice) byTier(order []int) []int {
	order = slices.Clone(order)
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(c.candidates[a].Tier, c.candidates[b].Tier) })
	return order
}

// tryOrder finds the shortest beginning of the order that is enough, and thins it out.
func (c *choice) tryOrder(order []int) {
	if !c.test(order) {
		return
	}
	low, high := 0, len(order) // high is enough
	for step := 1; low < high; step *= 2 {
		at := min(low+step, high) // what is enough is mostly short: go up in growing steps first
		if at == high || c.test(order[:at]) {
			high = at
			break
		}
		low = at
	}
	for low+1 < high {
		middle := (low + high) / 2
		if c.test(order[:middle]) {
			high = middle
		} else {
			low = middle
		}
	}
	c.offer(c.thin(order[:high]))
}

// thin takes out members that are not needed: of higher tiers first, then the costliest.
func (c *choice) thin(set []int) []int {
	set = slices.Clone(set)
	byCost := slices.Clone(set)
	slices.SortStableFunc(byCost, func(a, b int) int {
		x, y := &c.candidates[a], &c.candidates[b]
		return cmp.Or(cmp.Compare(y.Tier, x.Tier), cmp.Compare(y.Cost, x.Cost))
	})
	for _, i := range byCost {
		at := slices.Index(set, i)
		without := slices.Delete(slices.Clone(set), at, at+1)
		if c.test(without) {
			set = without
		}
	}
	return set
}

func (c *choice) offer(set []int) {
	if cost := c.cost(set); c.best < 0 || cost < c.best {
		c.set, c.best = set, cost
	}
}

// exact looks through the subsets whose cost is below the best, cheapest members first.
// Sets of a higher tier than the best one's are not looked at.
func (c *choice) exact() {
	tier := 0
	for _, i := range c.set {
		tier = max(tier, c.candidates[i].Tier)
	}
	var order []int
	for i := range c.candidates {
		if c.candidates[i].Tier <= tier {
			order = append(order, i)
		}
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(c.candidates[a].Cost, c.candidates[b].Cost) })
	c.extend(order, nil, 0)
}

func (c *choice) extend(rest, set []int, cost float64) {
	for at, i := range rest {
		more := cost + c.candidates[i].Cost
		if more >= c.best || c.tests >= TestsMax {
			return // those behind cost at least as much
		}
		with := append(slices.Clone(set), i)
		if c.test(with) {
			c.offer(with)
			continue
		}
		c.extend(rest[at+1:], with, more)
	}
}
