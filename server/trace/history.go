package trace

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"

	"llmos/proto/fault"
)

// Record is one finished job as llmos history export writes it: a line of JSON, or a row of
// CSV whose columns have the same names. Times are seconds since 1970, with milliseconds.
type Record struct {
	ID          string  `json:"id"`
	User        string  `json:"user"`
	Queue       string  `json:"queue"`
	Submit      float64 `json:"submit"`
	Start       float64 `json:"start"` // 0: it never ran
	End         float64 `json:"end"`
	Run         float64 `json:"run"` // seconds for which it ran, over all attempts; 0: end - start
	Tasks       int     `json:"tasks"`
	GPUs        int     `json:"gpus"` // of each task
	CPUMilli    int64   `json:"cpu_milli"`
	MemoryBytes int64   `json:"memory_bytes"`
	Share       int     `json:"share"` // thousandths of each device
	Model       string  `json:"model"`
	State       string  `json:"state"`
	Attempts    int     `json:"attempts"`
}

// historyColumns are those of CSV, in the order in which they are written.
var historyColumns = []string{"id", "user", "queue", "submit", "start", "end", "tasks", "gpus", "run", "cpu_milli",
	"memory_bytes", "share", "model", "state", "attempts"}

// WriteHistory writes records as lines of JSON, or as CSV.
func WriteHistory(w io.Writer, records []Record, asCSV bool) error {
	if !asCSV {
		e := json.NewEncoder(w)
		for i := range records {
			if err := e.Encode(&records[i]); err != nil {
				return fmt.Errorf("write job %s: %w", records[i].ID, err)
			}
		}
		return nil
	}
	out := csv.NewWriter(w)
	_ = out.Write(historyColumns) // Flush gives the error
	for i := range records {
		_ = out.Write(records[i].row())
	}
	out.Flush()
	if err := out.Error(); err != nil {
		return fmt.Errorf("write the history: %w", err)
	}
	return nil
}

func (r *Record) row() []string {
	seconds := func(f float64) string { return strconv.FormatFloat(f, 'f', 3, 64) }
	return []string{r.ID, r.User, r.Queue, seconds(r.Submit), seconds(r.Start), seconds(r.End), strconv.Itoa(r.Tasks),
		strconv.Itoa(r.GPUs), seconds(r.Run), strconv.FormatInt(r.CPUMilli, 10), strconv.FormatInt(r.MemoryBytes, 10), strconv.Itoa(r.Share),
		r.Model, r.State, strconv.Itoa(r.Attempts)}
}

func isJSON(head []byte) bool { return head[0] == '{' }

// readHistoryLines reads lines of JSON.
func readHistoryLines(name string, r *bufio.Reader) ([]Job, error) {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 0, 4096), lineBytesMax)
	var jobs []Job
	line := 0
	for lines.Scan() {
		line++
		text := bytes.TrimSpace(lines.Bytes())
		if len(text) == 0 {
			continue
		}
		if len(jobs) >= RowsMax {
			return nil, limit(name, line, "there are more than %d jobs", RowsMax).Hint("divide the file")
		}
		var rec Record
		if err := json.Unmarshal(text, &rec); err != nil {
			return nil, badJSON(name, line, err)
		}
		job, ran, err := rec.job(name, line)
		if err != nil {
			return nil, err
		}
		if ran {
			jobs = append(jobs, job)
		}
	}
	if errors.Is(lines.Err(), bufio.ErrTooLong) {
		return nil, limit(name, line+1, "the line is longer than %d bytes", lineBytesMax).Hint("each job has a line of its own")
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return fromFirst(jobs), nil
}

func badJSON(name string, line int, err error) error {
	var kind *json.UnmarshalTypeError
	if errors.As(err, &kind) {
		return invalid(name, line, kind.Field, "a JSON %s cannot be a %s", kind.Value, kind.Type).Hint("numbers go without quotation marks")
	}
	return invalid(name, line, "", "the line is not JSON: %v", err).Hint("each line is one object, as llmos history export writes them")
}

// readHistory reads CSV.
func readHistory(t *table) ([]Job, error) {
	if err := t.need(FormatHistory, historyColumns[:8]...); err != nil {
		return nil, err
	}
	var jobs []Job
	for {
		more, err := t.next()
		if err != nil || !more {
			return fromFirst(jobs), err
		}
		rec, err := t.record()
		if err != nil {
			return nil, err
		}
		job, ran, err := rec.job(t.name, t.line)
		if err != nil {
			return nil, err
		}
		if ran {
			jobs = append(jobs, job)
		}
	}
}

