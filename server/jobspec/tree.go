package jobspec

import (
	"errors"
	"fmt"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// shape is what a YAML value looks like.
type shape int

const (
	nothing shape = iota
	boolean
	number
	text
	list
	mapping
)

func (s shape) String() string {
	return [...]string{"nothing", "true or false", "a number", "text", "a list", "a mapping"}[s]
}

// node is a YAML value with aliases followed and merge keys merged. An alias shares its
// anchor's node, so a tree of n nodes may stand for many more; the grammar's fixed depth
// keeps a walk short. line is from 1.
type node struct {
	shape  shape
	line   int
	text   string  // of a scalar, as written
	items  []*node // of a list
	fields []entry // of a mapping, without duplicates
}

// entry is one key of a mapping.
type entry struct {
	key    string
	line   int
	value  *node
	merged bool // from a merge key
}

// tree reads one YAML document; nil after a fault that leaves nothing to look at.
func (d *decoder) tree(src []byte) *node {
	if len(src) > FileBytesMax {
		d.add("", 0, "the file is %d bytes long, at most %d", len(src), FileBytesMax).
			Hint("put large values in a file of their own and pass its path")
		return nil
	}
	d.source = strings.Split(string(src), "\n")
	file := d.yaml(string(src))
	if file == nil {
		return nil
	}
	var body ast.Node
	for _, doc := range file.Docs {
		switch {
		case doc.Body == nil || doc.Body.Type() == ast.CommentType:
		case doc.Body.Type() == ast.DirectiveType:
			d.add("", lineOf(doc.Body), "a YAML directive is not supported").Hint("remove the line")
			return nil
		case body != nil:
			d.add("", lineOf(doc.Body), "the file holds more than one document").Hint("write one job a file")
			return nil
		default:
			body = doc.Body
		}
	}
	if body == nil {
		d.add("", 0, "the file is empty").Hint("a first job: `command: echo hello`")
		return nil
	}
	b := &builder{d: d, anchors: map[string]*node{}}
	root := b.build(body, 0, "")
	if root == nil || b.failed {
		return nil
	}
	return root
}

// yaml parses the source. The parser recurses and builds a path for every value, so what it
// is given is bounded first; should it panic all the same, that is a fault of the file.
func (d *decoder) yaml(src string) (file *ast.File) {
	defer func() {
		if r := recover(); r != nil {
			d.add("", 0, "the file cannot be read as YAML").Hint("the parser gave up: %v", r)
			file = nil
		}
	}()
	tokens := lexer.Tokenize(src)
	if line, reason := excess(tokens); reason != "" {
		d.add("", line, "%s", reason).Hint("a job file needs no such thing")
		return nil
	}
	file, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
	if err == nil {
		return file
	}
	line, sentence := 0, err.Error()
	var detailed yaml.Error
	if errors.As(err, &detailed) {
		sentence = detailed.GetMessage()
		if tk := detailed.GetToken(); tk != nil && tk.Position != nil {
			line = tk.Position.Line
		}
	}
	sentence, _, _ = strings.Cut(sentence, "\n")
	e := d.add("", line, "the file is not YAML: %s", sentence)
	if strings.Contains(sentence, "\t") {
		e.Fault.Message = "the file is not YAML: a tab stands where spaces belong"
		e.Hint("indent with spaces")
	}
	return nil
}

// excess looks for what would make the parser slow: too many tokens, long keys, deep nesting.
func excess(tokens token.Tokens) (line int, reason string) {
	if len(tokens) > yamlTokensMax {
		return 0, fmt.Sprintf("the file has %d words and signs, at most %d", len(tokens), yamlTokensMax)
	}
	var columns []int // of the blocks that are open
	flow, lastLine, marks := 0, 0, 0
	for i, tk := range tokens {
		if tk.Position == nil {
			continue
		}
		if tk.Position.Line != lastLine {
			lastLine, marks = tk.Position.Line, 0
			if flow == 0 {
				for len(columns) > 0 && columns[len(columns)-1] >= tk.Position.Column {
					columns = columns[:len(columns)-1]
				}
				columns = append(columns, tk.Position.Column)
			}
		}
		switch tk.Type {
		case token.MappingStartType, token.SequenceStartType:
			flow++
		case token.MappingEndType, token.SequenceEndType:
			flow = max(flow-1, 0)
		case token.SequenceEntryType, token.MappingKeyType, token.AnchorType, token.TagType, token.MappingValueType:
			if flow == 0 {
				marks++
			}
		}
		if flow > yamlDepthMax || len(columns) > yamlDepthMax || marks > yamlDepthMax {
			return tk.Position.Line, fmt.Sprintf("the file is nested more than %d levels deep", yamlDepthMax)
		}
		if tk.Type == token.MappingValueType && i > 0 && len(tokens[i-1].Value) > yamlKeyBytesMax {
			return tk.Position.Line, fmt.Sprintf("a key is longer than %d bytes", yamlKeyBytesMax)
		}
	}
	return 0, ""
}

func lineOf(n ast.Node) int {
	if tk := n.GetToken(); tk != nil && tk.Position != nil {
		return tk.Position.Line
	}
	return 0
}

// builder makes nodes of the parser's tree.
type builder struct {
	d       *decoder
	anchors map[string]*node
	nodes   int
	failed  bool // the tree is not worth decoding
}

func (b *builder) fail(n ast.Node, field, format string, args ...any) *node {
	b.failed = true
	b.d.add(field, lineOf(n), format, args...)
	return nil
}

// build gives the node of n, which is the value of field; nil after a fault.
func (b *builder) build(n ast.Node, depth int, field string) *node {
	if n == nil {
		return &node{shape: nothing}
	}
	if b.nodes++; b.nodes > yamlNodesMax || depth > 2*yamlDepthMax {
		if b.failed {
			return nil
		}
		return b.fail(n, field, "the file has more than %d values or is nested too deep", yamlNodesMax)
	}
	switch n := n.(type) {
	case *ast.NullNode:
		return &node{shape: nothing, line: lineOf(n)}
	case *ast.BoolNode:
		return &node{shape: boolean, line: lineOf(n), text: n.Token.Value}
	case *ast.IntegerNode, *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		return &node{shape: number, line: lineOf(n), text: n.GetToken().Value}
	case *ast.StringNode:
		return &node{shape: text, line: lineOf(n), text: n.Value}
	case *ast.LiteralNode:
		return &node{shape: text, line: lineOf(n), text: n.Value.Value}
	case *ast.SequenceNode:
		return b.list(n, depth, field)
	case *ast.MappingNode:
		return b.mapping(n, n.Values, depth, field)
	case *ast.MappingValueNode:
		return b.mapping(n, []*ast.MappingValueNode{n}, depth, field)
	case *ast.AnchorNode:
		return b.anchor(n, depth, field)
	case *ast.AliasNode:
		name := n.Value.GetToken().Value
		if target := b.anchors[name]; target != nil {
			return target
		}
		return b.fail(n, field, "the alias *%s has no anchor &%s before it", name, name)
	case *ast.TagNode:
		return b.fail(n, field, "the tag %s is not supported", quoted(n.Start.Value))
	default:
		return b.fail(n, field, "the file cannot be read here")
	}
}

func (b *builder) list(n *ast.SequenceNode, depth int, field string) *node {
	out := &node{shape: list, line: lineOf(n)}
	for i, v := range n.Values {
		item := b.build(v, depth+1, fmt.Sprintf("%s[%d]", field, i))
		if item == nil {
			return nil
		}
		out.items = append(out.items, item)
	}
	return out
}

func (b *builder) anchor(n *ast.AnchorNode, depth int, field string) *node {
	value := b.build(n.Value, depth+1, field)
	if value != nil && n.Name != nil {
		b.anchors[n.Name.GetToken().Value] = value
	}
	return value
}

// mapping reads the entries in order. What a merge key brings gives way to what is written.
func (b *builder) mapping(n ast.Node, values []*ast.MappingValueNode, depth int, field string) *node {
	out := &node{shape: mapping, line: lineOf(n)}
	if len(values) > 0 {
		out.line = lineOf(values[0].Key)
	}
	index := map[string]int{}
	for _, v := range values {
		key, ok := scalarKey(v.Key)
		if !ok {
			return b.fail(v.Key, field, "a key must be plain text")
		}
		at := strings.TrimPrefix(field+"."+key, ".")
		value := b.build(v.Value, depth+1, at)
		if value == nil {
			return nil
		}
		if v.Key.IsMergeKey() {
			if !b.merge(out, index, v, value, at) {
				return nil
			}
			continue
		}
		e := entry{key: key, line: lineOf(v.Key), value: value}
		if value.line == 0 {
			value.line = e.line
		}
		if i, taken := index[key]; !taken {
			index[key] = len(out.fields)
			out.fields = append(out.fields, e)
		} else if out.fields[i].merged {
			out.fields[i] = e
		} else {
			b.d.add(at, e.line, "the field is written twice, first on line %d", out.fields[i].line).Hint("remove one")
		}
	}
	return out
}

// merge adds the entries of one mapping, or of each of a list, that out does not have yet.
func (b *builder) merge(out *node, index map[string]int, v *ast.MappingValueNode, value *node, field string) bool {
	sources := []*node{value}
	if value.shape == list {
		sources = value.items
	}
	for _, src := range sources {
		if src.shape != mapping {
			b.fail(v.Key, field, "<< merges a mapping, not %s", src.shape)
			return false
		}
		for _, e := range src.fields {
			if b.nodes++; b.nodes > yamlNodesMax {
				b.fail(v.Key, field, "the file has more than %d values once it is merged", yamlNodesMax)
				return false
			}
			if _, taken := index[e.key]; !taken {
				e.merged = true
				index[e.key] = len(out.fields)
				out.fields = append(out.fields, e)
			}
		}
	}
	return true
}

func scalarKey(key ast.MapKeyNode) (string, bool) {
	switch k := key.(type) {
	case *ast.StringNode:
		return k.Value, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.NullNode, *ast.MergeKeyNode:
		return k.GetToken().Value, true
	default:
		return "", false
	}
}
