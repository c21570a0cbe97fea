package state

import pb "llmos/proto/llmos/v1"

func checkEpochs(c *checker) {
	for j := range c.s.Jobs() {
		next := uint64(1)
		for a := range c.s.Attempts(j.Id) {
			if pruned := a.Epoch > next && next+AttemptsKept <= j.Epoch; a.Epoch != next && !pruned {
				c.fail("job %s has attempt %d where %d is due", j.Id, a.Epoch, next)
			}
			next = a.Epoch + 1
			if a.State != pb.AttemptState_ATTEMPT_STATE_ENDED && a.Epoch != j.Epoch {
				c.fail("attempt %d of job %s is %s, and is not the newest, %d", a.Epoch, j.Id, Word(a.State), j.Epoch)
			}
		}
		if j.Epoch != next-1 {
			c.fail("job %s is at epoch %d, and its newest attempt is %d", j.Id, j.Epoch, next-1)
		}
	}
	for r := range values(c.s.attempts.Root(), nil) {
		if c.s.Job(r.rec.JobId) == nil {
			c.fail("attempt %d is of job %s, which does not exist", r.rec.Epoch, r.rec.JobId)
		}
	}
}

func checkJobStates(c *checker) {
	for j := range c.s.Jobs() {
		newest := c.s.Attempt(j.Id, j.Epoch)
		active := newest != nil && newest.State != pb.AttemptState_ATTEMPT_STATE_ENDED
		runs := j.State == pb.JobState_JOB_STATE_RUNNING || j.State == pb.JobState_JOB_STATE_STOPPING
		if scheduled := j.State == pb.JobState_JOB_STATE_SCHEDULED; scheduled != (j.Spec.GetCron() != nil && !JobFinished(j.State)) {
			c.fail("job %s is %s", j.Id, Word(j.State))
		}
		if IsParent(j) {
			active = j.Spec.GetArray() != nil && !JobFinished(j.State)
		}
		if active != runs {
			c.fail("job %s is %s, and its newest attempt is %s", j.Id, Word(j.State), Word(newest.GetState()))
		}
		stopping := j.State == pb.JobState_JOB_STATE_STOPPING
		if stopping && (!j.StopRequested || !IsParent(j) && newest.GetState() != pb.AttemptState_ATTEMPT_STATE_ENDING) {
			c.fail("job %s is stopping, with stop_requested=%t and its attempt %s", j.Id, j.StopRequested, Word(newest.GetState()))
		}
		if j.StopRequested && !stopping && !JobFinished(j.State) {
			c.fail("job %s is asked to stop and %s", j.Id, Word(j.State))
		}
		if _, known := jobTransitions[j.State]; !known && !JobFinished(j.State) || j.State == pb.JobState_JOB_STATE_UNSPECIFIED {
			c.fail("job %s is in state %d", j.Id, j.State)
		}
		if j.RetriesLeft < 0 || j.RetriesLeft > j.Spec.GetRetries() {
			c.fail("job %s has %d of %d retries left", j.Id, j.RetriesLeft, j.Spec.GetRetries())
		}
	}
}

func checkAttempts(c *checker) {
	for r := range values(c.s.attempts.Root(), nil) {
		a := r.rec
		checkAttemptTasks(c, a)
		if (a.State == pb.AttemptState_ATTEMPT_STATE_ENDED) != (a.EndedMs > 0) {
			c.fail("attempt %d of job %s is %s and ended at %d", a.Epoch, a.JobId, Word(a.State), a.EndedMs)
		}
	}
}

func checkAttemptTasks(c *checker, a *pb.Attempt) {
	live, tasks := 0, int32(0)
	newest := c.s.Job(a.JobId).GetEpoch() == a.Epoch
	for k := range c.s.JobTasks(a.JobId, a.Epoch) {
		if newest && k.Rank != tasks {
			c.fail("task %s stands where rank %d is due", k.Id, tasks)
		}
		tasks++
		if !TaskLive(k.State) {
			if !TaskTerminal(k.State) {
				c.fail("task %s is in state %d", k.Id, k.State)
			}
			if a.State == pb.AttemptState_ATTEMPT_STATE_LIVE && k.State != pb.TaskState_TASK_STATE_SUCCEEDED {
				c.fail("task %s is %s, and its attempt is live", k.Id, Word(k.State))
			}
			continue
		}
		live++
		want := pb.TaskDesired_TASK_DESIRED_RUN
		if a.State == pb.AttemptState_ATTEMPT_STATE_ENDING {
			want = pb.TaskDesired_TASK_DESIRED_STOP
		}
		if k.Desired != want {
			c.fail("task %s is asked to %s, and its attempt is %s", k.Id, Word(k.Desired), Word(a.State))
		}
	}
	if newest && tasks != a.WorldSize {
		c.fail("attempt %d of job %s has %d tasks of %d", a.Epoch, a.JobId, tasks, a.WorldSize)
	}
	if ended := a.State == pb.AttemptState_ATTEMPT_STATE_ENDED; ended == (live > 0) {
		c.fail("attempt %d of job %s is %s with %d live tasks", a.Epoch, a.JobId, Word(a.State), live)
	}
}

func checkFinished(c *checker) {
	for j := range c.s.Jobs() {
		if !JobFinished(j.State) {
			if j.FinishedMs != 0 {
				c.fail("job %s is %s and finished at %d", j.Id, Word(j.State), j.FinishedMs)
			}
			continue
		}
		if j.FinishedMs == 0 {
			c.fail("job %s is %s and has no time of its end", j.Id, Word(j.State))
		}
		for a := range records(c.s.allocations, terminated(j.Id)) {
			if c.s.Task(a.TaskId).GetState() != pb.TaskState_TASK_STATE_LOST {
				c.fail("job %s is %s, and its task %s holds an allocation", j.Id, Word(j.State), a.TaskId)
			}
		}
	}
}

func checkNames(c *checker) {
	seen := map[string]string{}
	for j := range c.s.UnfinishedJobs() {
		if j.Spec.GetName() == "" || j.Parent != "" {
			continue
		}
		key := string(terminated(JobQueue(j.Spec), j.Spec.GetName()))
		if other := seen[key]; other != "" {
			c.fail("jobs %s and %s are unfinished and have one name", other, j.Id)
		}
		seen[key] = j.Id
	}
}
