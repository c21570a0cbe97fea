package main

import (
	"encoding/csv"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strconv"
)

// rowsMax bounds a table; the largest one of the traces has 6,400 rows.
const rowsMax = 1_000_000

// row is one line of a table: the wanted columns and where it stands.
type row struct {
	path   string
	line   int
	names  []string
	fields []string
}

func (r row) text(i int) string { return r.fields[i] }

func (r row) number(i int) (float64, error) {
	x, err := strconv.ParseFloat(r.fields[i], 64)
	if err != nil || math.IsNaN(x) || math.IsInf(x, 0) || x < 0 {
		return 0, fmt.Errorf("%s:%d: column %s: %q is not a number of at least 0", r.path, r.line, r.names[i], r.fields[i])
	}
	return x, nil
}

func (r row) integer(i int) (int, error) {
	n, err := strconv.Atoi(r.fields[i])
	if err != nil || n < 0 {
		return 0, fmt.Errorf("%s:%d: column %s: %q is not a whole number of at least 0", r.path, r.line, r.names[i], r.fields[i])
	}
	return n, nil
}

// readTable reads the named columns of a file with a header line.
func readTable(path string, columns ...string) ([]row, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read a table: %w; hint: POLLUX=DIR names the folder with profiles and workloads", err)
	}
	defer f.Close()
	in := csv.NewReader(f)
	header, err := in.Read()
	if err != nil {
		return nil, fmt.Errorf("%s: read the header: %w", path, err)
	}
	at := make([]int, len(columns))
	for i, name := range columns {
		if at[i] = slices.Index(header, name); at[i] < 0 {
			return nil, fmt.Errorf("%s:1: column %s is missing (found %v)", path, name, header)
		}
	}
	var out []row
	for {
		record, err := in.Read()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		if len(out) == rowsMax {
			return nil, fmt.Errorf("%s: more than %d rows", path, rowsMax)
		}
		line, _ := in.FieldPos(0)
		r := row{path: path, line: line, names: columns, fields: make([]string, len(columns))}
		for i, k := range at {
			r.fields[i] = record[k]
		}
		out = append(out, r)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%s: no rows", path)
	}
	return out, nil
}
