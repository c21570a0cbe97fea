package scheduler

import "time"

// forever stands for a time that nobody knows.
const forever = int64(1) << 62

// lengthOf is the time in milliseconds after which the job will have ended if it starts now,
// as far as is known: its predicted 90 % quantile, or its time limit; forever when neither is known.
func lengthOf(j *Job) int64 {
	length := forever
	if j.Q90 > 0 {
		length = j.Q90
	}
	if j.LimitMS > 0 {
		length = min(length, j.LimitMS)
	}
	return length
}

// endOf is the time at which a job that starts at a time has ended.
func endOf(start, length int64) int64 {
	if length == forever {
		return forever
	}
	return start + length
}

// How long a stop takes is not known beforehand, and neither is how much longer a job runs
// that has outlived its prediction.
const (
	endingMS      = 30_000 // a job that is being stopped is expected to be gone after this
	overdueMinMS  = 60_000 // an overdue job is expected to run at least so much longer,
	overdueFactor = 2      // or a part of the time that it has run
)

// endOfRunning is the time at which the attempt has released what it holds, as far as is
// known. A prediction that has passed is extended: half the time that the attempt has run,
// as for a run time whose survivors live the longer the longer they have lived.
func endOfRunning(r *Running, nowMS int64) int64 {
	switch {
	case r.Ending:
		return nowMS + endingMS
	case r.EndQ90 <= 0:
		return forever
	case r.EndQ90 <= nowMS:
		return nowMS + max(overdueMinMS, (nowMS-r.StartedMS)/overdueFactor)
	}
	return r.EndQ90
}

// clock writes a time of day for people, with the day when it is not within a day of now.
func clock(ms, nowMS int64) string {
	const day = 24 * 60 * 60 * 1000
	at := time.UnixMilli(ms).UTC()
	if ms-nowMS >= day || nowMS-ms >= day {
		return at.Format("2006-01-02 15:04 UTC")
	}
	return at.Format("15:04 UTC")
}
