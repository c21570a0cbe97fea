package jobspec

import (
	"fmt"
	"strings"
	"unicode/utf8"

	pb "llmos/proto/llmos/v1"
)

// Bounds of a condition on nodes.
const (
	whereBytesMax = 4096 // of its text
	whereDepthMax = 16   // of parentheses and nots
	whereTermsMax = 256  // comparisons and values
)

const whereHint = "write such as: gpu_model in (A100-40GB, H100-80GB) and not rack = r7"

// whereFault is a fault of a condition with its place in the text.
type whereFault struct {
	offset int // in bytes
	text   string
	hint   string
}

// ParseWhere reads a condition on nodes:
//
//	condition  = both { "or" both }
//	both       = one { "and" one }
//	one        = "not" one | "(" condition ")" | "exists" KEY | KEY "=" VALUE | KEY "!=" VALUE
//	           | KEY ["not"] "in" "(" VALUE { "," VALUE } ")"
//
// A key is a label of the node, or node, gpu_model, cpu_model or os. Words hold letters,
// digits and . _ - / : + and others stand in quotes. "=" is false and "!=" true where the
// label is missing. The error is a fault that names the column of the text, from 1.
func ParseWhere(text string) (*pb.Expr, error) {
	e, wrong := parseWhere(text)
	if wrong != nil {
		return nil, invalid("column %d: %s", utf8.RuneCountInString(text[:wrong.offset])+1, wrong.text).Hint("%s", wrong.hint)
	}
	return e, nil
}

func parseWhere(text string) (*pb.Expr, *whereFault) {
	if len(text) > whereBytesMax {
		return nil, &whereFault{0, fmt.Sprintf("the condition is %d bytes long, at most %d", len(text), whereBytesMax), "name the nodes by a label of their own"}
	}
	p := &whereParser{text: text}
	p.next()
	e := p.condition(0)
	if p.wrong == nil && p.kind != whereEnd {
		p.fail("%s stands where the condition should end", p.found())
		if p.kind == whereWord || p.kind == whereString {
			p.wrong.hint = "join two conditions with and, or or; put a value with spaces into quotes"
		}
	}
	return e, p.wrong
}

// whereKind is the kind of a word or sign of a condition.
type whereKind int

const (
	whereEnd whereKind = iota
	whereWord
	whereString // in quotes: never a keyword
	whereSign
)

// whereParser reads a condition by recursive descent. After the first fault it only ends.
type whereParser struct {
	text  string
	at    int // where the next token is looked for
	kind  whereKind
	start int    // of the present token
	word  string // the present token
	terms int
	wrong *whereFault
}

func (p *whereParser) fail(format string, args ...any) *pb.Expr {
	if p.wrong == nil {
		p.wrong = &whereFault{offset: p.start, text: fmt.Sprintf(format, args...), hint: whereHint}
	}
	return nil
}

func (p *whereParser) found() string {
	if p.kind == whereEnd {
		return "the end"
	}
	return quoted(p.text[p.start:p.at])
}

func isWhereByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("._-/:+", c) >= 0
}

// next reads a token.
func (p *whereParser) next() {
	for p.at < len(p.text) && strings.IndexByte(" \t\r\n", p.text[p.at]) >= 0 {
		p.at++
	}
	p.start = p.at
	if p.at == len(p.text) {
		p.kind, p.word = whereEnd, ""
		return
	}
	switch c := p.text[p.at]; {
	case c == '"' || c == '\'':
		end := strings.IndexByte(p.text[p.at+1:], c)
		if end < 0 {
			p.at = len(p.text)
			p.kind = whereEnd
			p.fail("the quotation has no end")
			return
		}
		p.kind, p.word = whereString, p.text[p.at+1:p.at+1+end]
		p.at += end + 2
	case isWhereByte(c):
		for p.at < len(p.text) && isWhereByte(p.text[p.at]) {
			p.at++
		}
		p.kind, p.word = whereWord, p.text[p.start:p.at]
	case strings.HasPrefix(p.text[p.at:], "!="), strings.HasPrefix(p.text[p.at:], "=="):
		p.at += 2
		p.kind, p.word = whereSign, p.text[p.start:p.at]
	default:
		_, size := utf8.DecodeRuneInString(p.text[p.at:])
		p.at += size
		p.kind, p.word = whereSign, p.text[p.start:p.at]
	}
}

func (p *whereParser) is(kind whereKind, word string) bool { return p.kind == kind && p.word == word }

