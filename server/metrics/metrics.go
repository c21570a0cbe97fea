// Package metrics shows a server's figures to Prometheus. Each server tells of itself; the
// leader alone tells of the cluster, its jobs and their tasks, so that a sum over servers counts
// nothing twice. Everything is read from the state and the telemetry when it is asked for, and
// nothing is counted between. It does not listen: package server does.
package metrics

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"llmos/fsm/state"
	pb "llmos/proto/llmos/v1"
)

// Source is what a server knows.
type Source interface {
	// Stale gives this server's own state.
	Stale() *state.State
	// Progress and Stalls give what a job's tasks said; from the leader alone.
	Progress(jobID string) []*pb.Progress
	Stalls(jobID string) []*pb.Stall
	// Standing is this server's place among the servers.
	Standing() Standing
}

// Standing is a server's place in Raft.
type Standing struct {
	ServerID, Version     string
	Leads                 bool
	Term, Commit, Applied uint64
	NowMS                 int64 // Unix milliseconds
}

// Bounds of what one look may give. What lies beyond them is left out and counted by
// llmos_tasks_left_out.
const (
	tasksMax  = 10_000
	valuesMax = 8 // of one job
)

// Handler serves the figures at any path.
func Handler(src Source) http.Handler {
	r := prometheus.NewRegistry()
	r.MustRegister(&collector{src}, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return promhttp.HandlerFor(r, promhttp.HandlerOpts{MaxRequestsInFlight: 4})
}

// desc declares one figure.
func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("llmos_"+name, help, labels, nil)
}

// All figures, in one place. Units are in the names.
var (
	serverInfo    = desc("server_info", "1, with the server's ID and version.", "server", "version")
	serverLeads   = desc("server_leads", "1 on the leader.")
	serverTerm    = desc("server_raft_term", "Raft's term.")
	serverCommit  = desc("server_commit_index", "Index of the newest committed log entry.")
	serverApplied = desc("server_applied_index", "Index of the newest applied log entry.")

	nodes       = desc("nodes", "Nodes by state.", "state")
	devices     = desc("devices", "Devices, shares of them in part, by model and whether they are free, held or unavailable.", "model", "state")
	cpuCores    = desc("cpu_cores", "CPU cores of all nodes.", "state")
	memoryBytes = desc("memory_bytes", "Memory of all nodes.", "state")

	jobs       = desc("jobs", "Unfinished jobs by queue and state.", "queue", "state")
	oldest     = desc("oldest_pending_seconds", "How long the job has waited that has waited longest.", "queue")
	queueHolds = desc("queue_devices_held", "Devices that a queue's jobs hold.", "queue")

	jobStep    = desc("job_step", "Newest step that a running job has told.", "job", "queue")
	jobSteps   = desc("job_steps", "Steps that a running job says it will make.", "job", "queue")
	jobValue   = desc("job_value", "Newest value that a running job has told, such as loss or tokens_per_s.", "job", "queue", "name")
	jobStalled = desc("job_stalled_ranks", "Ranks of a running job that make no progress.", "job", "queue")

	taskCPU       = desc("task_cpu_cores", "CPU cores that a task uses.", taskLabels...)
	taskMemory    = desc("task_memory_bytes", "Memory that a task holds, without the file cache.", taskLabels...)
	taskDisk      = desc("task_disk_bytes", "What lies in a task's private folders.", taskLabels...)
	taskGPUMemory = desc("task_gpu_memory_bytes", "Device memory that a task holds.", taskLabels...)
	taskGPUUse    = desc("task_gpu_utilisation_ratio", "How busy a task's whole devices are, on average, 0 to 1.", taskLabels...)
	tasksLeftOut  = desc("tasks_left_out", "Running tasks beyond the bound of one look.")
)

var taskLabels = []string{"job", "rank", "node", "queue"}

// collector reads everything when it is asked for.
type collector struct{ src Source }

// Describe leaves the figures unchecked: which there are depends on who leads.
func (c *collector) Describe(chan<- *prometheus.Desc) {}

// Collect gives all figures of now.
func (c *collector) Collect(out chan<- prometheus.Metric) {
	look := look{st: c.src.Stale(), src: c.src, out: out}
	at := c.src.Standing()
	look.standing(at)
	if at.Leads {
		look.nodes()
		look.jobs(at.NowMS)
	}
}
