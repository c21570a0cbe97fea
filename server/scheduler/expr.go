package scheduler

import (
	"fmt"
	"slices"
	"strings"
)

// condition gives what an expression admits, by its address and else by its text, so that
// jobs that ask the same share one set.
func (r *room) condition(e *Expr) *condition {
	if c := r.tried[e]; c != nil {
		return c
	}
	if len(r.tried) >= conditionsMax {
		clear(r.tried)
		clear(r.texts)
	}
	text := e.String()
	c := r.texts[text]
	if c == nil {
		c = &condition{nodes: r.noNodes()}
		for node := range r.spec {
			if r.spec[node].meets(e) {
				c.nodes.add(r, node)
			}
		}
		r.texts[text] = c
	}
	r.tried[e] = c
	return c
}

// meets says whether the node satisfies the condition; an expression without a part set is
// satisfied by every node.
func (n *Node) meets(e *Expr) bool {
	switch {
	case e == nil:
		return true
	case e.All != nil:
		for i := range e.All {
			if !n.meets(&e.All[i]) {
				return false
			}
		}
	case e.Any != nil:
		return slices.ContainsFunc(e.Any, func(one Expr) bool { return n.meets(&one) })
	case e.Not != nil:
		return !n.meets(e.Not)
	case e.Match != nil:
		return n.matches(e.Match)
	}
	return true
}

func (n *Node) matches(m *Match) bool {
	switch m.Key {
	case "node":
		return len(m.Values) == 0 || slices.Contains(m.Values, n.ID) || slices.Contains(m.Values, n.Name)
	case "gpu_model":
		return slices.ContainsFunc(n.Devices, func(d Device) bool { return len(m.Values) == 0 || slices.Contains(m.Values, d.Model) })
	}
	value, has := n.Labels[m.Key]
	return has && (len(m.Values) == 0 || slices.Contains(m.Values, value))
}

// String writes the condition as people read it: rack is r1 or r2, not (zone is z1).
func (e *Expr) String() string {
	if e == nil {
		return "any node"
	}
	list := func(of []Expr, word string) string {
		parts := make([]string, len(of))
		for i := range of {
			parts[i] = of[i].String()
			if len(of[i].All)+len(of[i].Any) > 1 {
				parts[i] = "(" + parts[i] + ")"
			}
		}
		return strings.Join(parts, word)
	}
	switch {
	case e.All != nil:
		return list(e.All, " and ")
	case e.Any != nil:
		return list(e.Any, " or ")
	case e.Not != nil:
		return "not (" + e.Not.String() + ")"
	case e.Match != nil && len(e.Match.Values) == 0:
		return e.Match.Key + " is set"
	case e.Match != nil:
		return fmt.Sprintf("%s is %s", e.Match.Key, strings.Join(e.Match.Values, " or "))
	}
	return "any node"
}

// unmet finds the part of a condition that no node of the list meets: the first one of those
// that must all hold. nil when each part is met by some node, though perhaps not together.
func unmet(e *Expr, nodes []Node) *Expr {
	if slices.ContainsFunc(nodes, func(n Node) bool { return n.meets(e) }) {
		return nil
	}
	for i := range e.All {
		if part := unmet(&e.All[i], nodes); part != nil {
			return part
		}
	}
	if len(e.All) > 1 {
		return nil
	}
	return e
}
