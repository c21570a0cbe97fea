// Package jobspec turns a job file into a pb.JobSpec and checks specs; and likewise the
// other records that people write: queues, reservations, settings. It returns every fault
// at once, each with the path of its field and, for a file, its line. It reads no file,
// knows no cluster and decides nothing about placement: whether a queue exists or a node is
// large enough is asked where the state is. The command line calls Parse before it submits;
// the server calls Validate on every submission, whoever sent it.
//
// # The job file
//
// A job file is one YAML document of at most 256 KiB. A job of one role may write the role's
// fields at the top level:
//
//	name: train                 # unique among unfinished jobs; left out: made from the file's name
//	command: python train.py    # text is run by /bin/sh -c; a list is run as it is
//	count: 4                    # tasks of the role; `tasks` says the same
//	resources: {cpu: 2, memory: 4Gi, gpus: 1}
//
// A job of several roles lists them under roles, each with a name and the same fields:
//
//	name: train
//	kind: batch                 # the default, and the only kind of this version
//	queue: vision/detection     # left out: default
//	priority: normal            # 0 to 100, higher first, or low (25), normal (50), high (75), urgent (90)
//	retries: 3                  # how often a gang whose task failed is started again; default 0
//	lost_after: 60s             # silence of a node after which its tasks are replaced
//	labels: {team: nlp}
//	framework: pytorch          # or tensorflow, jax, mpi, none: how the ranks find each other
//	after: [prepare, {job: check, on: any}]   # waits for them: on ok (default), any or failed
//	array: {count: 100, parallel: 10}         # copies; a number alone is the count
//	cron: {schedule: "0 3 * * *", time_zone: Europe/Berlin, overlap: skip}   # or the schedule alone
//	time_limit: 2h              # an attempt that runs longer is stopped, and the job fails
//	expected: 40m               # an estimate for the scheduler; never stops anything
//	deadline: 2026-12-01T08:00Z
//	preemptible: true           # false: never stopped for another job; then it may not borrow
//	min_run: 10m                # not stopped for another job before it has run so long
//	checkpoint: {path: ckpt, every: 10m, keep: 3}   # what its tasks finish there is kept, and gone on from;
//	                            # ranks: each, or first; restart: 30s; a duration alone is every
//	resume: other-1@1200        # start from another job's checkpoint; without a step its newest
//	repair: 2m                  # how long surviving slots are kept when a node is lost; none: not
//	reservation: friday         # run in this advance reservation
//	where: gpu_model in (A100-40GB, H100-80GB) and not rack = r7   # see ParseWhere
//	within: rack                # all tasks in one node, rack, zone or other label; prefer_within: a wish
//	spread: rack                # the tasks of a role evenly over these; spread_skew: 2
//	near: [cache]               # on nodes of running jobs so named
//	apart: [noisy]              # never on a node of one
//	roles:
//	  - name: worker
//	    count: 4                # or 2..8: elastic, as many as there is room for
//	    command: [python, train.py]
//	    env: {EPOCHS: 10}
//	    workdir: .              # relative to the job file's folder; left out: a private folder
//	    user: train
//	    image: nvcr.io/nvidia/pytorch@sha256:…   # run in a container of it; workdir is then one of the image
//	    driver: container       # or process; left out: container with an image, else process
//	    resources:
//	      cpu: 500m             # cores: 2, 0.5 or thousandths such as 500m; left out: nothing is reserved
//	      memory: 4Gi           # K M G T are powers of 1000, Ki Mi Gi Ti of 1024
//	      gpus: 1               # of each task; 2..8 alone is short for 2..8 tasks of one GPU each
//	      gpu_share: 0.25       # a share of one device instead of a whole one
//	      gpu_memory: 20Gi
//	      gpu_model: H100-80GB  # or several: A100-80GB|H100-80GB, or a list
//	      mig: 1g.10gb          # MIG slices of this profile instead of whole GPUs
//	      numa: true            # all devices of a task on one NUMA node
//	      disk: 10Gi            # of its private folders; left out: no limit
//	      pids: 512             # processes and threads; left out: 16384
//	    stop_signal: TERM
//	    grace: 10s              # between the stop signal and SIGKILL
//	    ports: [http]           # becomes LLMOS_PORT_HTTP
//	    log_max: 64Mi
//	    idle_after: 30m         # it ends when nobody has used it so long, by llmos exec or forward
//
// Anchors, aliases and merge keys work; tags do not.
package jobspec

