package main

import (
	"bufio"
	"context"
	"encoding/csv"
	"errors"
	"io"
	"math"
	"os"
	"strconv"
	"strings"

	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
	"llmos/server/forecast"
)

// Limits of a file of samples.
const (
	samplesMost     = 2_000_000
	sampleFileBytes = 256 << 20
)

// measured is one sample of a job's demand, seconds after its start.
type measured struct {
	resource forecast.Resource
	seconds  float64
	value    float64
}

// sampleSource gives the samples of one job, each resource's in the order of time.
type sampleSource func(ctx context.Context) ([]measured, error)

// sampleColumns are the columns of a file of samples.
var sampleColumns = []string{"seconds", "resource", "value"}

const sampleHint = "a line is SECONDS,RESOURCE,VALUE such as 30,memory,8e9; the resources are cpu (cores), memory, gpu_memory, disk (bytes) and scheduling"

// samplesFile is the source that reads a CSV file; its first line may name the columns.
func (a *app) samplesFile(name string) sampleSource {
	return func(context.Context) ([]measured, error) {
		path, err := a.absolute(name)
		if err != nil {
			return nil, err
		}
		f, err := os.Open(path)
		if err != nil {
			return nil, invalid("the samples cannot be read: %w", err).Hint("--samples names a CSV file; %s", sampleHint)
		}
		defer f.Close()
		return readSamples(name, io.LimitReader(bufio.NewReader(f), sampleFileBytes))
	}
}

// samplesOf is the source that asks the leader what agents measured of a job.
func samplesOf(s *session, job string) sampleSource {
	return func(ctx context.Context) ([]measured, error) {
		answer, err := s.GetForecast(ctx, &pb.GetForecastRequest{JobId: job})
		if err != nil {
			return nil, err
		}
		begun := int64(math.MaxInt64)
		for _, series := range answer.Series {
			for _, p := range series.Samples {
				begun = min(begun, p.TimeMs)
			}
		}
		var out []measured
		for _, series := range answer.Series {
			resource, known := forecast.ParseResource(series.Resource)
			if !known {
				continue // a newer server measures more
			}
			for _, p := range series.Samples {
				out = append(out, measured{resource: resource, seconds: float64(p.TimeMs-begun) / 1000, value: p.Mean})
			}
		}
		if len(out) == 0 {
			return nil, fault.New(pb.ErrorKind_ERROR_KIND_UNAVAILABLE, "nothing has been measured of %s", job).
				Hint("only running jobs are measured, from some ten seconds on; --samples FILE fits measurements of your own")
		}
		return out, nil
	}
}

// readSamples reads samples and refuses the first fault with its line and column; nothing of
// a faulty file is used.
func readSamples(name string, from io.Reader) ([]measured, error) {
	r := csv.NewReader(from)
	r.FieldsPerRecord, r.TrimLeadingSpace, r.ReuseRecord = -1, true, true
	var out []measured
	last := map[forecast.Resource]float64{}
	for first := true; ; first = false {
		row, err := r.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, csvFault(name, err)
		}
		if first && strings.EqualFold(strings.TrimSpace(row[0]), sampleColumns[0]) {
			continue
		}
		m, column, problem := parseSample(row, last)
		if problem != "" {
			line, at := r.FieldPos(min(column, len(row)-1))
			return nil, invalid("%s:%d:%d: %s", name, line, at, problem).At("samples", line).Hint(sampleHint)
		}
		if len(out) == samplesMost {
			return nil, invalid("%s has more than %d samples", name, samplesMost).Hint("keep every other one, or fewer")
		}
		last[m.resource] = m.seconds
		out = append(out, m)
	}
	if len(out) == 0 {
		return nil, invalid("%s has no samples", name).Hint(sampleHint)
	}
	return out, nil
}

// parseSample reads one line; problem tells what is wrong, column with which field.
func parseSample(row []string, last map[forecast.Resource]float64) (m measured, column int, problem string) {
	if len(row) != len(sampleColumns) {
		return m, len(row), "the line has " + count(len(row), "field") + ", not 3"
	}
	for column = range row {
		text := strings.TrimSpace(row[column])
		if column == 1 {
			resource, known := forecast.ParseResource(text)
			if !known {
				return m, column, strconv.Quote(text) + " is no resource"
			}
			m.resource = resource
			continue
		}
		v, err := strconv.ParseFloat(text, 64)
		switch {
		case err != nil || math.IsNaN(v) || math.IsInf(v, 0):
			return m, column, strconv.Quote(text) + " is no number"
		case v < 0:
			return m, column, text + " is below zero"
		case column == 0:
			m.seconds = v
		default:
			m.value = v
		}
	}
	if before, seen := last[m.resource]; seen && m.seconds <= before {
		return m, 0, "time does not go on: " + strconv.FormatFloat(m.seconds, 'g', -1, 64) + " s comes after " +
			strconv.FormatFloat(before, 'g', -1, 64) + " s of " + m.resource.String()
	}
	return m, 0, ""
}

// csvFault words a fault of the CSV itself.
func csvFault(name string, err error) *fault.Error {
	var syntax *csv.ParseError
	if errors.As(err, &syntax) {
		return invalid("%s:%d:%d: %w", name, syntax.Line, syntax.Column, syntax.Err).At("samples", syntax.Line).Hint(sampleHint)
	}
	return invalid("read %s: %w", name, err).Hint(sampleHint)
}
