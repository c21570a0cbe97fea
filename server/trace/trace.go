// Package trace reads recorded workloads as plain values: the jobs of the public traces
// openb, Philly and Pollux, those of llmos itself (llmos history export), and lists of
// nodes in openb's form or as a shape such as 64x8xH100-80GB. The header of a file says
// which format it is.
//
// It reads streams and opens no files, keeps to stated bounds, and refuses what is not as
// the format says with the file, the line and the column. It does not schedule anything:
// server/simulate replays what is read here, and the benchmarks read the same way.
package trace

import (
	"cmp"
	"fmt"
	"io"
	"slices"
)

// Format is the form of a file of jobs.
type Format int

// The formats. Their columns are in README.md beside the traces and in the readers' comments.
const (
	FormatOpenb Format = iota + 1
	FormatPhilly
	FormatPollux
	FormatHistory
)

// String gives the format's name for people.
func (f Format) String() string {
	switch f {
	case FormatOpenb:
		return "openb"
	case FormatPhilly:
		return "Philly"
	case FormatPollux:
		return "Pollux"
	case FormatHistory:
		return "llmos history"
	}
	return fmt.Sprintf("format %d", int(f))
}

// Bounds of a file.
const (
	RowsMax      = 5_000_000   // jobs or nodes
	lineBytesMax = 1 << 16     // of one line
	columnsMax   = 64          // of one line
	textBytesMax = 256         // of a name
	secondsMax   = 100_000_000 // of a time relative to the first, and of a duration; about three years
	gpusMax      = 100_000     // of a job or a node
	milliMax     = 1 << 40     // of millicores
	bytesMax     = 1 << 56     // of memory
)

// Job is one recorded job. Times are milliseconds; those of Submit, Start and End count from
// the file's own origin, so that only their differences mean something.
type Job struct {
	Name  string
	User  string // who submitted it; empty when the format does not say
	Queue string // the virtual cluster of Philly, the queue of llmos; empty when the format does not say

	Submit   int64 // ms
	Duration int64 // ms of work on what it asks for, at least 1
	Start    int64 // ms; history alone, else 0
	End      int64 // ms; history alone, else 0

	Tasks       int      // at least 1
	GPUs        int      // whole devices of each task, or 1 when GPUMilli is below 1000
	GPUMilli    int      // of each device, 1 to 1000; 0 when GPUs is 0
	CPUMilli    int64    // of each task
	MemoryBytes int64    // of each task
	Models      []string // device models that it may use, ascending; empty: any

	State    string // history alone: how it ended
	Attempts int    // history alone: how often it was placed
}

// Width is the number of devices that the job holds while it runs, whole or in part.
func (j *Job) Width() int { return j.Tasks * j.GPUs }

// Trace is the jobs of one file, by submit time and then by their place in the file.
type Trace struct {
	Format Format
	Jobs   []Job
}

// Read reads the jobs of a file whose name is used in errors alone. Every error is a
// *fault.Error of kind INVALID with the line and the column, or of kind LIMIT.
func Read(name string, r io.Reader) (*Trace, error) {
	head, rest, err := peekLine(name, r)
	if err != nil {
		return nil, err
	}
	if isJSON(head) {
		jobs, err := readHistoryLines(name, rest)
		return ordered(FormatHistory, jobs, err)
	}
	t, err := newTable(name, rest)
	if err != nil {
		return nil, err
	}
	for _, k := range kinds {
		if t.has(k.marks...) {
			jobs, err := k.read(t)
			return ordered(k.format, jobs, err)
		}
	}
	return nil, t.unknownHeader()
}

// kinds recognises the CSV formats by columns that only they have. The first match counts.
var kinds = []struct {
	format Format
	marks  []string
	read   func(*table) ([]Job, error)
}{
	{FormatHistory, []string{"id", "submit"}, readHistory},
	{FormatOpenb, []string{"num_gpu", "gpu_milli"}, readOpenb},
	{FormatPhilly, []string{"timestamp", "num_gpus"}, readPhilly},
	{FormatPollux, []string{"application"}, readPollux},
}

func ordered(f Format, jobs []Job, err error) (*Trace, error) {
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(jobs, func(a, b Job) int { return cmp.Compare(a.Submit, b.Submit) })
	return &Trace{Format: f, Jobs: jobs}, nil
}
