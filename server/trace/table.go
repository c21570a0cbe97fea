package trace

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
)

// table is a CSV file under way: its header and the present row.
type table struct {
	name    string
	csv     *csv.Reader
	columns map[string]int
	header  []string
	row     []string
	line    int // of the row
	rows    int
}

// peekLine gives the first line without taking it from the stream.
func peekLine(name string, r io.Reader) ([]byte, *bufio.Reader, error) {
	rest := bufio.NewReaderSize(r, 2*lineBytesMax)
	head, err := rest.Peek(2 * lineBytesMax)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, nil, fmt.Errorf("read %s: %w", name, err)
	}
	if i := bytes.IndexByte(head, '\n'); i >= 0 {
		head = head[:i]
	}
	head = bytes.TrimSpace(head)
	if len(head) == 0 {
		return nil, nil, invalid(name, 1, "", "the file is empty").
			Hint("the first line must name the columns")
	}
	return head, rest, nil
}

func newTable(name string, r io.Reader) (*table, error) {
	t := &table{name: name, csv: csv.NewReader(&lineBound{from: r}), columns: map[string]int{}}
	t.csv.FieldsPerRecord = -1
	t.csv.ReuseRecord = true
	header, err := t.csv.Read()
	if err != nil {
		return nil, t.broken(err)
	}
	if len(header) > columnsMax {
		return nil, invalid(name, 1, "", "the header has %d columns, at most %d", len(header), columnsMax).
			Hint("this does not look like a trace")
	}
	for i, h := range header {
		h = strings.ToLower(strings.TrimSpace(strings.TrimPrefix(h, "\ufeff")))
		if _, twice := t.columns[h]; twice {
			return nil, invalid(name, 1, short(h), "the column is named twice").Hint("each column has a name of its own")
		}
		t.columns[h] = i
		t.header = append(t.header, h)
	}
	return t, nil
}

func (t *table) has(columns ...string) bool {
	return !slices.ContainsFunc(columns, func(c string) bool { _, ok := t.columns[c]; return !ok })
}

func (t *table) unknownHeader() error {
	return invalid(t.name, 1, "", "the columns %s are of no format that is known", short(strings.Join(t.header, ","))).
		Hint("openb has num_gpu and gpu_milli, Philly timestamp and num_gpus, Pollux application, " +
			"and llmos history export writes id and submit")
}

// need refuses a header without the columns.
func (t *table) need(f Format, columns ...string) error {
	for _, c := range columns {
		if !t.has(c) {
			return invalid(t.name, 1, c, "a file of format %s needs this column, and it is missing", f).
				Hint("the columns here are %s", short(strings.Join(t.header, ",")))
		}
	}
	return nil
}

// next moves to the next row; false at the end of the file.
func (t *table) next() (bool, error) {
	row, err := t.csv.Read()
	if errors.Is(err, io.EOF) {
		return false, nil
	}
	if err != nil {
		return false, t.broken(err)
	}
	t.row = row
	t.line, _ = t.csv.FieldPos(0)
	if len(row) != len(t.header) {
		return false, invalid(t.name, t.line, "", "the row has %d fields, and the header %d", len(row), len(t.header)).
			Hint("a comma may be missing, or the file may have been cut off")
	}
	if t.rows++; t.rows > RowsMax {
		return false, limit(t.name, t.line, "there are more than %d rows", RowsMax).Hint("divide the file")
	}
	return true, nil
}

// broken turns an error of the CSV reader into a fault with its line.
func (t *table) broken(err error) error {
	var bad *csv.ParseError
	switch {
	case errors.Is(err, errLongLine):
		return limit(t.name, max(t.line, 1)+1, "the line is longer than %d bytes", lineBytesMax).Hint("this does not look like a trace")
	case errors.As(err, &bad):
		return invalid(t.name, bad.Line, "", "the line is not CSV: %v", bad.Err).Hint("look for a stray quotation mark")
	case errors.Is(err, io.EOF):
		return invalid(t.name, 1, "", "the file is empty").Hint("the first line must name the columns")
	}
	return fmt.Errorf("read %s: %w", t.name, err)
}

// text gives a field, empty when the column is absent.
func (t *table) text(column string) string {
	i, ok := t.columns[column]
	if !ok {
		return ""
	}
	return strings.TrimSpace(t.row[i])
}

// label gives a field as a name of bounded length; the copy outlives the row.
func (t *table) label(column string) (string, error) {
	s := t.text(column)
	if len(s) > textBytesMax || !utf8.ValidString(s) {
		return "", t.bad(column, "%s is no name: at most %d bytes of UTF-8", quoted(s), textBytesMax)
	}
	return strings.Clone(s), nil
}

func (t *table) bad(column, format string, args ...any) *fault.Error {
	return invalid(t.name, t.line, column, format, args...)
}

// whole gives a field as a whole number within bounds. 1.0 is whole.
func (t *table) whole(column string, low, high int64) (int64, error) {
	s := t.text(column)
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		f, ferr := strconv.ParseFloat(s, 64)
		if ferr != nil || f != math.Trunc(f) || math.Abs(f) > 1<<53 {
			return 0, t.bad(column, "%s is not a whole number", quoted(s)).Hint("write it in digits")
		}
		n = int64(f)
	}
	if n < low || n > high {
		return 0, t.bad(column, "%d is not possible here", n).Hint("%d to %d are", low, high)
	}
	return n, nil
}

// seconds gives a field in seconds as milliseconds, from low seconds on.
func (t *table) seconds(column string, low int64) (int64, error) {
	s := t.text(column)
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || math.IsNaN(f) || math.IsInf(f, 0) {
		return 0, t.bad(column, "%s is not a number of seconds", quoted(s)).Hint("write it in digits, such as 66.0")
	}
	if f < float64(low) {
		return 0, t.bad(column, "%s seconds are negative", s).Hint("times and durations are at least %d", low)
	}
	if f > secondsMax {
		return 0, t.bad(column, "%s seconds are too many", s).Hint("at most %d; is the unit seconds?", int64(secondsMax))
	}
	return int64(math.Round(f * 1000)), nil
}

func invalid(name string, line int, column, format string, args ...any) *fault.Error {
	return fault.New(pb.ErrorKind_ERROR_KIND_INVALID, "%s:%d: %s", name, line, fmt.Sprintf(format, args...)).At(column, line)
}

// limit is a fault of a bound that a file meets at a line.
func limit(name string, line int, format string, args ...any) *fault.Error {
	return fault.New(pb.ErrorKind_ERROR_KIND_LIMIT, "%s:%d: %s", name, line, fmt.Sprintf(format, args...)).At("", line)
}

// quoted shows a value of the file, shortened.
func quoted(s string) string { return strconv.Quote(short(s)) }

func short(s string) string {
	const shown = 80 // bytes
	if len(s) > shown {
		return strings.ToValidUTF8(s[:shown], "") + "..."
	}
	return strings.ToValidUTF8(s, "?")
}

var errLongLine = errors.New("the line is too long")

// lineBound passes a stream on and fails at a line that is longer than the bound.
type lineBound struct {
	from io.Reader
	run  int // bytes since the last end of line
}

func (l *lineBound) Read(p []byte) (int, error) {
	n, err := l.from.Read(p)
	for rest := p[:n]; ; {
		i := bytes.IndexByte(rest, '\n')
		if i < 0 {
			l.run += len(rest)
			break
		}
		if l.run+i > lineBytesMax {
			return 0, errLongLine
		}
		l.run, rest = 0, rest[i+1:]
	}
	if l.run > lineBytesMax {
		return 0, errLongLine
	}
	return n, err
}
