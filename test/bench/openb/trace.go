package main

import (
	"cmp"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	pb "llmos/proto/llmos/v1"

	"llmos/proto/fault"
	"llmos/server/scheduler/packing"
)

// The format is Alibaba's cluster-trace-gpu-v2023 (openb): a list of nodes and lists of
// pods, each a CSV file with a header. Columns are found by name; others are ignored.

// nodeFile is the list of nodes with GPUs.
const nodeFile = "openb_node_list_gpu_node.csv"

// rowsMax bounds the rows of one file.
const rowsMax = 1_000_000

// host is one node of the trace.
type host struct {
	name   string
	cpu    int64 // millicores
	memory int64 // MiB
	gpus   int
	model  int // interned
}

// pod is one request of the trace.
type pod struct {
	name    string
	shape   packing.Shape // memory in MiB
	created int64         // s; -1: the list has no times
	deleted int64
}

// trace is the cluster with the models interned.
type trace struct {
	models []string
	hosts  []host // by name
}

// list is one list of pods, in the order of the file.
type list struct {
	name  string
	pods  []pod
	times bool // it has creation and deletion times
}

// table reads a CSV file with a header and answers by column name.
type table struct {
	path    string
	columns map[string]int
	rows    [][]string
	lines   []int
}

func refuse(path string, line int, column, hint, format string, args ...any) error {
	return fmt.Errorf("%s: %w", path, fault.New(pb.ErrorKind_ERROR_KIND_INVALID, format, args...).At(column, line).Hint("%s", hint))
}

func readTable(path string, needed ...string) (*table, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("reading the trace: %w; OPENB=DIR names its folder, LISTS=a,b its lists", err)
	}
	defer f.Close()
	r := csv.NewReader(f)
	r.FieldsPerRecord = -1
	header, err := r.Read()
	if err != nil {
		return nil, refuse(path, 1, "", "the first line names the columns: "+strings.Join(needed, ","), "no header: %v", err)
	}
	t := &table{path: path, columns: map[string]int{}}
	for i, name := range header {
		t.columns[strings.TrimSpace(strings.TrimPrefix(name, "\ufeff"))] = i
	}
	for _, name := range needed {
		if _, ok := t.columns[name]; !ok {
			return nil, refuse(path, 1, name, "the file needs the columns "+strings.Join(needed, ","), "the column is missing")
		}
	}
	for {
		row, err := r.Read()
		if errors.Is(err, io.EOF) {
			return t, nil
		}
		var bad *csv.ParseError
		if errors.As(err, &bad) {
			return nil, refuse(path, bad.Line, "", "each line is one row of comma-separated values", "unreadable row: %v", bad.Err)
		} else if err != nil {
			return nil, fmt.Errorf("reading %s: %w", path, err)
		}
		line, _ := r.FieldPos(0)
		switch {
		case len(row) != len(header):
			return nil, refuse(path, line, "", fmt.Sprintf("the header has %d columns", len(header)), "the row has %d columns", len(row))
		case len(t.rows) >= rowsMax:
			return nil, refuse(path, line, "", "divide the list", "more than %d rows", rowsMax)
		}
		t.rows, t.lines = append(t.rows, row), append(t.lines, line)
	}
}

func (t *table) text(row int, column string) string {
	at, ok := t.columns[column]
	if !ok {
		return ""
	}
	return strings.TrimSpace(t.rows[row][at])
}

// number reads a whole number from 0 up; times in the traces may have a fraction of zero.
func (t *table) number(row int, column, unit string) (int64, error) {
	text := t.text(row, column)
	n, err := strconv.ParseInt(strings.TrimSuffix(text, ".0"), 10, 64)
	switch {
	case err != nil:
		return 0, refuse(t.path, t.lines[row], column, "write a whole number of "+unit, "%q is not a number", text)
	case n < 0:
		return 0, refuse(t.path, t.lines[row], column, unit+" are counted from 0 up", "%d is negative", n)
	}
	return n, nil
}

// numbers reads several columns of a row; the error is the first one's.
func (t *table) numbers(row int, columns, units []string) ([]int64, error) {
	values := make([]int64, len(columns))
	for i := range columns {
		n, err := t.number(row, columns[i], units[i])
		if err != nil {
			return nil, err
		}
		values[i] = n
	}
	return values, nil
}

// gpusMax bounds the devices of a node and of a pod.
const gpusMax = 64