import (
	pb "llmos/proto/llmos/v1"
)

// Bounds of a job file and of a job. They keep one submission from filling the log, the
// state or a node; each is far above what a job needs.
const (
	FileBytesMax          = 256 << 10 // of a job file
	SpecBytesMax          = 1 << 20   // of an encoded JobSpec
	NameBytesMax          = 48        // of a job's, role's or port's name
	RolesMax              = 64        // of a job
	TasksMax              = 4096      // of a job, all roles together
	CommandArgsMax        = 1024      // of a role
	ArgBytesMax           = 128 << 10 // of one argument; Linux takes no longer one
	EnvMax                = 512       // variables of a role
	EnvNameBytesMax       = 128
	EnvValueBytesMax      = 64 << 10
	PortsMax              = 16 // of a role
	LabelsMax             = 64
	LabelBytesMax         = 128 // of a label's name or value
	PathBytesMax          = 4096
	PriorityMax           = 100
	PriorityDefault       = 50
	AfterMax              = 64     // jobs that a job waits for
	ArrayCountMax         = 10_000 // copies of an array
	NeighboursMax         = 16     // names in near, and in apart
	ModelsMax             = 16     // device models that a task may run on
	DurationMSMin         = 1000   // of a time limit and the like
	DurationMSMax         = 366 * 24 * 3600 * 1000
	RetriesMax            = 1000
	GPUsMax               = 1024        // of a task
	CPUMilliMax           = 100_000_000 // of a task: 100,000 cores
	MemoryBytesMin        = 1 << 20     // of a task that asks for memory at all
	MemoryBytesMax        = 1 << 50
	PIDsMax               = 4 << 20 // processes and threads of a task; Linux has no more numbers
	ImageBytesMax         = 512
	LogBytesMin           = 64 << 10
	LogBytesMax           = 64 << 30
	LostAfterMSMin        = 100
	LostAfterMSMax        = 7 * 24 * 3600 * 1000
	GraceMSMax            = 24 * 3600 * 1000
	IdleAfterMSMin        = 1000 // of a role whose tasks end when nobody uses them
	IdleAfterMSMax        = 30 * 24 * 3600 * 1000
	RoleNameDefault       = "worker"
	faultsMax             = 100 // shown; more are counted
	yamlTokensMax         = 50_000
	yamlDepthMax          = 32
	yamlKeyBytesMax       = 256
	yamlNodesMax          = 50_000 // after aliases and merge keys are followed
	suggestDistance       = 2      // edits between an unknown field and the one that was meant
	quotedBytesMax        = 60     // of a value that is shown in a fault
	generatedNameBytesMax = 32     // of a name made from a file or a command
)

// Parse reads a job file. name is the file's path: its folder resolves a relative workdir
// (when the path is absolute) and its base names a job that has no name. The error is of
// type Faults and holds all faults. A spec that is returned passes Validate.
func Parse(name string, src []byte) (*pb.JobSpec, error) {
	d := &decoder{file: name, lines: map[string]int{}}
	return d.parse(src)
}

func (d *decoder) parse(src []byte) (*pb.JobSpec, error) {
	root := d.tree(src)
	if root == nil {
		return nil, d.result()
	}
	spec := d.job(root)
	Complete(spec)
	d.validate(spec)
	if err := d.result(); err != nil {
		return nil, err
	}
	return spec, nil
}
