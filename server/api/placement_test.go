package api

import (
	"testing"

	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
)

// TestSubmitRefusesPlacement: what no registered node meets is refused with the field named,
// and what some node meets is not.
func TestSubmitRefusesPlacement(t *testing.T) {
	r := newRig(t)
	api := pb.NewClusterServiceClient(r.conn(r.server("s-000000000001"), roleUser, "jane"))
	match := func(key string, values ...string) *pb.Expr {
		return &pb.Expr{Expr: &pb.Expr_Match{Match: &pb.ExprMatch{Key: key, Values: values}}}
	}
	not := func(e *pb.Expr) *pb.Expr { return &pb.Expr{Expr: &pb.Expr_Not{Not: e}} }
	both := func(of ...*pb.Expr) *pb.Expr { return &pb.Expr{Expr: &pb.Expr_All{All: &pb.ExprList{Of: of}}} }
	submit := func(name string, gpus int32, p *pb.PlacementSpec) error {
		spec := simpleSpec(name, 1)
		spec.Roles[0].Resources.Gpus, spec.Placement = gpus, p
		_, err := api.SubmitJob(testContext(t), &pb.SubmitJobRequest{Spec: spec})
		return err
	}
	if err := submit("early", 0, &pb.PlacementSpec{Where: match("rack", "r7")}); err != nil {
		t.Errorf("with no node registered nothing is impossible: %v", err)
	}
	r.node("n-000000000001", "a", "127.0.0.1:1", 8)
	r.node("n-000000000002", "b", "127.0.0.1:2", 2)
	for _, c := range []struct {
		name  string
		gpus  int32
		place *pb.PlacementSpec
		field string
		words string
	}{
		{"rack", 0, &pb.PlacementSpec{Where: match("rack", "r7")}, "placement.where", "asks for nodes where rack is r7; no node is so, and none has a label rack"},
		{"none", 0, &pb.PlacementSpec{Where: both(match("node", "a"), match("node", "b"))}, "placement.where",
			"asks for nodes where node is a and node is b; each part is true of some node, but not all together"},
		{"small", 8, &pb.PlacementSpec{Where: not(match("node", "a"))}, "placement.where", "asks 8 GPUs; the largest node has 2, the cluster 2 (of 1 node where not (node is a))"},
		{"row", 0, &pb.PlacementSpec{Within: "row"}, "placement.within", "asks all tasks within one row; no node has a label row"},
		{"over", 0, &pb.PlacementSpec{Spread: "row"}, "placement.spread", "asks to be spread over row; no node has a label row"},
		{"fine", 8, &pb.PlacementSpec{Where: match("gpu_model", "H100-80GB"), Within: "node"}, "", ""},
	} {
		err := submit(c.name, c.gpus, c.place)
		if c.field == "" {
			if err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
			continue
		}
		wantKind(t, c.name, err, kindNoCapacity)
		if f := fault.From(err).Fault; f.Field != c.field || f.Message != c.words {
			t.Errorf("%s: field %q, %q", c.name, f.Field, f.Message)
		}
	}
}
