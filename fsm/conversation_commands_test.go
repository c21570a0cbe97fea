package fsm

import (
	"crypto/sha256"
	"fmt"
	"strconv"
	"strings"

	pb "llmos/proto/llmos/v1"
)

// words is a command line: a verb, arguments, and key=value pairs. A value has _ for spaces.
type words struct {
	verb string
	rest string // the line behind the verb
	args []string
	set  map[string]string
}

func parseWords(line string) words {
	w := words{set: map[string]string{}}
	_, w.rest, _ = strings.Cut(line, " ")
	for i, f := range strings.Fields(line) {
		key, value, pair := strings.Cut(f, "=")
		switch {
		case i == 0:
			w.verb = f
		case pair:
			w.set[key] = strings.ReplaceAll(value, "_", " ")
		default:
			w.args = append(w.args, f)
		}
	}
	return w
}

func (w words) arg(i int) string {
	if i < len(w.args) {
		return w.args[i]
	}
	return ""
}

// number reads an amount with a suffix k, M or G.
func (w words) number(key string, missing int64, text string) int64 {
	if key != "" {
		text = w.set[key]
	}
	if text == "" {
		return missing
	}
	unit := int64(1)
	for suffix, u := range map[string]int64{"k": 1e3, "M": 1e6, "G": 1e9} {
		if strings.HasSuffix(text, suffix) {
			text, unit = strings.TrimSuffix(text, suffix), u
		}
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		panic(fmt.Sprintf("%q is no number", text))
	}
	return n * unit
}

func (w words) n(key string, missing int64) int64 { return w.number(key, missing, "") }

func (w words) n32(key string, missing int32) int32 { return int32(w.number(key, int64(missing), "")) }

// commands make a command of each verb.
var commands = map[string]func(*talk, words) *pb.Command{
	"init": func(_ *talk, w words) *pb.Command {
		return &pb.Command{Op: &pb.Command_InitCluster{InitCluster: &pb.InitCluster{Meta: &pb.ClusterMeta{ClusterId: w.arg(0), Name: "test",
			StateVersion: uint32(w.n("version", 0))}}}}
	},
	"submit":    func(_ *talk, w words) *pb.Command { return submitCommand(w) },
	"node":      func(_ *talk, w words) *pb.Command { return nodeCommand(w) },
	"plan":      func(_ *talk, w words) *pb.Command { return planCommand(w) },
	"report":    func(_ *talk, w words) *pb.Command { return reportCommand(w) },
	"nodestate": func(_ *talk, w words) *pb.Command { return nodeStateCommand(w) },
	"stop": func(_ *talk, w words) *pb.Command {
		return &pb.Command{Op: &pb.Command_StopJob{StopJob: &pb.StopJob{JobId: w.arg(0), User: w.set["user"], Reason: w.set["reason"],
			Failed: w.set["failed"] != ""}}}
	},
	"lose": func(_ *talk, w words) *pb.Command {
		return &pb.Command{Op: &pb.Command_LoseTasks{LoseTasks: &pb.LoseTasks{NodeId: w.arg(0), TaskIds: w.args[1:], Reason: "silent"}}}
	},
	"remove": func(_ *talk, w words) *pb.Command {
		return &pb.Command{Op: &pb.Command_RemoveNode{RemoveNode: &pb.RemoveNode{NodeId: w.arg(0)}}}
	},
	"token": func(_ *talk, w words) *pb.Command {
		secret := sha256.Sum256([]byte(w.set["secret"]))
		return &pb.Command{Op: &pb.Command_CreateToken{CreateToken: &pb.CreateToken{Token: &pb.JoinToken{Id: w.arg(0), SecretSha256: secret[:],
			Role: roleOf(w.set["role"]), ExpiresMs: w.n("expires", 0)}}}}
	},
	"join": func(_ *talk, w words) *pb.Command {
		secret := sha256.Sum256([]byte(w.set["secret"]))
		return &pb.Command{Op: &pb.Command_ConsumeToken{ConsumeToken: &pb.ConsumeToken{Id: w.arg(0), SecretSha256: secret[:],
			Role: roleOf(w.set["role"]), MemberId: w.set["member"]}}}
	},
	"collect": func(_ *talk, w words) *pb.Command {
		return &pb.Command{Op: &pb.Command_Collect{Collect: &pb.Collect{JobsFinishedBeforeMs: w.n("jobs", 0), RequestsBeforeMs: w.n("requests", 0),
			TokensExpiredBeforeMs: w.n("tokens", 0), Limit: w.n32("limit", 0), UsageBeforeDay: w.n("day", 0),
			ReservationsEndedBeforeMs: w.n("reservations", 0)}}}
	},
	"verify": func(k *talk, w words) *pb.Command {
		index := uint64(w.number("", 0, w.arg(0)))
		hash, _ := k.fsm.HashAt(index)
		if w.arg(1) == "wrong" {
			hash[0] ^= 1
		}
		return &pb.Command{Op: &pb.Command_VerifyHash{VerifyHash: &pb.VerifyHash{Index: index, Hash: hash[:]}}}
	},
	"queues":    func(_ *talk, w words) *pb.Command { return queuesCommand(w) },
	"policy":    func(_ *talk, w words) *pb.Command { return policyCommand(w) },
	"reserve":   func(_ *talk, w words) *pb.Command { return reserveCommand(w) },
	"unreserve": func(_ *talk, w words) *pb.Command { return unreserveCommand(w) },
	"fire": func(_ *talk, w words) *pb.Command {
		return &pb.Command{Op: &pb.Command_FireCron{FireCron: &pb.FireCron{JobId: w.arg(0), DueMs: w.number("", 0, w.arg(1))}}}
	},
	"drain":   func(_ *talk, w words) *pb.Command { return drainCommand(w, true) },
	"undrain": func(_ *talk, w words) *pb.Command { return drainCommand(w, false) },
	"lapse": func(_ *talk, w words) *pb.Command {
		return &pb.Command{Op: &pb.Command_LapseClaims{LapseClaims: &pb.LapseClaims{JobIds: w.args}}}
	},
	"unknown": func(*talk, words) *pb.Command { return &pb.Command{} },
}

