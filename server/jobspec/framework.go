package jobspec

import (
	"path"
	"slices"
	"strings"

	pb "llmos/proto/llmos/v1"
)

// frameworks are the words of a job file, in the order of the documentation.
var frameworks = []struct {
	word string
	is   pb.Framework
}{
	{"pytorch", pb.Framework_FRAMEWORK_PYTORCH}, {"tensorflow", pb.Framework_FRAMEWORK_TENSORFLOW}, {"jax", pb.Framework_FRAMEWORK_JAX},
	{"mpi", pb.Framework_FRAMEWORK_MPI}, {"none", pb.Framework_FRAMEWORK_NONE},
}

// frameworkMeant are other words for the same.
var frameworkMeant = map[string]string{"torch": "pytorch", "torchrun": "pytorch", "ddp": "pytorch", "tf": "tensorflow", "keras": "tensorflow",
	"flax": "jax", "openmpi": "mpi", "mpirun": "mpi", "mpi4py": "mpi", "horovod": "mpi", "plain": "none", "off": "none"}

// tensorflowRoles are the task types of TF_CONFIG.
var tensorflowRoles = []string{"chief", "worker", "ps", "evaluator"}

// ParseFramework reads the name of a framework.
func ParseFramework(text string) (pb.Framework, error) {
	known := make([]string, len(frameworks))
	for i, f := range frameworks {
		if f.word == text {
			return f.is, nil
		}
		known[i] = f.word
	}
	lower := strings.ToLower(strings.TrimSpace(text))
	meant := frameworkMeant[lower]
	if meant == "" {
		meant, _ = suggest(lower, known)
	}
	if meant != "" {
		return 0, invalid("%s is not a framework; did you mean %s?", quoted(text), meant)
	}
	return 0, invalid("%s is not a framework that llmos knows", quoted(text)).
		Hint("write pytorch, tensorflow, jax, mpi or none; with none the ranks find RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT")
}

// FrameworkWord names a framework as a job file does; empty when none was named.
func FrameworkWord(is pb.Framework) string {
	for _, f := range frameworks {
		if f.is == is {
			return f.word
		}
	}
	return ""
}

func (d *decoder) framework(into *pb.Framework) func(*node, string) {
	return func(n *node, field string) {
		var word string
		d.text(&word)(n, field)
		if n.shape != text {
			return
		}
		is, err := ParseFramework(word)
		if err != nil {
			d.at(n, field, err)
		}
		*into = is
	}
}

// Complete adds what a spec leaves to be understood: the framework of a command that can be of
// no other, and the port by which the ranks of TensorFlow and MPI find each other, which is
// named after the framework. A complete spec stays as it is.
func Complete(spec *pb.JobSpec) {
	if spec.GetFramework() == pb.Framework_FRAMEWORK_UNSPECIFIED && usesTorchrun(spec) {
		spec.Framework = pb.Framework_FRAMEWORK_PYTORCH
	}
	switch spec.GetFramework() {
	case pb.Framework_FRAMEWORK_TENSORFLOW, pb.Framework_FRAMEWORK_MPI:
		port := FrameworkWord(spec.Framework)
		for _, r := range spec.GetRoles() {
			if r != nil && !slices.Contains(r.Ports, port) {
				r.Ports = append(r.Ports, port)
			}
		}
	}
}

// usesTorchrun reports whether every role starts torchrun: by its name, or as a module.
func usesTorchrun(spec *pb.JobSpec) bool {
	for _, r := range spec.GetRoles() {
		words := r.GetCommand()
		if len(words) == 0 {
			return false
		}
		module := slices.Index(words, "-m")
		if path.Base(words[0]) != "torchrun" && (module < 0 || module+1 >= len(words) || words[module+1] != "torch.distributed.run") {
			return false
		}
	}
	return len(spec.GetRoles()) > 0
}

func (c *checker) framework(s *pb.JobSpec) {
	switch s.Framework {
	case pb.Framework_FRAMEWORK_UNSPECIFIED:
	case pb.Framework_FRAMEWORK_TENSORFLOW:
		for _, r := range s.Roles {
			if r != nil && isName(r.Name) && !slices.Contains(tensorflowRoles, r.Name) {
				c.add("framework", "TensorFlow knows no role %s", r.Name).Hint("name the roles chief, worker, ps and evaluator, as in TF_CONFIG")
				return
			}
		}
	case pb.Framework_FRAMEWORK_MPI:
		if len(s.Roles) > 1 {
			c.add("framework", "the job has %d roles, and mpirun starts one program", len(s.Roles)).Hint("keep one role, and let the program look at its rank")
		}
	default:
		if FrameworkWord(s.Framework) == "" {
			c.add("framework", "framework %d is not supported by this version", s.Framework).Hint("use pytorch, tensorflow, jax, mpi or none")
		}
	}
}
