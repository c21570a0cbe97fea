package main

import (
	"errors"
	"strings"

	"github.com/spf13/pflag"

	pb "llmos/proto/llmos/v1"
	"llmos/server/jobspec"
)

// specFlags describe a job of one role on the command line. Amounts are read when all flags
// are known, so that every fault is told at once.
type specFlags struct {
	name      string
	tasks     string
	gpus      string
	gpuModel  string
	gpuShare  string
	gpuMemory string
	cpu       string
	memory    string
	disk      string
	image     string
	env       []string
	workdir   string
	user      string
	retries   int32
	framework string
	terms     termFlags
}

// changedFlags is what specFlags asks of a flag set: whether a flag was given.
type changedFlags interface{ Changed(name string) bool }

func (s *specFlags) flags(f *pflag.FlagSet) {
	f.StringVar(&s.name, "name", "", "`NAME` of the job, unique among unfinished ones (default: made from the command)")
	f.StringVarP(&s.tasks, "tasks", "n", "1", "start `N` equal tasks together or not at all; 2..8 for as many as there is room for")
	f.StringVar(&s.gpus, "gpus", "", "`N` devices for each task; 2..8 alone for as many tasks of one device as there is room for")
	f.StringVar(&s.gpuModel, "gpu-model", "", "`MODEL` of the devices, such as H100-80GB, or A100-80GB|H100-80GB")
	f.StringVar(&s.gpuShare, "gpu-share", "", "`SHARE` of one device instead of whole ones, such as 0.25")
	f.StringVar(&s.gpuMemory, "gpu-memory", "", "`SIZE` of each device, such as 40Gi")
	f.StringVar(&s.cpu, "cpu", "", "`CORES` of each task, such as 2 or 500m")
	f.StringVar(&s.memory, "memory", "", "`SIZE` of each task, such as 4Gi")
	f.StringVar(&s.disk, "disk", "", "`SIZE` of each task's private folders, such as 10Gi (default: no limit)")
	f.StringVar(&s.image, "image", "", "run in a container of `IMAGE`, best with its digest")
	f.StringArrayVarP(&s.env, "env", "e", nil, "set a variable, `NAME=VALUE`; NAME alone takes its value from here")
	f.StringVar(&s.workdir, "workdir", "", "working `FOLDER` on the node, or in the image (default: the present one)")
	f.StringVar(&s.user, "user", "", "`USER` of the node to run as (default: the agent's task user)")
	f.Int32Var(&s.retries, "retries", 0, "how often (`N`) the job is started again after a failure")
	f.StringVar(&s.framework, "framework", "", "how the ranks find each other: pytorch, tensorflow, jax, mpi or none")
	s.terms.flags(f)
}

// commandFlags are those that only a command behind -- takes; the others may be given with
// a job file and then count more.
var commandFlags = []string{"tasks", "gpus", "gpu-model", "gpu-share", "gpu-memory", "cpu", "memory", "disk", "image", "env", "workdir", "user"}

// commandOnly gives the first flag that was given and that a job file does not take.
func (s *specFlags) commandOnly(set changedFlags) string {
	for _, name := range commandFlags {
		if set.Changed(name) {
			return name
		}
	}
	return ""
}

// override puts what was given beside a job file into its spec.
func (s *specFlags) override(a *app, set changedFlags, spec *pb.JobSpec) jobspec.Faults {
	if set.Changed("name") {
		spec.Name, spec.GenerateName = s.name, ""
	}
	if set.Changed("retries") {
		spec.Retries = s.retries
	}
	faults := s.terms.apply(a, set, spec)
	if set.Changed("framework") {
		framework, err := jobspec.ParseFramework(s.framework)
		if err != nil {
			faults = append(faults, atField(err, "framework"))
		}
		spec.Framework = framework
	}
	jobspec.Complete(spec)
	return faults
}

