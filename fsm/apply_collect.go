package fsm

import pb "llmos/proto/llmos/v1"

// collect forgets finished jobs that hold nothing, idempotency keys of finished jobs, expired
// tokens, past usage and reservations that have ended, oldest first, at most the limit of each.
func (a *applier) collect(c *pb.Collect) *pb.Fault {
	if c.Limit < 0 || c.Limit > collectLimitMax {
		return invalid("limit", "a limit of %d is not possible, 0 to %d are", c.Limit, collectLimitMax)
	}
	limit := int(c.Limit)
	if limit == 0 {
		limit = collectLimit
	}
	for _, id := range a.txn.FinishedBefore(c.JobsFinishedBeforeMs, limit) {
		a.txn.ForgetJob(id)
	}
	for _, id := range a.txn.RequestsBefore(c.RequestsBeforeMs, limit) {
		a.txn.ForgetRequest(id)
	}
	for _, id := range a.txn.TokensExpiredBefore(c.TokensExpiredBeforeMs, limit) {
		a.txn.ForgetToken(id)
	}
	for _, day := range a.txn.UsageBefore(c.UsageBeforeDay, limit) {
		a.txn.ForgetUsage(day)
	}
	for _, name := range a.txn.ReservationsEndedBefore(c.ReservationsEndedBeforeMs, limit) {
		a.txn.ForgetReservation(name)
		a.event("reservation.removed", "", "", "", "reservation %s has ended", name)
	}
	return nil
}
