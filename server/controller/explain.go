package controller

import (
	"fmt"
	"strings"
	"time"

	pb "llmos/proto/llmos/v1"
)

// blockersShown bounds the jobs that a reason names.
const blockersShown = 3

// Explain says why a job is not running: the dominant reason as a sentence without its full
// stop, what would change it, details, and when it is expected to start. nil for a job that
// does not exist or is not pending.
func (c *Controller) Explain(jobID string) *pb.Explanation {
	j := c.st.Job(jobID)
	if j == nil || j.State != pb.JobState_JOB_STATE_PENDING {
		return nil
	}
	if len(j.BlockedBy) > 0 {
		return c.explainBlocked(j)
	}
	if r := c.planning.refused[jobID]; r != nil && r.until > c.now {
		return &pb.Explanation{Reason: "its placement was refused: " + r.text, Remedy: fmt.Sprintf("it is tried again within %s", refusalPauseMax)}
	}
	if c.planning.last != nil {
		if x := waitingExplanation(c.planning.last, jobID); x.Reason != "" {
			if x.ExpectedStartMs > 0 && x.ExpectedStartMs <= c.wallMS() {
				x.ExpectedStartMs = 0 // the pass is older than the date it gave
			}
			return x
		}
	}
	return &pb.Explanation{Reason: "the scheduler is about to look at it", Remedy: "nothing needs to be done"}
}

// explainBlocked names the jobs that a job comes after.
func (c *Controller) explainBlocked(j *pb.Job) *pb.Explanation {
	x := &pb.Explanation{}
	var named []string
	for _, id := range j.BlockedBy {
		on, latest := c.st.Job(id), int64(0)
		text := id
		if on != nil {
			text += ", which is " + stateWord(on.State)
			if end := c.ExpectedEnd(id); end > latest {
				text += " until about " + time.UnixMilli(end).UTC().Format("15:04 UTC")
			}
		}
		if len(named) < blockersShown {
			named = append(named, text)
		}
		x.Details = append(x.Details, "after "+text)
	}
	x.Reason = "comes after " + strings.Join(named, "; and after ")
	if more := len(j.BlockedBy) - len(named); more > 0 {
		x.Reason += fmt.Sprintf("; and %d more", more)
	}
	x.Remedy = "it is scheduled once they have ended as it asks"
	return x
}

func stateWord(s pb.JobState) string {
	return strings.ToLower(strings.TrimPrefix(s.String(), "JOB_STATE_"))
}
