// Package forecast fits how the demand of a job grows with its training time T, one straight
// line per resource, on line: compute C = C0 + a*T, data D = D0 + b*T (disk, host memory,
// device memory) and scheduling work R = R0 + g*T. Each fit is recursive least squares with
// forgetting; it detects changes of phase, tests its slope, and predicts with an interval.
// On the fits stand the decisions: Admits (area admission), Exhaustion (what runs out, when,
// and whom to move), ChanceSum (over-commitment at a stated risk) and Batch (the size of the
// controller's passes).
//
// The package is pure: times are arguments, in seconds on one clock of the caller's. It
// collects no samples and moves no job. The controller, server/api and `llmos forecast` call
// it. Where a slope is not significant the level is predicted, flat: at a fixed batch size
// most resources of a training job do not grow, and a line through noise must not say so.
package forecast

// Resource is what a series measures.
type Resource int

// The resources of the mission's three models.
const (
	CPU          Resource = iota // C: cores in use
	HostMemory                   // D: bytes
	DeviceMemory                 // D: bytes of all devices of the job
	Disk                         // D: bytes
	Scheduling                   // R: work of the scheduler for the job, in the caller's unit
	resources
)

// resourceNames are the words of the command line and of sample files.
var resourceNames = [resources]string{"cpu", "memory", "gpu_memory", "disk", "scheduling"}

// String gives the resource's word: cpu, memory, gpu_memory, disk or scheduling.
func (r Resource) String() string {
	if r < 0 || r >= resources {
		return "unknown"
	}
	return resourceNames[r]
}

// ParseResource gives the resource of a word; false when there is none.
func ParseResource(word string) (Resource, bool) {
	for r, name := range resourceNames {
		if name == word {
			return Resource(r), true
		}
	}
	return 0, false
}

// Resources lists every resource in its fixed order.
func Resources() []Resource {
	out := make([]Resource, resources)
	for i := range out {
		out[i] = Resource(i)
	}
	return out
}

// Job holds the series of one job. The zero value is ready.
type Job struct{ series [resources]Series }

// Of gives the series of a resource, for observing and predicting; r is one of the constants.
func (j *Job) Of(r Resource) *Series { return &j.series[r] }

// Interval is a prediction: the mean, the bounds that one value in a hundred passes on each
// side, and the standard deviation that they were made from. Demands are never negative.
type Interval struct {
	Mean, Lo, Hi float64
	Sigma        float64
}

// quantile99 is the 99 % quantile of the standard normal distribution.
const quantile99 = 2.326

func interval(mean, sigma float64) Interval {
	return Interval{Mean: max(mean, 0), Lo: max(mean-quantile99*sigma, 0), Hi: max(mean+quantile99*sigma, 0), Sigma: sigma}
}
