package simulate

import (
	"fmt"
	"math"
	"strconv"
)

// Figure is one line of the table of results.
type Figure struct {
	Name string // with its unit
	Text string
}

// Figures gives the result as text, always the same lines in the same order.
func (r *Result) Figures() []Figure {
	worst, starved := User{}, 0
	for i, u := range r.Users {
		if i == 0 {
			worst = u
		}
		if u.Starved {
			starved++
		}
	}
	percent := func(part float64) string { return fmt.Sprintf("%.1f", 100*part) }
	figures := []Figure{
		{"job completion, mean s", seconds(r.JCT.Mean)}, {"  median", seconds(r.JCT.P50)}, {"  p99", seconds(r.JCT.P99)},
		{"waiting, mean s", seconds(r.Queue.Mean)}, {"  median", seconds(r.Queue.P50)}, {"  p99", seconds(r.Queue.P99)},
		{"bounded slowdown, mean", ratio(r.Slowdown.Mean)}, {"  median", ratio(r.Slowdown.P50)}, {"  p99", ratio(r.Slowdown.P99)},
		{"makespan, h", fmt.Sprintf("%.2f", r.Makespan/3600)},
		{"utilisation, %", percent(r.Utilisation)},
		{"goodput, % of it", percent(r.Goodput)},
		{"fragmented, % of idle", percent(r.Fragmented)},
		{"unfair share, % of jobs", percent(r.Unfair)},
		{"  worst rho", ratio(r.WorstFairness)},
		{"  Jain's index", fmt.Sprintf("%.3f", r.Jain)},
		{"preemptions", strconv.Itoa(r.Preemptions)},
		{"lost work, device h", fmt.Sprintf("%.2f", (r.LostWork+r.Restarts)/3600)},
		{"starved users", strconv.Itoa(starved)},
		{"worst user", name(worst.Name)}, {"  mean slowdown", ratio(worst.Slowdown)}, {"  longest wait, s", seconds(worst.WaitWorst)},
	}
	return figures
}

func name(user string) string {
	if user == "" {
		return "(none)"
	}
	return user
}

func seconds(s float64) string {
	if s < 100 && s != math.Trunc(s) {
		return fmt.Sprintf("%.1f", s)
	}
	return fmt.Sprintf("%.0f", s)
}

func ratio(x float64) string {
	if x >= 100 {
		return fmt.Sprintf("%.0f", x)
	}
	return fmt.Sprintf("%.3f", x)
}

// Summary is a result without what the drawings are made of, for programs.
type Summary struct {
	Policy        string  `json:"policy"`
	Jobs          int     `json:"jobs"`
	Impossible    int     `json:"impossible"`
	Refused       int     `json:"refused"`
	Devices       int     `json:"devices"`
	JCT           Spread  `json:"jct_s"`
	Queue         Spread  `json:"queue_s"`
	Slowdown      Spread  `json:"slowdown"`
	Makespan      float64 `json:"makespan_s"`
	Utilisation   float64 `json:"utilisation"`
	Goodput       float64 `json:"goodput"`
	Fragmented    float64 `json:"fragmented"`
	Unfair        float64 `json:"unfair"`
	WorstFairness float64 `json:"worst_rho"`
	Jain          float64 `json:"jain"`
	Preemptions   int     `json:"preemptions"`
	LostWork      float64 `json:"lost_work_device_s"`
	Restarts      float64 `json:"restarts_device_s"`
	Users         []User  `json:"users"`
}

// Summary gives the figures for programs; Result's fields define them.
func (r *Result) Summary() Summary {
	return Summary{Policy: r.Policy, Jobs: r.Jobs, Impossible: r.Impossible, Refused: r.Refused, Devices: r.Devices, JCT: r.JCT, Queue: r.Queue,
		Slowdown: r.Slowdown, Makespan: r.Makespan, Utilisation: r.Utilisation, Goodput: r.Goodput, Fragmented: r.Fragmented, Unfair: r.Unfair,
		WorstFairness: r.WorstFairness, Jain: r.Jain, Preemptions: r.Preemptions, LostWork: r.LostWork, Restarts: r.Restarts, Users: r.Users}
}
