package jobspec

import (
	"fmt"
	"regexp"
	"strings"

	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
)

// schedule checks what says when a job runs and how long.
func (c *checker) schedule(s *pb.JobSpec) {
	c.after(s)
	c.copies(s)
	c.optionalDuration("time_limit", s.TimeLimitMs)
	c.optionalDuration("expected", s.ExpectedMs)
	c.optionalDuration("min_run", s.MinRunMs)
	c.optionalDuration("checkpoint.every", s.CheckpointEveryMs)
	if s.RestartMs != 0 {
		c.duration("checkpoint.restart", s.RestartMs, 1, DurationMSMax)
	}
	if s.RepairMs > 0 {
		c.duration("repair", s.RepairMs, 1, DurationMSMax)
	}
	if s.TimeLimitMs > 0 && s.ExpectedMs > s.TimeLimitMs {
		c.add("expected", "the job expects to run for %s, and its time_limit is %s", FormatDuration(s.ExpectedMs), FormatDuration(s.TimeLimitMs)).
			Hint("it would be stopped before it is done; raise time_limit")
	}
	if s.DeadlineMs < 0 {
		c.add("deadline", "%d is not a time", s.DeadlineMs).Hint("give Unix milliseconds; 0: none")
	}
	if s.Reservation != "" && !isName(s.Reservation) {
		c.add("reservation", "%s is not a reservation's name", quoted(s.Reservation)).Hint(nameHint)
	}
}

func (c *checker) optionalDuration(field string, ms int64) {
	if ms != 0 {
		c.duration(field, ms, DurationMSMin, DurationMSMax)
	}
}

func (c *checker) after(s *pb.JobSpec) {
	if len(s.After) > AfterMax {
		c.add("after", "the job waits for %d jobs, at most %d", len(s.After), AfterMax)
		return
	}
	seen := map[string]int{}
	for i, dep := range s.After {
		field := fmt.Sprintf("after[%d]", i)
		first, taken := seen[dep.GetJob()]
		switch {
		case dep.GetJob() == "":
			c.add(field, "the job to wait for has no name").Hint("write its name or its ID")
		case !isJob(dep.Job):
			c.add(field, "%s is neither a job's name nor an ID", quoted(dep.Job)).Hint("such as prepare, or prepare-3")
		case dep.Job == s.Name:
			c.add(field, "the job waits for itself").Hint("name another job; llmos ps lists them")
		case taken:
			c.add(field, "%s is named twice, first in after[%d]", quoted(dep.Job), first).Hint("keep one")
		case dep.Kind < 0 || dep.Kind > pb.DependencyKind_DEPENDENCY_KIND_FAILED:
			c.add(field+".on", "condition %d is not known", dep.Kind).Hint("use ok, any or failed")
		}
		seen[dep.GetJob()] = i
	}
}

// jobPattern admits names and IDs: of jobs, and of copies such as sweep-3_17.
var jobPattern = regexp.MustCompile(`^[a-z][a-z0-9-]*(_[0-9]+)?$`)

func isJob(text string) bool { return len(text) <= 2*NameBytesMax && jobPattern.MatchString(text) }

// copies checks arrays and cron jobs.
func (c *checker) copies(s *pb.JobSpec) {
	if a := s.Array; a != nil {
		if a.Count < 1 || a.Count > ArrayCountMax {
			c.add("array.count", "an array of %d copies is out of range", a.Count).Hint("use a number from 1 to %d", ArrayCountMax)
		}
		if a.Parallel < 0 {
			c.add("array.parallel", "%d copies at a time are less than none", a.Parallel).Hint("leave it out for no bound")
		}
	}
	if s.Cron == nil {
		return
	}
	if _, err := CronTimes(s.Cron); err != nil {
		e := fault.From(err)
		c.faults = append(c.faults, e.At("cron."+e.Fault.Field, 0))
	}
	if o := s.Cron.Overlap; o < 0 || o > pb.CronOverlap_CRON_OVERLAP_REPLACE {
		c.add("cron.overlap", "overlap %d is not known", o).Hint("use skip, allow or replace")
	}
	if s.Array != nil {
		c.add("array", "a cron job starts one copy at a time, and cannot be an array").Hint("let a copy run an array's jobs, or submit the array by itself")
	}
	if len(s.After) > 0 {
		c.add("after", "a cron job starts by its schedule, and cannot wait for other jobs").Hint("leave after or cron out")
	}
	if s.DeadlineMs > 0 {
		c.add("deadline", "a deadline is one point in time, and a cron job runs again and again").Hint("use time_limit")
	}
}

