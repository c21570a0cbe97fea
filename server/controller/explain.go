package controller

import (
	"fmt"

	pb "llmos/proto/llmos/v1"
)

// Explain says why a job is not running: the dominant reason as a sentence without its full
// stop, what would change it, and details. All are empty for a job that does not exist or
// is not pending.
func (c *Controller) Explain(jobID string) (reason, remedy string, details []string) {
	j := c.st.Job(jobID)
	if j == nil || j.State != pb.JobState_JOB_STATE_PENDING {
		return "", "", nil
	}
	if r := c.planning.refused[jobID]; r != nil && r.until > c.now {
		return "its placement was refused: " + r.text, fmt.Sprintf("it is tried again within %s", refusalPauseMax), nil
	}
	if c.planning.last != nil {
		if why, ok := c.planning.last.Explain(jobID); ok {
			return why.Text, why.Remedy, why.Details
		}
	}
	return "the scheduler is about to look at it", "nothing needs to be done", nil
}
