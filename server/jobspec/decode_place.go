package jobspec

import (
	"strings"
	"unicode/utf8"

	pb "llmos/proto/llmos/v1"
)

// placeRules are the fields that narrow where a job runs.
func (d *decoder) placeRules(s *pb.JobSpec) []rule {
	place := func(read func(p *pb.PlacementSpec) func(*node, string)) func(*node, string) {
		return func(n *node, field string) {
			if s.Placement == nil {
				s.Placement = &pb.PlacementSpec{}
			}
			read(s.Placement)(n, field)
		}
	}
	return []rule{
		{"where", place(func(p *pb.PlacementSpec) func(*node, string) { return d.whereField(&p.Where) })},
		{"within", place(func(p *pb.PlacementSpec) func(*node, string) { return d.text(&p.Within) })},
		{"prefer_within", place(func(p *pb.PlacementSpec) func(*node, string) { return d.text(&p.PreferWithin) })},
		{"spread", place(func(p *pb.PlacementSpec) func(*node, string) { return d.text(&p.Spread) })},
		{"spread_skew", place(func(p *pb.PlacementSpec) func(*node, string) { return d.integer(&p.SpreadSkew) })},
		{"near", place(func(p *pb.PlacementSpec) func(*node, string) { return d.oneOrList(&p.Near) })},
		{"apart", place(func(p *pb.PlacementSpec) func(*node, string) { return d.oneOrList(&p.Apart) })},
	}
}

// whereField reads a condition; its faults name the line and the column of the file.
func (d *decoder) whereField(into **pb.Expr) func(*node, string) {
	return func(n *node, field string) {
		var condition string
		d.text(&condition)(n, field)
		if n.shape != text {
			return
		}
		e, wrong := parseWhere(condition)
		if wrong == nil {
			*into = e
			return
		}
		line, column := d.placeOf(n, wrong.offset)
		d.add(field, line, "column %d: %s", column, wrong.text).Hint("%s", wrong.hint)
	}
}

// placeOf finds a byte of a text in the file: its line and its column, from 1. Of a text
// that stands otherwise in the file, because lines were joined or signs escaped, it gives
// the line of the value and the column in the text.
func (d *decoder) placeOf(n *node, offset int) (line, column int) {
	begin := strings.LastIndexByte(n.text[:offset], '\n') + 1
	part, _, _ := strings.Cut(n.text[begin:], "\n")
	row := strings.Count(n.text[:begin], "\n")
	for i := max(n.line-1, 0) + row; i < len(d.source) && i <= n.line+row; i++ {
		if at := strings.Index(d.source[i], part); part != "" && at >= 0 {
			return i + 1, utf8.RuneCountInString(d.source[i][:at+offset-begin]) + 1
		}
	}
	return n.line, utf8.RuneCountInString(n.text[:offset]) + 1
}
