package jobspec

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	pb "llmos/proto/llmos/v1"
)

func TestParseWhere(t *testing.T) {
	for text, want := range map[string]string{
		"gpu_model in (A100, H100) and not rack = r7": "gpu_model in (A100, H100) and rack != r7",
		"a = 1 or b = 2 and c = 3":                    "a = 1 or b = 2 and c = 3",
		"(a = 1 or b = 2) and c = 3":                  "(a = 1 or b = 2) and c = 3",
		"not (a = 1 and b = 2)":                       "not (a = 1 and b = 2)",
		"not not exists nvme":                         "not not exists nvme",
		"a not in (x)":                                "a != x",
		"a not in (x, y)":                             "a not in (x, y)",
		`a = "two words" or 'b' = 'it"s'`:             `a = "two words" or b = 'it"s'`,
		`a = "and"`:                                   `a = "and"`,
		"zone=eu-west/1":                              "zone = eu-west/1",
		"a = 1 or (b = 2 or c = 3)":                   "a = 1 or (b = 2 or c = 3)",
	} {
		e, err := ParseWhere(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got := FormatWhere(e); got != want {
			t.Errorf("%s: shown as %s, want %s", text, got, want)
		}
		c := &checker{}
		if c.where("where", e); len(c.faults) > 0 {
			t.Errorf("%s: parsed, and does not validate: %v", text, c.faults)
		}
	}
	for text, want := range map[string]string{
		"":                         "column 1: the end stands where the name of a label belongs",
		"a":                        "column 2: the end stands where =, !=, in or not in belongs (hint: to ask only for the label: exists a)",
		"a == b":                   `column 3: "==" stands where =, !=, in or not in belongs (hint: write one =)`,
		"a = b c = d":              `column 7: "c" stands where the condition should end`,
		"a = and":                  `column 5: the word and stands where a value belongs (hint: if it is the value, put it in quotes: "and")`,
		"(a = b":                   "column 7: the end stands where ) belongs",
		"a in b":                   `column 6: "b" stands where ( belongs`,
		"a in ()":                  `column 7: ")" stands where a value belongs`,
		"a in (b,)":                `column 9: ")" stands where a value belongs`,
		"a not b":                  "column 7: \"b\" stands where `in` belongs",
		"a = 'b":                   "column 5: the quotation has no end",
		"ä = b":                    `column 1: "ä" stands where the name of a label belongs`,
		"x = ä":                    `column 5: "ä" stands where a value belongs`,
		"a ~ b":                    `column 3: "~" stands`,
		"not":                      "column 4: the end stands where the name",
		strings.Repeat("(", 40):    "nested more than 16 levels deep",
		strings.Repeat("not ", 40): "nested more than 16 levels deep",
		strings.Repeat("a", 200):   "is not a label's name",
		"a in (" + strings.Repeat("b,", 300) + "b)":   "more than 256 comparisons and values",
		strings.Repeat("a = b or ", 1000) + "a = b":   "bytes long, at most 4096",
		"a = " + strings.Repeat("b", LabelBytesMax+1): "column 5: the value is 129 bytes long",
		strings.Repeat("a = b and ", 256) + "a = b":   "more than 256 comparisons and values",
		"a = b or or c = d":                           `column 10: "or" stands where the name of a label belongs`,
		"exists (a)":                                  `column 8: "(" stands where the name of a label belongs`,
		"a in (A, H) and not rack = r7 or rack r8":    `column 39: "r8" stands`,
		"gpu_model = H100-80GB AND rack = r1":         `column 23: "AND" stands where the condition should end`,
		"a = b)":                                      `column 6: ")" stands where the condition should end`,
		"\n\n a = b\n and":                            "column 14: the end stands",
		"a != ":                                       "column 6: the end stands where a value belongs",
		`"" = b`:                                      `column 1: "" is not a label's name`,
	} {
		_, err := ParseWhere(text)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: got %v, want %q", text, err, want)
		}
	}
}

// genExpr draws conditions as the parser builds them: lists of two or more.
func genExpr(depth int) *rapid.Generator[*pb.Expr] {
	return rapid.Custom(func(t *rapid.T) *pb.Expr {
		kind := 0
		if depth > 0 {
			kind = rapid.IntRange(0, 3).Draw(t, "kind")
		}
		list := func() *pb.ExprList {
			return &pb.ExprList{Of: rapid.SliceOfN(genExpr(depth-1), 2, 4).Draw(t, "of")}
		}
		switch kind {
		case 1:
			return &pb.Expr{Expr: &pb.Expr_All{All: list()}}
		case 2:
			return &pb.Expr{Expr: &pb.Expr_Any{Any: list()}}
		case 3:
			return &pb.Expr{Expr: &pb.Expr_Not{Not: genExpr(depth-1).Draw(t, "not")}}
		}
		return &pb.Expr{Expr: &pb.Expr_Match{Match: &pb.ExprMatch{Key: rapid.StringMatching(`[a-z][a-z0-9._/-]{0,5}`).Draw(t, "key"),
			Values: rapid.SliceOfN(rapid.StringMatching(`[ -!#-~]{1,6}|[ -&(-~]{1,6}`), 0, 3).Draw(t, "values")}}}
	})
}

// TestWhereIsReadAsItIsShown holds FormatWhere and ParseWhere to each other.
func TestWhereIsReadAsItIsShown(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e := genExpr(3).Draw(t, "condition")
		text := FormatWhere(e)
		if len(text) > whereBytesMax {
			t.Skip()
		}
		got, err := ParseWhere(text)
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		if !proto.Equal(got, e) {
			t.Fatalf("%s is read as %v, and was %v", text, got, e)
		}
	})
}

func FuzzWhere(f *testing.F) {
	for _, text := range []string{"a = b", "a in (b, 'c d') and not (exists e or f != g)", "not", "((", "a = \"b"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		e, err := ParseWhere(text)
		if err != nil {
			return
		}
		again, err := ParseWhere(FormatWhere(e))
		if err != nil && len(FormatWhere(e)) <= whereBytesMax {
			t.Fatalf("%q is shown as %q, which is refused: %v", text, FormatWhere(e), err)
		}
		if err == nil && !proto.Equal(e, again) {
			t.Fatalf("%q is shown as %q, which is another condition", text, FormatWhere(e))
		}
	})
}

func TestWhereFromAnywhere(t *testing.T) {
	match := func(key string, values ...string) *pb.Expr {
		return &pb.Expr{Expr: &pb.Expr_Match{Match: &pb.ExprMatch{Key: key, Values: values}}}
	}
	deep := match("a")
	for range 100 {
		deep = &pb.Expr{Expr: &pb.Expr_Not{Not: deep}}
	}
	for want, e := range map[string]*pb.Expr{
		"where: a part of the condition is empty":            {},
		"where: the condition is nested":                     deep,
		`where: "a b" is not a label's name`:                 match("a b"),
		"where: a value of a is 200 bytes long":              match("a", strings.Repeat("x", 200)),
		"where: the condition has more than 256 comparisons": match("a", make([]string, 300)...),
		"where: a part of the condition":                     {Expr: &pb.Expr_All{All: &pb.ExprList{}}},
	} {
		spec := good()
		spec.Placement = &pb.PlacementSpec{Where: e}
		if err := Validate(spec); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	if got := FormatWhere(nil); got != "" {
		t.Errorf("no condition is shown as %q", got)
	}
	if got := FormatWhere(deep); !strings.HasSuffix(got, "not exists a") {
		t.Errorf("a deep condition is shown as %q", got)
	}
}