func readNodes(folder string) (*trace, error) {
	columns := []string{"cpu_milli", "memory_mib", "gpu"}
	t, err := readTable(filepath.Join(folder, nodeFile), append([]string{"sn", "model"}, columns...)...)
	if err != nil {
		return nil, err
	}
	tr := &trace{}
	for row := range t.rows {
		n, err := t.numbers(row, columns, []string{"millicores", "MiB", "devices"})
		if err != nil {
			return nil, err
		}
		if n[2] > gpusMax {
			return nil, refuse(t.path, t.lines[row], "gpu", fmt.Sprintf("a node has at most %d", gpusMax), "%d devices", n[2])
		}
		tr.models = append(tr.models, t.text(row, "model"))
		tr.hosts = append(tr.hosts, host{name: t.text(row, "sn"), cpu: n[0], memory: n[1], gpus: int(n[2])})
	}
	if len(tr.hosts) == 0 {
		return nil, refuse(t.path, 1, "", "add at least one node", "the list is empty")
	}
	names := slices.Clone(tr.models)
	slices.Sort(tr.models)
	tr.models = slices.Compact(tr.models)
	if len(tr.models) > packing.ModelsMax {
		return nil, refuse(t.path, 1, "model", fmt.Sprintf("at most %d", packing.ModelsMax), "%d models", len(tr.models))
	}
	for i := range tr.hosts {
		tr.hosts[i].model, _ = slices.BinarySearch(tr.models, names[i])
	}
	slices.SortFunc(tr.hosts, func(a, b host) int { return cmp.Compare(a.name, b.name) })
	return tr, nil
}

func (tr *trace) readList(folder, name string) (*list, error) {
	columns := []string{"cpu_milli", "memory_mib", "num_gpu", "gpu_milli"}
	t, err := readTable(filepath.Join(folder, "openb_pod_list_"+name+".csv"), append([]string{"name"}, columns...)...)
	if err != nil {
		return nil, err
	}
	l := &list{name: name, pods: make([]pod, 0, len(t.rows))}
	_, created := t.columns["creation_time"]
	_, deleted := t.columns["deletion_time"]
	l.times = created && deleted
	for row := range t.rows {
		n, err := t.numbers(row, columns, []string{"millicores", "MiB", "devices", "thousandths of a device"})
		if err != nil {
			return nil, err
		}
		p := pod{name: t.text(row, "name"), created: -1, deleted: -1,
			shape: packing.Shape{CPU: n[0], Memory: n[1], GPUs: int32(n[2]), Share: int32(min(n[3], packing.Whole)), Models: packing.Any}}
		if err := p.check(t, row, n[2], n[3]); err != nil {
			return nil, err
		}
		if p.shape.GPUs == 0 {
			p.shape.Share = 0
		} else if spec := t.text(row, "gpu_spec"); spec != "" {
			p.shape.Models = tr.allowed(spec)
		}
		if l.times {
			if p.created, err = t.number(row, "creation_time", "seconds"); err != nil {
				return nil, err
			}
			if p.deleted, err = t.number(row, "deletion_time", "seconds"); err != nil {
				return nil, err
			}
			if p.deleted < p.created {
				return nil, refuse(t.path, t.lines[row], "deletion_time", "a pod ends after it begins", "%d is before its creation at %d", p.deleted, p.created)
			}
		}
		l.pods = append(l.pods, p)
	}
	if len(l.pods) == 0 {
		return nil, refuse(t.path, 1, "", "add at least one pod", "the list is empty")
	}
	return l, nil
}

func (p *pod) check(t *table, row int, gpus, milli int64) error {
	switch {
	case gpus > gpusMax:
		return refuse(t.path, t.lines[row], "num_gpu", fmt.Sprintf("a pod asks at most %d", gpusMax), "%d devices", gpus)
	case gpus > 0 && milli == 0:
		return refuse(t.path, t.lines[row], "gpu_milli", "1000 is a whole device", "a pod with devices asks none of them")
	case gpus > 1 && milli < packing.Whole:
		return refuse(t.path, t.lines[row], "gpu_milli", "only a pod with one device shares it", "%d devices are shared", gpus)
	}
	return nil
}

// allowed is the set of the models in a specification "A|B". Models that no node has are in
// no set: such a pod fits nowhere.
func (tr *trace) allowed(spec string) packing.Models {
	set, named := packing.Models(0), false
	for _, name := range strings.Split(spec, "|") {
		if name == "" {
			continue
		}
		named = true
		if at, found := slices.BinarySearch(tr.models, name); found {
			set |= 1 << uint(at)
		}
	}
	if !named {
		return packing.Any
	}
	return set
}

// fleet sums the nodes by model.
func (tr *trace) fleet() packing.Fleet {
	f := make(packing.Fleet, len(tr.models))
	for i := range tr.hosts {
		h := &tr.hosts[i]
		f[h.model].GPUs += int64(h.gpus)
		f[h.model].CPU += h.cpu
		f[h.model].Memory += h.memory
		f[h.model].NodeGPUs = max(f[h.model].NodeGPUs, int64(h.gpus))
		f[h.model].NodeCPU = max(f[h.model].NodeCPU, h.cpu)
	}
	return f
}

func (tr *trace) capacity() int64 {
	sum := int64(0)
	for i := range tr.hosts {
		sum += int64(tr.hosts[i].gpus) * packing.Whole
	}
	return sum
}