// placement checks what narrows where a job runs.
func (c *checker) placement(p *pb.PlacementSpec) {
	if p == nil {
		return
	}
	if p.Where != nil {
		c.where("where", p.Where)
	}
	for _, domain := range []struct{ field, label string }{{"within", p.Within}, {"prefer_within", p.PreferWithin}, {"spread", p.Spread}} {
		if domain.label != "" && !isLabelName(domain.label) {
			c.add(domain.field, "%s is not a label's name", quoted(domain.label)).Hint("write node, rack, zone, or another label of the nodes")
		}
	}
	switch {
	case p.Within != "" && p.Within == p.Spread:
		c.add("spread", "the tasks cannot be within one %s and spread over several", p.Within).Hint("leave one out")
	case p.Spread == "" && p.SpreadSkew != 0:
		c.add("spread_skew", "spread_skew is given, and no spread").Hint("write spread: rack, or another label")
	case p.SpreadSkew < 0 || p.SpreadSkew > TasksMax:
		c.add("spread_skew", "%d is out of range", p.SpreadSkew).Hint("use a number from 1 to %d", TasksMax)
	}
	c.neighbours("near", p.Near)
	c.neighbours("apart", p.Apart)
	for i, name := range p.Apart {
		if contains(p.Near, name) {
			c.add(fmt.Sprintf("apart[%d]", i), "%s is in near, too", quoted(name)).Hint("keep one")
		}
	}
}

func (c *checker) neighbours(field string, names []string) {
	if len(names) > NeighboursMax {
		c.add(field, "%d jobs are named, at most %d", len(names), NeighboursMax)
		return
	}
	for i, name := range names {
		if !isName(name) {
			c.add(fmt.Sprintf("%s[%d]", field, i), "%s is not a job's name", quoted(name)).Hint(nameHint)
		}
	}
}

// span checks the counts of an elastic role.
func (c *checker) span(path string, r *pb.RoleSpec) {
	if r.CountMin < 0 || r.CountMin > r.Count {
		c.add(path+".count", "the least number of tasks, %d, is not from 1 to the most, %d", r.CountMin, r.Count).Hint("write such as count: 2..8")
	}
}

// migPattern admits NVIDIA's profiles, such as 1g.10gb and 1g.5gb+me.
var migPattern = regexp.MustCompile(`^[1-9]g\.[0-9]{1,3}gb(\+[a-z.]{1,8})?$`)

// devices checks the fields of resources that say what kind of device a task gets.
func (c *checker) devices(path string, r *pb.Resources) {
	if r.GpuModel != "" {
		c.text(path+".gpu_model", r.GpuModel, NameBytesMax*2)
	}
	if len(r.GpuModels) > ModelsMax {
		c.add(path+".gpu_model", "the task names %d device models, at most %d", len(r.GpuModels), ModelsMax)
		return
	}
	for _, m := range r.GpuModels {
		if m == "" {
			c.add(path+".gpu_model", "a device model is empty").Hint("write such as A100-80GB|H100-80GB")
			break
		}
		c.text(path+".gpu_model", m, NameBytesMax*2)
	}
	models := r.GpuModel != "" || len(r.GpuModels) > 0
	switch {
	case r.GpuModel != "" && len(r.GpuModels) > 0:
		c.add(path+".gpu_model", "the task names one device model and a list of them").Hint("keep one")
	case r.GpuShareMilli > 0 && r.Gpus != 1:
		c.add(path+".gpu_share", "a share is of one device, and the task asks for %d", r.Gpus).Hint("set gpus to 1, or leave gpu_share out")
	case r.MigProfile != "" && r.GpuShareMilli > 0:
		c.add(path+".mig", "the task asks for MIG slices and for a share of a device").Hint("keep one: a slice is walled off by the hardware, a share is not")
	case r.MigProfile != "" && !migPattern.MatchString(strings.ToLower(r.MigProfile)):
		c.add(path+".mig", "%s is not a MIG profile", quoted(r.MigProfile)).Hint("write such as 1g.10gb; nvidia-smi mig -lgip lists them")
	case r.MigProfile != "" && r.GpuMemoryBytes > 0:
		c.add(path+".gpu_memory", "the size of a MIG slice is in its profile").Hint("leave gpu_memory out")
	case r.Gpus == 0 && r.MigProfile != "":
		c.add(path+".mig", "the task asks for MIG slices and for no device").Hint("set gpus to the number of slices")
	case r.Gpus == 0 && r.GpuMemoryBytes > 0:
		c.add(path+".gpu_memory", "the task asks for device memory and for no device").Hint("set gpus, or gpu_share for a part of one")
	case r.Gpus == 0 && models:
		c.add(path+".gpu_model", "the task asks for a device model and for no device").Hint("set gpus, or gpu_share for a part of one")
	case r.Gpus == 0 && r.Numa:
		c.add(path+".numa", "the task asks for devices on one NUMA node and for no device").Hint("set gpus")
	}
}
