package api

import (
	"context"

	pb "llmos/proto/llmos/v1"
)

// Insight is what only the leader's controller knows, for it alone sees the last pass of
// the scheduler and the agents' samples. The gate has sent the call to the leader before
// any of these is asked. They never change anything. Errors are *fault.Error; UNAVAILABLE
// says that nobody knows at the moment.
type Insight interface {
	// Explain gives why a pending job waits: of the answer, reason, remedy, details,
	// expected_start_ms and would_start are filled, the rest is the caller's. nil when
	// there is nothing to say yet, or the job is not pending. It must be quick: a list
	// asks it for many jobs.
	Explain(jobID string) *pb.Explanation
	// ExpectedEnd gives the median of the predicted end of a running job, in Unix
	// milliseconds; 0 when it is unknown. It must be quick.
	ExpectedEnd(jobID string) int64
	// Plan says what would happen if a job with this spec, which has been validated and
	// whose dependencies are ignored, were submitted now by user: the scheduler's own
	// pass over the present snapshot with that job added. Nothing is proposed. The
	// explanation of one that does not start now needs no job_id or state.
	Plan(ctx context.Context, spec *pb.JobSpec, user string) (*pb.PlanJobResponse, error)
	// QueueViews gives every queue with what it holds, parents before children and
	// siblings by name; sums cover the subtree.
	QueueViews(ctx context.Context) ([]*pb.QueueView, error)
	// Forecast gives the fit of the demand of a job, named by its ID, and its band ahead
	// to horizonMS (more than 0) from now. A job that was never sampled gives a forecast
	// without series.
	Forecast(ctx context.Context, jobID string, horizonMS int64) (*pb.Forecast, error)
}