// commandSpec makes the spec of a command behind --.
func (a *app) commandSpec(set changedFlags, s *specFlags, command []string) (*pb.JobSpec, error) {
	role, faults := s.role(set)
	env, missing := a.variables(s.env)
	faults = append(faults, missing...)
	workdir, err := a.absolute(s.workdir)
	switch {
	case s.workdir == "" && s.image != "":
		workdir, err = "", nil
	case s.workdir == "":
		workdir, err = a.getwd()
	}
	if err != nil {
		return nil, invalid("the working directory cannot be read: %w", err)
	}
	role.Command, role.Env, role.Workdir, role.User, role.Image = command, env, workdir, s.user, s.image
	spec := &pb.JobSpec{Name: s.name, Kind: pb.JobKind_JOB_KIND_BATCH, Priority: jobspec.PriorityDefault, Retries: s.retries, Roles: []*pb.RoleSpec{role}}
	if s.name == "" && !set.Changed("name") {
		spec.GenerateName = jobspec.NameFor(command)
	}
	faults = append(faults, s.override(a, set, spec)...)
	var more jobspec.Faults
	if errors.As(jobspec.Validate(spec), &more) {
		faults = merge(faults, more)
	}
	if len(faults) > 0 {
		return nil, &specFaults{faults: faults}
	}
	return spec, nil
}

// role reads how many tasks there are and what each gets.
func (s *specFlags) role(set changedFlags) (*pb.RoleSpec, jobspec.Faults) {
	r := &pb.RoleSpec{Name: jobspec.RoleNameDefault, Count: 1}
	resources, faults := s.resources()
	r.Resources = resources
	low, high, err := jobspec.ParseSpan(s.tasks)
	if err != nil {
		faults = append(faults, atField(err, "roles[0].count"))
	}
	if r.Count = high; low < high {
		r.CountMin = low
	}
	if s.gpus == "" {
		return r, faults
	}
	low, high, err = jobspec.ParseSpan(s.gpus)
	switch {
	case err != nil:
		faults = append(faults, atField(err, "roles[0].resources.gpus"))
	case low == high:
		resources.Gpus = high
	case set.Changed("tasks"):
		faults = append(faults, invalid("%s is short for as many tasks of one device each, and --tasks gives their number", s.gpus).
			Hint("write --tasks %s --gpus 1, or leave --tasks out", s.gpus).At("roles[0].resources.gpus", 0))
	default:
		r.CountMin, r.Count, resources.Gpus = low, high, 1
	}
	return r, faults
}

// resources reads the flags with units; their faults have the spec's field names.
func (s *specFlags) resources() (r *pb.Resources, faults jobspec.Faults) {
	r = &pb.Resources{}
	if s.gpuModel != "" {
		jobspec.SetModels(r, strings.Split(s.gpuModel, "|"))
	}
	share := int64(0)
	for _, amount := range []struct {
		text, field string
		parse       func(string) (int64, error)
		into        *int64
	}{
		{s.cpu, "cpu", jobspec.ParseCPU, &r.CpuMilli},
		{s.memory, "memory", jobspec.ParseBytes, &r.MemoryBytes},
		{s.disk, "disk", jobspec.ParseBytes, &r.DiskBytes},
		{s.gpuMemory, "gpu_memory", jobspec.ParseBytes, &r.GpuMemoryBytes},
		{s.gpuShare, "gpu_share", jobspec.ParseShare, &share},
	} {
		if amount.text == "" {
			continue
		}
		v, err := amount.parse(amount.text)
		if err != nil {
			faults = append(faults, atField(err, "roles[0].resources."+amount.field))
		}
		*amount.into = v
	}
	if r.GpuShareMilli = int32(share); share > 0 && s.gpus == "" {
		r.Gpus = 1
	}
	return r, faults
}

// variables reads -e NAME=VALUE and -e NAME.
func (a *app) variables(given []string) (env map[string]string, faults jobspec.Faults) {
	env = make(map[string]string, len(given))
	for _, v := range given {
		name, value, assigned := strings.Cut(v, "=")
		if !assigned {
			var set bool
			if value, set = a.getenv(name); !set {
				faults = append(faults, invalid("the variable %q is not set here", name).Hint("write --env %s=VALUE", name).At("roles[0].env", 0))
				continue
			}
		}
		env[name] = value
	}
	return env, faults
}
