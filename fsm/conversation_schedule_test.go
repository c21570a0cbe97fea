package fsm

import (
	"strconv"
	"strings"

	pb "llmos/proto/llmos/v1"
)

// waitFor reads after=JOB[:KIND],... array=COUNT[/PARALLEL] cron=SCHEDULE overlap= min= nopreempt= repair= reservation= models= where=KEY:VALUE.
func waitFor(w words, spec *pb.JobSpec) {
	for _, text := range list(w.set["after"]) {
		job, kind, _ := strings.Cut(text, ":")
		spec.After = append(spec.After, &pb.Dependency{Job: job, Kind: pb.DependencyKind(pb.DependencyKind_value["DEPENDENCY_KIND_"+strings.ToUpper(kind)])})
	}
	if count, parallel, _ := strings.Cut(w.set["array"], "/"); count != "" {
		spec.Array = &pb.ArraySpec{Count: int32(w.number("", 0, count)), Parallel: int32(w.number("", 0, parallel))}
	}
	if w.set["cron"] != "" {
		spec.Cron = &pb.CronSpec{Schedule: w.set["cron"], Overlap: pb.CronOverlap(pb.CronOverlap_value["CRON_OVERLAP_"+strings.ToUpper(w.set["overlap"])])}
	}
	spec.TimeLimitMs, spec.ExpectedMs, spec.DeadlineMs = w.n("limit", 0), w.n("expected", 0), w.n("deadline", 0)
	spec.MinRunMs, spec.CheckpointEveryMs, spec.RestartMs = w.n("minrun", 0), w.n("checkpoint", 0), w.n("restart", 0)
	spec.NoPreempt, spec.RepairMs, spec.Reservation = w.set["nopreempt"] != "", w.n("repair", 0), w.set["reservation"]
	if key, value, ok := strings.Cut(w.set["where"], ":"); ok {
		spec.Placement = &pb.PlacementSpec{Where: matches(key, value)}
	}
	if w.set["place"] != "" {
		spec.Placement = &pb.PlacementSpec{Within: w.set["within"], PreferWithin: w.set["prefer"], Spread: w.set["spread"], SpreadSkew: w.n32("skew", 0),
			Near: list(w.set["near"]), Apart: list(w.set["apart"])}
	}
	if len(spec.Roles) > 0 {
		spec.Roles[0].CountMin, spec.Roles[0].Resources.GpuModels = w.n32("min", 0), list(w.set["models"])
		spec.Roles[0].Resources.MigProfile = w.set["mig"]
	}
}

func matches(key, value string) *pb.Expr {
	return &pb.Expr{Expr: &pb.Expr_Match{Match: &pb.ExprMatch{Key: key, Values: list(value)}}}
}

func list(text string) []string {
	if text == "" {
		return nil
	}
	return strings.Split(text, ",")
}

// planCommand reads parts with ; between them: a gang `JOB EPOCH PLACE... counts=N,N reason=`, `evict JOB EPOCH KIND for= reason=`,
// or `claim JOB KIND PLACE... until= counts= reason=`. A place is NODE[/DEVICE[:SHARE]+DEVICE[/PORT+PORT]].
func planCommand(w words) *pb.Command {
	plan := &pb.ApplyPlan{}
	for _, text := range strings.Split(w.rest, " ; ") {
		part := parseWords("gang " + text)
		switch part.arg(0) {
		case "evict":
			plan.Evictions = append(plan.Evictions, &pb.Eviction{JobId: part.arg(1), Epoch: uint64(part.number("", 0, part.arg(2))),
				Kind: pb.EvictionKind(pb.EvictionKind_value["EVICTION_KIND_"+part.arg(3)]), ForJob: part.set["for"], Reason: part.set["reason"]})
		case "claim":
			plan.Claims = append(plan.Claims, claimOf(part))
		default:
			epoch, _ := strconv.ParseUint(part.arg(1), 10, 64)
			g := &pb.GangPlacement{JobId: part.arg(0), Epoch: epoch, Counts: numbers(part.set["counts"]), Reason: part.set["reason"]}
			for _, place := range part.args[2:] {
				g.Tasks = append(g.Tasks, placeOf(place))
			}
			plan.Gangs = append(plan.Gangs, g)
		}
	}
	return &pb.Command{Op: &pb.Command_ApplyPlan{ApplyPlan: plan}}
}

func placeOf(text string) *pb.TaskPlacement {
	parts := append(strings.Split(text, "/"), "", "")
	p := &pb.TaskPlacement{NodeId: parts[0]}
	for _, d := range strings.FieldsFunc(parts[1], func(r rune) bool { return r == '+' }) {
		id, share, _ := strings.Cut(d, ":")
		n, _ := strconv.Atoi(share)
		p.Devices = append(p.Devices, &pb.DeviceGrant{DeviceId: id, ShareMilli: int32(n)})
	}
	for _, port := range strings.FieldsFunc(parts[2], func(r rune) bool { return r == '+' }) {
		n, _ := strconv.Atoi(port)
		p.Ports = append(p.Ports, int32(n))
	}
	return p
}

