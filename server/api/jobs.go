package api

import (
	"context"
	"log/slog"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"llmos/fsm/state"
	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
	"llmos/server/jobspec"
)

const (
	specBytesMax   = 256 << 10 // of a job's spec as it travels
	tasksPerJobMax = 10_000
	requestIDMax   = 128  // bytes of an idempotency key
	nameMax        = 256  // bytes of a job, node or token name in a request
	reasonMax      = 1024 // bytes of a stop's reason
	listMax        = 1000 // jobs of one page
	pageBytesMax   = 4 << 20
	pageReasonsMax = 50 // pending jobs of a page whose reason the controller is asked for
)

// cluster serves ClusterService.
type cluster struct {
	pb.UnimplementedClusterServiceServer
	b            Backend
	log          *slog.Logger
	agentSilence time.Duration // 0: the constant; tests shorten it
	whatIfSpan   time.Duration // 0: the constant; tests lengthen it
}

// SubmitJob validates a job and commits it. The same request ID gives the same job.
func (s *cluster) SubmitJob(ctx context.Context, req *pb.SubmitJobRequest) (*pb.SubmitJobResponse, error) {
	if err := checkSpec(req.GetSpec()); err != nil {
		return nil, err
	}
	if err := checkName("request_id", req.GetRequestId(), requestIDMax); err != nil {
		return nil, err
	}
	key, st := req.GetRequestId(), s.b.Stale()
	// A repeated request gets its job's ID even when the nodes have gone meanwhile.
	if key == "" || st.Request(key) == nil {
		if err := checkDeadline(s.now(st), req.GetSpec()); err != nil {
			return nil, err
		}
		if err := feasible(st, req.GetSpec()); err != nil {
			return nil, err
		}
		if err := placeable(st, req.GetSpec()); err != nil {
			return nil, err
		}
	}
	if key == "" {
		key = s.b.NewID()
	}
	res, err := s.propose(ctx, &pb.Command{Op: &pb.Command_SubmitJob{SubmitJob: &pb.SubmitJob{
		RequestId: key, Spec: req.GetSpec(), User: userOf(ctx),
	}}})
	if err != nil {
		return nil, err
	}
	return &pb.SubmitJobResponse{JobId: res.JobId, Index: res.Index, RepeatedRequest: res.RepeatedRequest}, nil
}

// checkSpec holds a spec against the bounds first, so that validation costs little.
func checkSpec(spec *pb.JobSpec) error {
	if spec == nil {
		return fault.New(pb.ErrorKind_ERROR_KIND_INVALID, "the request has no job").At("spec", 0)
	}
	if n := proto.Size(spec); n > specBytesMax {
		return fault.New(pb.ErrorKind_ERROR_KIND_LIMIT, "the job takes %d bytes; the most is %d", n, specBytesMax).
			Hint("put large inputs into files that the tasks read").At("spec", 0)
	}
	tasks := int64(0)
	for _, role := range spec.GetRoles() {
		tasks += max(0, int64(role.GetCount()))
	}
	if tasks > tasksPerJobMax {
		return fault.New(pb.ErrorKind_ERROR_KIND_LIMIT, "the job has %d tasks; the most is %d", tasks, tasksPerJobMax).At("roles", 0)
	}
	jobspec.Complete(spec)
	return jobspec.Validate(spec)
}

// propose commits one command and reads its result.
func (s *cluster) propose(ctx context.Context, cmd *pb.Command) (*pb.Result, error) {
	return propose(ctx, s.b, cmd)
}

func propose(ctx context.Context, b Backend, cmd *pb.Command) (*pb.Result, error) {
	results, err := b.Propose(ctx, cmd)
	if err != nil {
		return nil, err
	}
	if len(results) != 1 {
		return nil, fault.New(pb.ErrorKind_ERROR_KIND_INTERNAL, "one command gave %d results", len(results))
	}
	if err := fault.Of(results[0].GetFault()); err != nil {
		return nil, err
	}
	return results[0], nil
}

// userOf names the caller in records.
func userOf(ctx context.Context) string {
	id, ok := Caller(ctx)
	if !ok {
		return ""
	}
	return id.MemberID
}

func checkName(field, name string, most int) error {
	if len(name) <= most {
		return nil
	}
	return fault.New(pb.ErrorKind_ERROR_KIND_LIMIT, "%d bytes are too many; the most is %d", len(name), most).At(field, 0)
}

// GetJob gives a job by its ID, or the newest of its name.
func (s *cluster) GetJob(ctx context.Context, req *pb.GetJobRequest) (*pb.JobView, error) {
	st, err := s.state(ctx, req.GetStale())
	if err != nil {
		return nil, err
	}
	job, err := findJob(st, req.GetJobId())
	if err != nil {
		return nil, err
	}
	return s.view(st, job), nil
}

// state gives what a read answers from.
func (s *cluster) state(ctx context.Context, stale bool) (*state.State, error) {
	if stale {
		return s.b.Stale(), nil
	}
	return s.b.Read(ctx)
}