// condition reads alternatives.
func (p *whereParser) condition(depth int) *pb.Expr {
	if depth > whereDepthMax {
		return p.fail("the condition is nested more than %d levels deep", whereDepthMax)
	}
	of := []*pb.Expr{p.both(depth)}
	for p.wrong == nil && p.is(whereWord, "or") {
		p.next()
		of = append(of, p.both(depth))
	}
	if len(of) == 1 {
		return of[0]
	}
	return &pb.Expr{Expr: &pb.Expr_Any{Any: &pb.ExprList{Of: of}}}
}

func (p *whereParser) both(depth int) *pb.Expr {
	of := []*pb.Expr{p.one(depth)}
	for p.wrong == nil && p.is(whereWord, "and") {
		p.next()
		of = append(of, p.one(depth))
	}
	if len(of) == 1 {
		return of[0]
	}
	return &pb.Expr{Expr: &pb.Expr_All{All: &pb.ExprList{Of: of}}}
}

func (p *whereParser) one(depth int) *pb.Expr {
	switch {
	case p.wrong != nil:
		return nil
	case depth > whereDepthMax:
		return p.fail("the condition is nested more than %d levels deep", whereDepthMax)
	case p.is(whereWord, "not"):
		p.next()
		return negated(p.one(depth + 1))
	case p.is(whereSign, "("):
		p.next()
		e := p.condition(depth + 1)
		p.expect(")")
		return e
	case p.is(whereWord, "exists"):
		p.next()
		return p.match(p.key(), nil)
	}
	return p.comparison()
}

func (p *whereParser) comparison() *pb.Expr {
	key := p.key()
	switch {
	case p.wrong != nil:
		return nil
	case p.is(whereSign, "="):
		p.next()
		return p.match(key, []string{p.value()})
	case p.is(whereSign, "!="):
		p.next()
		return negated(p.match(key, []string{p.value()}))
	case p.is(whereWord, "in"):
		p.next()
		return p.match(key, p.values())
	case p.is(whereWord, "not"):
		p.next()
		if !p.is(whereWord, "in") {
			return p.fail("%s stands where `in` belongs", p.found())
		}
		p.next()
		return negated(p.match(key, p.values()))
	}
	p.fail("%s stands where =, !=, in or not in belongs", p.found())
	if p.is(whereSign, "==") {
		p.wrong.hint = "write one ="
	} else if p.kind == whereEnd {
		p.wrong.hint = fmt.Sprintf("to ask only for the label: exists %s", key)
	}
	return nil
}

func negated(e *pb.Expr) *pb.Expr {
	if e == nil {
		return nil
	}
	return &pb.Expr{Expr: &pb.Expr_Not{Not: e}}
}

func (p *whereParser) match(key string, values []string) *pb.Expr {
	if p.terms += 1 + len(values); p.terms > whereTermsMax {
		return p.fail("the condition has more than %d comparisons and values", whereTermsMax)
	}
	if p.wrong != nil {
		return nil
	}
	return &pb.Expr{Expr: &pb.Expr_Match{Match: &pb.ExprMatch{Key: key, Values: values}}}
}

func isKeyword(word string) bool {
	switch word {
	case "and", "or", "not", "in", "exists":
		return true
	}
	return false
}

func (p *whereParser) key() string {
	switch {
	case p.kind != whereWord && p.kind != whereString, p.kind == whereWord && isKeyword(p.word):
		p.fail("%s stands where the name of a label belongs", p.found())
		return ""
	case !isLabelName(p.word):
		p.fail("%s is not a label's name", quoted(p.word))
		return ""
	}
	key := p.word
	p.next()
	return key
}

func (p *whereParser) value() string {
	switch {
	case p.kind != whereWord && p.kind != whereString:
		p.fail("%s stands where a value belongs", p.found())
		return ""
	case p.kind == whereWord && isKeyword(p.word):
		p.fail("the word %s stands where a value belongs", p.word)
		if p.wrong != nil {
			p.wrong.hint = fmt.Sprintf("if it is the value, put it in quotes: %q", p.word)
		}
		return ""
	case len(p.word) > LabelBytesMax:
		p.fail("the value is %d bytes long, at most %d", len(p.word), LabelBytesMax)
		return ""
	}
	value := p.word
	p.next()
	return value
}

func (p *whereParser) values() []string {
	p.expect("(")
	values := []string{p.value()}
	for p.wrong == nil && p.is(whereSign, ",") { // the text is bounded, and so are these
		p.next()
		values = append(values, p.value())
	}
	p.expect(")")
	return values
}

func (p *whereParser) expect(sign string) {
	if p.wrong != nil {
		return
	}
	if !p.is(whereSign, sign) {
		p.fail("%s stands where %s belongs", p.found(), sign)
		return
	}
	p.next()
}