func claimOf(w words) *pb.SetClaim {
	if len(w.args) < 3 {
		return &pb.SetClaim{JobId: w.arg(1)}
	}
	c := &pb.Claim{Kind: pb.ClaimKind(pb.ClaimKind_value["CLAIM_KIND_"+w.arg(2)]), UntilMs: w.n("until", 0), Counts: numbers(w.set["counts"]), Reason: w.set["reason"]}
	for _, place := range w.args[3:] {
		p := placeOf(place)
		c.Slots = append(c.Slots, &pb.ClaimSlot{NodeId: p.NodeId, CpuMilli: w.n("cpu", 0), Devices: p.Devices})
	}
	return &pb.SetClaim{JobId: w.arg(1), Claim: c}
}

func numbers(text string) (out []int32) {
	for _, f := range list(text) {
		n, _ := strconv.Atoi(f)
		out = append(out, int32(n))
	}
	return out
}

// queuesCommand reads `queues NAME:WEIGHT[:RESOURCE=NOMINAL/BORROW/LEND...]... remove=NAME,NAME user=`; a part NAME!KEY:N sets a bound.
func queuesCommand(w words) *pb.Command {
	c := &pb.SetQueues{Remove: list(w.set["remove"]), User: w.set["user"]}
	for _, text := range w.args {
		parts := strings.Split(text, ";")
		name, weight, _ := strings.Cut(parts[0], ":")
		name, parent, _ := strings.Cut(name, "<")
		q := &pb.Queue{Name: name, Parent: parent, Weight: int32(w.number("", 1, weight))}
		for _, part := range parts[1:] {
			at := strings.LastIndexByte(part, ':')
			key, value := part[:at], part[at+1:]
			switch key {
			case "running":
				q.RunningMax = int32(w.number("", 0, value))
			case "pending":
				q.PendingMax = int32(w.number("", 0, value))
			case "priority":
				q.PriorityMax = int32(w.number("", 0, value))
			default:
				amounts := append(strings.Split(value, "/"), "-1", "-1")
				q.Limits = append(q.Limits, &pb.QuotaLimit{Resource: key, Nominal: w.number("", 0, amounts[0]), Borrow: w.number("", 0, amounts[1]),
					Lend: w.number("", 0, amounts[2])})
			}
		}
		c.Queues = append(c.Queues, q)
	}
	return &pb.Command{Op: &pb.Command_SetQueues{SetQueues: c}}
}

// policyCommand reads `policy order= backfill= hold= max= half= min= restart= elastic= avoid= claim= nopreempt= user=`.
func policyCommand(w words) *pb.Command {
	return &pb.Command{Op: &pb.Command_SetSchedulerConfig{SetSchedulerConfig: &pb.SetSchedulerConfig{User: w.set["user"], Config: &pb.SchedulerConfig{
		Order: w.set["order"], Backfill: w.set["backfill"], HoldAfterMs: w.n("hold", 0), ReservationsMax: w.n32("max", 0),
		UsageHalfLifeMs: w.n("half", 0), MinRunMs: w.n("min", 0), RestartMs: w.n("restart", 0), ElasticEveryMs: w.n("elastic", 0),
		AvoidMs: w.n("avoid", 0), ClaimMs: w.n("claim", 0), NoPreempt: w.set["nopreempt"] != ""}}}}
}

// reserveCommand reads `reserve NAME KIND start= end= on=NODE,NODE nodes= gpus= queue= user= reason= where=KEY:VALUE`.
func reserveCommand(w words) *pb.Command {
	r := &pb.Reservation{Name: w.arg(0), Kind: pb.ReservationKind(pb.ReservationKind_value["RESERVATION_KIND_"+w.arg(1)]), StartMs: w.n("start", 0),
		EndMs: w.n("end", 0), NodeIds: list(w.set["on"]), Nodes: w.n32("nodes", 0), Gpus: w.n32("gpus", 0), Queue: w.set["queue"], User: w.set["user"],
		Reason: w.set["reason"]}
	if key, value, ok := strings.Cut(w.set["where"], ":"); ok {
		r.Where = matches(key, value)
	}
	return &pb.Command{Op: &pb.Command_CreateReservation{CreateReservation: &pb.CreateReservation{Reservation: r}}}
}

func unreserveCommand(w words) *pb.Command {
	return &pb.Command{Op: &pb.Command_RemoveReservation{RemoveReservation: &pb.RemoveReservation{Name: w.arg(0), User: w.set["user"]}}}
}

// drainCommand reads `drain NODE stop= reason= user=` and `undrain NODE`.
func drainCommand(w words, on bool) *pb.Command {
	c := &pb.DrainNode{NodeId: w.arg(0)}
	if on {
		c.Drain = &pb.Drain{StopAtMs: w.n("stop", 0), Reason: w.set["reason"], User: w.set["user"]}
	}
	return &pb.Command{Op: &pb.Command_DrainNode{DrainNode: c}}
}
