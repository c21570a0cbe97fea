package api

import (
	"context"
	"time"

	"google.golang.org/protobuf/proto"

	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
	"llmos/server/jobspec"
)

const (
	horizonDefault = time.Hour
	horizonMost    = 7 * 24 * time.Hour // of a forecast
	stopAfterMost  = 366 * 24 * time.Hour
)

// GetSchedulerConfig gives the scheduling policy as it was set; a zero field means its default.
func (s *cluster) GetSchedulerConfig(ctx context.Context, _ *pb.GetSchedulerConfigRequest) (*pb.SchedulerConfig, error) {
	st, err := s.b.Read(ctx)
	if err != nil {
		return nil, err
	}
	return st.SchedulerConfig(), nil
}

// SetSchedulerConfig replaces the scheduling policy. A config that carries a modify index
// was read before and is refused when the policy has changed since then.
func (s *cluster) SetSchedulerConfig(ctx context.Context, req *pb.SetSchedulerConfigRequest) (*pb.SetSchedulerConfigResponse, error) {
	if err := jobspec.ValidateConfig(req.GetConfig()); err != nil {
		return nil, err
	}
	config := proto.CloneOf(req.GetConfig())
	if config.ModifyIndex != 0 {
		st, err := s.b.Read(ctx)
		if err != nil {
			return nil, err
		}
		if now := st.SchedulerConfig().ModifyIndex; now != config.ModifyIndex {
			return nil, fault.New(pb.ErrorKind_ERROR_KIND_CONFLICT, "the policy has been changed meanwhile").Hint("look at it again: llmos config get")
		}
		config.ModifyIndex = 0
	}
	res, err := s.propose(ctx, &pb.Command{Op: &pb.Command_SetSchedulerConfig{SetSchedulerConfig: &pb.SetSchedulerConfig{Config: config, User: userOf(ctx)}}})
	if err != nil {
		return nil, err
	}
	s.log.Info("scheduling policy changed", "user", userOf(ctx))
	return &pb.SetSchedulerConfigResponse{Index: res.Index}, nil
}

// DrainNode keeps new work off a node, named by ID or name, or ends that.
func (s *cluster) DrainNode(ctx context.Context, req *pb.DrainNodeRequest) (*pb.DrainNodeResponse, error) {
	if err := checkName("reason", req.GetReason(), reasonMax); err != nil {
		return nil, err
	}
	if req.GetStopAfterMs() > stopAfterMost.Milliseconds() {
		return nil, fault.New(pb.ErrorKind_ERROR_KIND_INVALID, "%s is out of range", jobspec.FormatDuration(req.GetStopAfterMs())).
			Hint("leave it out to let the tasks end by themselves").At("stop_after_ms", 0)
	}
	st, err := s.b.Read(ctx)
	if err != nil {
		return nil, err
	}
	node, err := findNode(st, req.GetNodeId())
	if err != nil {
		return nil, err
	}
	cmd := &pb.DrainNode{NodeId: node.Id}
	if !req.GetUndo() {
		now := s.now(st)
		cmd.Drain = &pb.Drain{SinceMs: now, Reason: req.GetReason(), User: userOf(ctx)}
		if req.GetStopAfterMs() != 0 {
			cmd.Drain.StopAtMs = now + max(0, req.GetStopAfterMs())
		}
	}
	res, err := s.propose(ctx, &pb.Command{Op: &pb.Command_DrainNode{DrainNode: cmd}})
	if err != nil {
		return nil, err
	}
	s.log.Info("node drained", "node", node.Id, "name", node.Name, "undone", req.GetUndo(), "user", userOf(ctx))
	return &pb.DrainNodeResponse{Index: res.Index}, nil
}

// PlanJob says what would happen if the job were submitted now. Nothing changes.
func (s *cluster) PlanJob(ctx context.Context, req *pb.PlanJobRequest) (*pb.PlanJobResponse, error) {
	if err := checkSpec(req.GetSpec()); err != nil {
		return nil, err
	}
	st, err := s.b.Read(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.checkTerms(st, req.GetSpec()); err != nil {
		return nil, err
	}
	plan, err := s.b.Plan(ctx, req.GetSpec(), userOf(ctx))
	if err == nil && !plan.GetStartsNow() && plan.GetExplanation() != nil {
		s.whatIf(ctx, req.GetSpec(), userOf(ctx), plan.Explanation)
	}
	return plan, err
}

// GetForecast gives the fit of a job's demand over time.
func (s *cluster) GetForecast(ctx context.Context, req *pb.GetForecastRequest) (*pb.Forecast, error) {
	horizon := time.Duration(req.GetHorizonMs()) * time.Millisecond
	if req.GetHorizonMs() == 0 {
		horizon = horizonDefault
	}
	if req.GetHorizonMs() < 0 || req.GetHorizonMs() > horizonMost.Milliseconds() {
		return nil, fault.New(pb.ErrorKind_ERROR_KIND_INVALID, "%d ms is out of range", req.GetHorizonMs()).
			Hint("look at most %s ahead", jobspec.FormatDuration(horizonMost.Milliseconds())).At("horizon_ms", 0)
	}
	st, err := s.b.Read(ctx)
	if err != nil {
		return nil, err
	}
	job, err := findJob(st, req.GetJobId())
	if err != nil {
		return nil, err
	}
	return s.b.Forecast(ctx, job.Id, horizon.Milliseconds())
}
