package jobspec

import (
	"fmt"
	"slices"
	"strings"

	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
)

// File is a job file that has been read. Its spec passes Validate.
type File struct {
	Name string // as given
	Spec *pb.JobSpec

	d *decoder
}

// ParseFile reads a job file as Parse does and keeps where its fields stand. path is what
// Parse takes as the name, name what the user calls the file.
func ParseFile(name, path string, src []byte) (*File, error) {
	d := &decoder{file: path, lines: map[string]int{}}
	spec, err := d.parse(src)
	if err != nil {
		return nil, err
	}
	return &File{Name: name, Spec: spec, d: d}, nil
}

// Line gives the line of a field, or of the nearest that holds it; 0 when there is none.
func (f *File) Line(field string) int {
	if f.d.short {
		field = strings.TrimPrefix(field, "roles[0].")
	}
	return f.d.lineOf(field)
}

// JobName gives the name by which other files of a set call the file's job.
func (f *File) JobName() string { return f.Spec.GetName() + f.Spec.GetGenerateName() }

// SetFault is a fault of one file of a set.
type SetFault struct {
	File  string
	Fault *fault.Error // INVALID, with field and line
}

// Error gives the file and the fault.
func (f *SetFault) Error() string { return f.File + ": " + f.Fault.Error() }

// Unwrap gives the fault.
func (f *SetFault) Unwrap() error { return f.Fault }

// Order sorts job files so that each comes behind those of the set that it names in
// `after`, and else in the given order. needs lists, for each file of the result, the
// places in the result of the files that the entries of its `after` name, -1 where an entry
// names none of the set. A set in which jobs wait for each other, or in which a name that
// is waited for is given twice, is refused with a *SetFault.
func Order(files []*File) (sorted []*File, needs [][]int, err error) {
	byName := map[string]int{}
	twice := map[string]int{}
	for i, f := range files {
		if _, taken := byName[f.JobName()]; taken {
			twice[f.JobName()] = i
			continue
		}
		byName[f.JobName()] = i
	}
	waits := make([][]int, len(files)) // by place in files
	for i, f := range files {
		for k, dep := range f.Spec.After {
			at, inSet := byName[dep.Job]
			if second, ambiguous := twice[dep.Job]; ambiguous {
				return nil, nil, f.setFault(k, "%s is the job of %s and of %s", quoted(dep.Job), files[at].Name, files[second].Name).
					hint("give the jobs names of their own")
			}
			if !inSet {
				at = -1
			}
			waits[i] = append(waits[i], at)
		}
	}
	placed := make([]int, len(files)) // place in the result + 1
	for len(sorted) < len(files) {
		next := slices.IndexFunc(files, func(f *File) bool {
			i := slices.Index(files, f)
			return placed[i] == 0 && !slices.ContainsFunc(waits[i], func(w int) bool { return w >= 0 && placed[w] == 0 })
		})
		if next < 0 {
			return nil, nil, cycleFault(files, waits, placed)
		}
		sorted = append(sorted, files[next])
		placed[next] = len(sorted)
		need := make([]int, len(waits[next]))
		for k, w := range waits[next] {
			need[k] = -1
			if w >= 0 {
				need[k] = placed[w] - 1
			}
		}
		needs = append(needs, need)
	}
	return sorted, needs, nil
}

func (f *File) setFault(dep int, format string, args ...any) *SetFault {
	field := fmt.Sprintf("after[%d]", dep)
	return &SetFault{File: f.Name, Fault: invalid(format, args...).At(field, f.Line(field))}
}

func (f *SetFault) hint(text string) *SetFault {
	f.Fault.Hint("%s", text)
	return f
}

// cycleFault follows what is not placed until it meets itself.
func cycleFault(files []*File, waits [][]int, placed []int) *SetFault {
	at := slices.Index(placed, 0)
	var path []int
	for !slices.Contains(path, at) {
		path = append(path, at)
		k := slices.IndexFunc(waits[at], func(w int) bool { return w >= 0 && placed[w] == 0 })
		at = waits[at][k]
	}
	path = path[slices.Index(path, at):]
	first := path[0]
	k := slices.IndexFunc(waits[first], func(w int) bool { return w >= 0 && placed[w] == 0 })
	if len(path) == 1 {
		return files[first].setFault(k, "the job waits for itself").hint("remove it, or name another job")
	}
	names := make([]string, 0, len(path)+1)
	for _, i := range append(path, first) {
		names = append(names, files[i].JobName())
	}
	return files[first].setFault(k, "these jobs wait for each other: %s", strings.Join(names, " after ")).hint("remove one of these from `after`")
}
