package fsm

import (
	"fmt"
	"strings"

	"llmos/fsm/state"
	pb "llmos/proto/llmos/v1"
)

// checkSpec checks what the state machine itself relies on: names that can be keys, roles that
// can be counted, amounts that cannot overflow. server/jobspec checks the rest before.
func checkSpec(s *pb.JobSpec) *pb.Fault {
	if s == nil {
		return invalid("spec", "there is no job spec")
	}
	switch {
	case s.Name != "" && s.GenerateName != "":
		return invalid("generate_name", "the job has a name and a generate_name")
	case s.Name == "" && s.GenerateName == "":
		return invalid("name", "the job has no name")
	case !validName(state.JobName(s)):
		return invalid("name", "%q cannot be a job's name", cut(state.JobName(s)))
	case s.Kind != pb.JobKind_JOB_KIND_UNSPECIFIED && s.Kind != pb.JobKind_JOB_KIND_BATCH:
		return invalid("kind", "kind %d is not supported by this version", s.Kind)
	case s.Queue != "" && !state.ValidID(s.Queue):
		return invalid("queue", "%q cannot be a queue's name", cut(s.Queue))
	case s.Priority < 0 || s.Priority > priorityMax:
		return invalid("priority", "priority %d is not one of 0 to %d", s.Priority, priorityMax)
	case s.Retries < 0 || s.Retries > retriesMax:
		return invalid("retries", "%d retries are not 0 to %d", s.Retries, retriesMax)
	case !quantity(s.LostAfterMs):
		return invalid("lost_after", "%d ms cannot be waited", s.LostAfterMs)
	case len(s.Roles) == 0:
		return invalid("roles", "the job has no role, so nothing to run")
	case len(s.Roles) > rolesMax:
		return invalid("roles", "the job has %d roles, at most %d", len(s.Roles), rolesMax)
	}
	tasks := int64(0)
	seen := make(map[string]bool, len(s.Roles))
	for i, role := range s.Roles {
		if f := checkRole(i, role, seen); f != nil {
			return f
		}
		tasks += int64(role.Count)
	}
	if tasks > tasksMax {
		return invalid("roles", "the job has %d tasks, at most %d", tasks, tasksMax)
	}
	return nil
}

// nameBytesMax leaves room for the sequence, epoch and rank of a task's ID.
const nameBytesMax = 64

// validName says whether a job or role can be called so: the characters of an ID but for the
// dot, which parts a task's ID, and the slash.
func validName(name string) bool {
	return len(name) <= nameBytesMax && state.ValidID(name) && !strings.ContainsAny(name, "./")
}

func checkRole(i int, role *pb.RoleSpec, seen map[string]bool) *pb.Fault {
	path := fmt.Sprintf("roles[%d]", i)
	switch {
	case !validName(role.GetName()):
		return invalid(path+".name", "%q cannot be a role's name", cut(role.GetName()))
	case seen[role.Name]:
		return invalid(path+".name", "two roles are called %q", role.Name)
	case role.Count < 1 || role.Count > tasksMax:
		return invalid(path+".count", "a role of %d tasks is not possible, 1 to %d are", role.Count, tasksMax)
	case role.CountMin < 0 || role.CountMin > role.Count:
		return invalid(path+".count_min", "at least %d of %d tasks are not possible", role.CountMin, role.Count)
	case len(role.Ports) > portsMax:
		return invalid(path+".ports", "the role has %d ports, at most %d", len(role.Ports), portsMax)
	}
	seen[role.Name] = true
	r := role.Resources
	path += ".resources"
	switch {
	case !quantity(r.GetCpuMilli()):
		return invalid(path+".cpu", "%d millicores are not possible", r.GetCpuMilli())
	case !quantity(r.GetMemoryBytes()):
		return invalid(path+".memory", "%d bytes are not possible", r.GetMemoryBytes())
	case r.GetGpus() < 0 || r.GetGpus() > devicesMax:
		return invalid(path+".gpus", "%d devices are not possible, at most %d", r.GetGpus(), devicesMax)
	case !quantity(r.GetGpuMemoryBytes()):
		return invalid(path+".gpu_memory", "%d bytes are not possible", r.GetGpuMemoryBytes())
	case r.GetGpuShareMilli() < 0 || r.GetGpuShareMilli() >= DeviceShareWhole:
		return invalid(path+".gpu_share", "a share of %d thousandths is not possible, 1 to 999 are", r.GetGpuShareMilli())
	case len(r.GetMigProfile()) > state.IDBytesMax || r.GetMigProfile() != "" && r.GetGpuShareMilli() > 0:
		return invalid(path+".mig_profile", "a share of a MIG slice of profile %q is not possible", cut(r.GetMigProfile()))
	case len(r.GetGpuModels()) > modelsMax:
		return invalid(path+".gpu_models", "%d models are named, at most %d", len(r.GetGpuModels()), modelsMax)
	case r.GetGpuShareMilli() > 0 && r.GetGpus() != 1:
		return invalid(path+".gpu_share", "a share is of one device, and the task asks for %d", r.GetGpus())
	}
	return nil
}