func roleOf(text string) pb.MemberRole {
	return pb.MemberRole(pb.MemberRole_value["MEMBER_ROLE_"+strings.ToUpper(text)])
}

// resourcesOf reads cpu, mem, gpus, share, gmem and model.
func resourcesOf(w words) *pb.Resources {
	return &pb.Resources{CpuMilli: w.n("cpu", 0), MemoryBytes: w.n("mem", 0), Gpus: w.n32("gpus", 0), GpuShareMilli: w.n32("share", 0),
		GpuMemoryBytes: w.n("gmem", 0), GpuModel: w.set["model"]}
}

// submitCommand reads `submit NAME count= cpu= ...`; more roles follow as role=NAME:COUNT, equal but for that.
func submitCommand(w words) *pb.Command {
	spec := &pb.JobSpec{Name: w.arg(0), GenerateName: w.set["generate"], Queue: w.set["queue"], Retries: w.n32("retries", 0),
		Priority: w.n32("priority", 50), Kind: pb.JobKind(w.n32("kind", 1))}
	if w.set["norole"] == "" {
		spec.Roles = append(spec.Roles, &pb.RoleSpec{Name: "worker", Count: w.n32("count", 1), Command: []string{"true"}, Resources: resourcesOf(w)})
	}
	if w.set["ports"] != "" {
		spec.Roles[0].Ports = strings.Split(w.set["ports"], ",")
	}
	if name, count, ok := strings.Cut(w.set["role"], ":"); ok {
		n, _ := strconv.Atoi(count)
		spec.Roles = append(spec.Roles, &pb.RoleSpec{Name: name, Count: int32(n), Command: []string{"true"}, Resources: resourcesOf(w)})
	}
	waitFor(w, spec)
	resumeOf(w, spec)
	return &pb.Command{Op: &pb.Command_SubmitJob{SubmitJob: &pb.SubmitJob{RequestId: w.set["req"], Spec: spec, User: w.set["user"]}}}
}

// nodeCommand reads `node ID name= cpu= mem= gpus=ID[:HEALTH],... gmem= ports=A-B boot= unfit=`.
func nodeCommand(w words) *pb.Command {
	n := &pb.Node{Id: w.arg(0), Name: w.arg(0) + "-host", Addr: w.arg(0) + ".example:7301", BootId: w.set["boot"], Unfit: w.set["unfit"],
		CpuMilli: w.n("cpu", 4000), MemoryBytes: w.n("mem", 64e9), PortMin: 20000, PortMax: 20009}
	if w.set["name"] != "" {
		n.Name = w.set["name"]
	}
	if from, to, ok := strings.Cut(w.set["ports"], "-"); ok {
		n.PortMin, n.PortMax = int32(w.number("", 0, from)), int32(w.number("", 0, to))
	}
	if w.set["gpus"] != "" {
		for i, id := range strings.Split(w.set["gpus"], ",") {
			id, health, _ := strings.Cut(id, ":")
			if health == "" {
				health = "OK"
			}
			n.Devices = append(n.Devices, &pb.Device{Id: id, Kind: "gpu", Model: "H100", MemoryBytes: w.n("gmem", 80e9), Index: int32(i),
				MigProfile: w.set["mig"],
				Health:     pb.DeviceHealth(pb.DeviceHealth_value["DEVICE_HEALTH_"+health])})
		}
	}
	return &pb.Command{Op: &pb.Command_RegisterNode{RegisterNode: &pb.RegisterNode{Node: n}}}
}

// reportCommand reads `report NODE STATE TASK... exit= signal= reason= epoch=`.
func reportCommand(w words) *pb.Command {
	c := &pb.ReportTasks{NodeId: w.arg(0)}
	for _, id := range w.args[2:] {
		epoch := w.n("epoch", -1)
		if epoch < 0 {
			_, rest, _ := strings.Cut(id, ".e")
			text, _, _ := strings.Cut(rest, ".")
			epoch, _ = strconv.ParseInt(text, 10, 64)
		}
		c.Reports = append(c.Reports, &pb.TaskReport{TaskId: id, Epoch: uint64(epoch), State: pb.TaskState(pb.TaskState_value["TASK_STATE_"+w.args[1]]),
			ExitCode: w.n32("exit", 0), Signal: w.n32("signal", 0), Reason: w.set["reason"], StartedMs: w.n("started", 0), EndedMs: w.n("ended", 0),
			ResumeFailed: w.set["resumefailed"] != ""})
	}
	return &pb.Command{Op: &pb.Command_ReportTasks{ReportTasks: c}}
}

func nodeStateCommand(w words) *pb.Command {
	return &pb.Command{Op: &pb.Command_SetNodeState{SetNodeState: &pb.SetNodeState{NodeId: w.arg(0),
		State: pb.NodeState(pb.NodeState_value["NODE_STATE_"+w.arg(1)]), Reason: w.set["reason"]}}}
}
