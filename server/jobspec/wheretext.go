package jobspec

import (
	"fmt"
	"strings"

	pb "llmos/proto/llmos/v1"
)

// FormatWhere writes a condition as ParseWhere reads it; nil gives "".
func FormatWhere(e *pb.Expr) string {
	var b strings.Builder
	writeWhere(&b, e, 0)
	return b.String()
}

// The strength with which what stands around a condition binds.
const (
	whereInAny = iota + 1
	whereInAll
	whereInNot
)

func writeWhere(b *strings.Builder, e *pb.Expr, around int) {
	switch x := e.GetExpr().(type) {
	case *pb.Expr_Any:
		writeWhereList(b, x.Any.GetOf(), " or ", whereInAny, around)
	case *pb.Expr_All:
		writeWhereList(b, x.All.GetOf(), " and ", whereInAll, around)
	case *pb.Expr_Not:
		if m := x.Not.GetMatch(); m != nil && len(m.Values) == 1 {
			b.WriteString(whereWordText(m.Key) + " != " + whereWordText(m.Values[0]))
		} else if m != nil && len(m.Values) > 1 {
			writeWhereMatch(b, m, " not in ")
		} else {
			b.WriteString("not ")
			writeWhere(b, x.Not, whereInNot)
		}
	case *pb.Expr_Match:
		writeWhereMatch(b, x.Match, " in ")
	}
}

func writeWhereList(b *strings.Builder, of []*pb.Expr, joint string, strength, around int) {
	if around > strength {
		b.WriteByte('(')
		defer b.WriteByte(')')
	}
	for i, e := range of {
		if i > 0 {
			b.WriteString(joint)
		}
		writeWhere(b, e, strength+1)
	}
}

func writeWhereMatch(b *strings.Builder, m *pb.ExprMatch, in string) {
	switch len(m.GetValues()) {
	case 0:
		b.WriteString("exists " + whereWordText(m.GetKey()))
	case 1:
		b.WriteString(whereWordText(m.Key) + " = " + whereWordText(m.Values[0]))
	default:
		words := make([]string, len(m.Values))
		for i, v := range m.Values {
			words[i] = whereWordText(v)
		}
		b.WriteString(whereWordText(m.Key) + in + "(" + strings.Join(words, ", ") + ")")
	}
}

// whereWordText puts a word in quotes where it needs them.
func whereWordText(word string) string {
	plain := word != "" && !isKeyword(word)
	for i := range len(word) {
		plain = plain && isWhereByte(word[i])
	}
	switch {
	case plain:
		return word
	case strings.Contains(word, `"`):
		return "'" + word + "'"
	}
	return `"` + word + `"`
}

// where checks a condition from anywhere: its shape, its keys and its size.
func (c *checker) where(field string, e *pb.Expr) {
	terms := 0
	if wrong := whereTrouble(e, 0, &terms); wrong != "" {
		c.add(field, "%s", wrong).Hint(whereHint)
	}
}

func whereTrouble(e *pb.Expr, depth int, terms *int) string {
	if depth > 2*whereDepthMax {
		return fmt.Sprintf("the condition is nested more than %d levels deep", 2*whereDepthMax)
	}
	var of []*pb.Expr
	switch x := e.GetExpr().(type) {
	case *pb.Expr_All:
		of = x.All.GetOf()
	case *pb.Expr_Any:
		of = x.Any.GetOf()
	case *pb.Expr_Not:
		return whereTrouble(x.Not, depth+1, terms)
	case *pb.Expr_Match:
		return whereMatchTrouble(x.Match, terms)
	}
	if len(of) == 0 {
		return "a part of the condition is empty"
	}
	for _, one := range of {
		if wrong := whereTrouble(one, depth+1, terms); wrong != "" {
			return wrong
		}
	}
	return ""
}

func whereMatchTrouble(m *pb.ExprMatch, terms *int) string {
	if *terms += 1 + len(m.GetValues()); *terms > whereTermsMax {
		return fmt.Sprintf("the condition has more than %d comparisons and values", whereTermsMax)
	}
	if !isLabelName(m.GetKey()) {
		return fmt.Sprintf("%s is not a label's name", quoted(m.GetKey()))
	}
	for _, v := range m.Values {
		if len(v) > LabelBytesMax {
			return fmt.Sprintf("a value of %s is %d bytes long, at most %d", m.Key, len(v), LabelBytesMax)
		}
	}
	return ""
}