func findJob(st *state.State, name string) (*pb.Job, error) {
	if name == "" {
		return nil, fault.New(pb.ErrorKind_ERROR_KIND_INVALID, "the request names no job").At("job_id", 0)
	}
	if err := checkName("job_id", name, nameMax); err != nil {
		return nil, err
	}
	job := st.FindJob(name)
	if base, copyOf, found := strings.Cut(name, "_"); job == nil && found { // sweep_3: a copy of the newest job so called
		if parent := st.FindJob(base); parent != nil {
			job = st.Job(parent.Id + "_" + copyOf)
		}
	}
	if job == nil {
		return nil, fault.New(pb.ErrorKind_ERROR_KIND_NOT_FOUND, "there is no job %q", name).
			Hint("llmos ps --all lists the jobs that are remembered")
	}
	return job, nil
}

// view puts a job together with its newest attempt, its events and what its tasks say. The
// records are the state's own and must not be changed.
func (s *cluster) view(st *state.State, job *pb.Job) *pb.JobView {
	v := recordsOf(st, job)
	v.Events = st.JobEvents(job.Id)
	s.addTelemetry(v)
	return v
}

// recordsOf gives what the state alone knows of a job, but for its events.
func recordsOf(st *state.State, job *pb.Job) *pb.JobView {
	v := &pb.JobView{Job: job, Index: st.Index(), Attempt: st.Attempt(job.Id, job.Epoch)}
	for task := range st.JobTasks(job.Id, job.Epoch) {
		v.Tasks = append(v.Tasks, task)
		if a := st.Allocation(task.Id); a != nil {
			v.Allocations = append(v.Allocations, a)
		}
	}
	return v
}

// addTelemetry fills what is not in the state.
func (s *cluster) addTelemetry(v *pb.JobView) {
	switch v.Job.State {
	case pb.JobState_JOB_STATE_PENDING:
		why := s.waiting(v.Job)
		v.WaitingReason, v.ExpectedStartMs = why.GetReason(), why.GetExpectedStartMs()
	case pb.JobState_JOB_STATE_SCHEDULED:
		v.ExpectedStartMs = s.nextCopy(v.Job)
	case pb.JobState_JOB_STATE_RUNNING, pb.JobState_JOB_STATE_STOPPING:
		v.Progress, v.ExpectedEndMs = s.b.Progress(v.Job.Id), s.b.ExpectedEnd(v.Job.Id)
		v.Stalls = s.b.Stalls(v.Job.Id)
	}
}

// ListJobs gives jobs in the order in which they were submitted, a page at a time.
func (s *cluster) ListJobs(ctx context.Context, req *pb.ListJobsRequest) (*pb.ListJobsResponse, error) {
	if req.GetLimit() < 0 {
		return nil, fault.New(pb.ErrorKind_ERROR_KIND_INVALID, "%d is not a number of jobs", req.GetLimit()).At("limit", 0)
	}
	limit := int(req.GetLimit())
	if limit == 0 || limit > listMax {
		limit = listMax
	}
	st, err := s.state(ctx, req.GetStale())
	if err != nil {
		return nil, err
	}
	var after *pb.Job
	if req.GetAfter() != "" {
		if after = st.Job(req.GetAfter()); after == nil {
			return nil, fault.New(pb.ErrorKind_ERROR_KIND_NOT_FOUND, "job %q, behind which the list was to go on, has been forgotten", req.GetAfter()).
				Hint("list from the beginning").At("after", 0)
		}
	}
	jobs := st.UnfinishedJobs()
	if req.GetAll() {
		jobs = st.Jobs()
	}
	page := &pb.ListJobsResponse{Index: st.Index()}
	size, reasons := 0, 0
	for job := range jobs {
		if after != nil && !submittedBefore(after, job) {
			continue
		}
		if len(page.Jobs) == limit || size > pageBytesMax {
			page.More = true
			break
		}
		v := recordsOf(st, job)
		if job.State == pb.JobState_JOB_STATE_PENDING {
			reasons++
		}
		if reasons <= pageReasonsMax || job.State != pb.JobState_JOB_STATE_PENDING {
			s.addTelemetry(v)
		}
		size += proto.Size(v)
		page.Jobs = append(page.Jobs, v)
	}
	return page, nil
}

func submittedBefore(a, b *pb.Job) bool {
	if a.SubmitIndex != b.SubmitIndex {
		return a.SubmitIndex < b.SubmitIndex
	}
	return a.SubmitOrdinal < b.SubmitOrdinal
}

// StopJob asks for the end of a job. Stopping a finished job changes nothing.
func (s *cluster) StopJob(ctx context.Context, req *pb.StopJobRequest) (*pb.StopJobResponse, error) {
	if err := checkName("reason", req.GetReason(), reasonMax); err != nil {
		return nil, err
	}
	st, err := s.b.Read(ctx)
	if err != nil {
		return nil, err
	}
	job, err := findJob(st, req.GetJobId())
	if err != nil {
		return nil, err
	}
	res, err := s.propose(ctx, &pb.Command{Op: &pb.Command_StopJob{StopJob: &pb.StopJob{
		JobId: job.Id, User: userOf(ctx), Reason: req.GetReason(),
	}}})
	if err != nil {
		return nil, err
	}
	return &pb.StopJobResponse{JobId: job.Id, Index: res.Index}, nil
}