// record reads the row; columns that are absent or empty are zero.
func (t *table) record() (rec Record, err error) {
	for _, f := range []struct {
		column string
		to     *string
	}{{"id", &rec.ID}, {"user", &rec.User}, {"queue", &rec.Queue}, {"model", &rec.Model}, {"state", &rec.State}} {
		if *f.to, err = t.label(f.column); err != nil {
			return rec, err
		}
	}
	for _, f := range []struct {
		column string
		to     *float64
	}{{"submit", &rec.Submit}, {"start", &rec.Start}, {"end", &rec.End}, {"run", &rec.Run}} {
		if f.column == "run" && t.text("run") == "" {
			continue // an older file
		}
		if *f.to, err = strconv.ParseFloat(t.text(f.column), 64); err != nil {
			return rec, t.bad(f.column, "%s is not a number of seconds", quoted(t.text(f.column))).Hint("write it in digits, such as 1700000000.250")
		}
	}
	ints := []struct {
		column string
		to     *int64
	}{{"cpu_milli", &rec.CPUMilli}, {"memory_bytes", &rec.MemoryBytes}}
	var tasks, gpus, share, attempts int64
	for _, f := range append(ints, []struct {
		column string
		to     *int64
	}{{"tasks", &tasks}, {"gpus", &gpus}, {"share", &share}, {"attempts", &attempts}}...) {
		if t.text(f.column) == "" {
			continue
		}
		if *f.to, err = t.whole(f.column, math.MinInt32, bytesMax); err != nil {
			return rec, err
		}
	}
	rec.Tasks, rec.GPUs, rec.Share, rec.Attempts = int(tasks), int(gpus), int(share), int(attempts)
	return rec, nil
}

// epochMax bounds a time in seconds since 1970: the year 5138.
const epochMax = 1e11

// job checks a record and gives the job that repeats it; ran is false for one that never ran.
func (r *Record) job(name string, line int) (j Job, ran bool, err error) {
	bad := func(column, format string, args ...any) *fault.Error {
		return invalid(name, line, column, format, args...)
	}
	for _, f := range []struct {
		column string
		value  float64
	}{{"submit", r.Submit}, {"start", r.Start}, {"end", r.End}, {"run", r.Run}} {
		if !(f.value >= 0 && f.value <= epochMax) {
			return j, false, bad(f.column, "%v is no time", f.value).Hint("times are seconds since 1970, and never negative")
		}
	}
	for _, f := range []struct {
		column    string
		value     int64
		low, high int64
	}{{"tasks", int64(r.Tasks), 1, gpusMax}, {"gpus", int64(r.GPUs), 0, gpusMax}, {"cpu_milli", r.CPUMilli, 0, milliMax},
		{"memory_bytes", r.MemoryBytes, 0, bytesMax}, {"share", int64(r.Share), 0, 1000}, {"attempts", int64(r.Attempts), 0, math.MaxInt32}} {
		if f.value < f.low || f.value > f.high {
			return j, false, bad(f.column, "%d is not possible here", f.value).Hint("%d to %d are", f.low, f.high)
		}
	}
	switch {
	case r.ID == "" || len(r.ID) > textBytesMax:
		return j, false, bad("id", "%s is no job ID", quoted(r.ID)).Hint("each job has one, such as train-3")
	case r.Start == 0:
		return j, false, nil
	case r.Start < r.Submit:
		return j, false, bad("start", "the job starts %.3f s before it is submitted", r.Submit-r.Start).Hint("submit, start and end follow each other")
	case r.End < r.Start:
		return j, false, bad("end", "the job ends %.3f s before it starts", r.Start-r.End).Hint("submit, start and end follow each other")
	}
	ms := func(s float64) int64 { return int64(math.Round(s * 1000)) }
	j = Job{Name: r.ID, User: r.User, Queue: r.Queue, Submit: ms(r.Submit), Start: ms(r.Start), End: ms(r.End), Tasks: r.Tasks, GPUs: r.GPUs,
		CPUMilli: r.CPUMilli, MemoryBytes: r.MemoryBytes, Models: models(r.Model), State: r.State, Attempts: r.Attempts}
	j.Duration = max(1, j.End-j.Start)
	if run := ms(r.Run); run > 0 {
		if run > j.Duration {
			return j, false, bad("run", "the job ran %.3f s between a start and an end that are %.3f s apart", r.Run, r.End-r.Start).
				Hint("run is at most end - start")
		}
		j.Duration = run
	}
	j.GPUMilli = wholeMilli(r.GPUs)
	if r.GPUs > 0 && r.Share > 0 {
		j.GPUMilli = r.Share
	}
	return j, true, nil
}
