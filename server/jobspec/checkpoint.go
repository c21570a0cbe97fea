package jobspec

import (
	"fmt"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	pb "llmos/proto/llmos/v1"
)

// CheckpointsMax is how many checkpoints of a job can be kept.
const CheckpointsMax = 100

// checkpoint reads how a job saves itself; a duration alone is how often.
func (d *decoder) checkpoint(n *node, field string, s *pb.JobSpec) {
	if n.shape != mapping {
		d.amount(&s.CheckpointEveryMs, ParseDuration)(n, field)
		return
	}
	c, ranks := &pb.CheckpointSpec{}, ""
	d.mapping(n, field+".", []rule{
		{"path", d.text(&c.Path)},
		{"every", d.amount(&s.CheckpointEveryMs, ParseDuration)},
		{"keep", func(n *node, field string) {
			d.integer(&c.Keep)(n, field)
			if n.shape == number && c.Keep == 0 {
				d.add(field, n.line, "0 checkpoints are nothing to go on from").Hint("keep 1 or more, or leave checkpoint out")
			}
		}},
		{"ranks", d.oneOf(&ranks, "first", "each")},
		{"restart", d.amount(&s.RestartMs, ParseDuration)},
	})
	c.Ranks = map[string]pb.CheckpointRanks{"first": pb.CheckpointRanks_CHECKPOINT_RANKS_FIRST,
		"each": pb.CheckpointRanks_CHECKPOINT_RANKS_EACH}[ranks]
	if c.Path != "" || c.Keep != 0 || ranks != "" {
		s.Checkpoint = c
	}
}

// ParseResume reads a checkpoint to start from: train-1@1200, or train-1 for its newest.
func ParseResume(text string) (*pb.ResumeSpec, error) {
	job, step, given := strings.Cut(text, "@")
	r := &pb.ResumeSpec{Job: job}
	if !given {
		return r, nil
	}
	n, err := strconv.ParseInt(step, 10, 64)
	if err != nil || n < 1 {
		return nil, invalid("%s is not a step", quoted(step)).Hint("write such as %s@1200, or %s for the newest; llmos checkpoints %s lists them", job, job, job)
	}
	r.Step = n
	return r, nil
}

func (d *decoder) resume(n *node, field string, s *pb.JobSpec) {
	if n.shape != text {
		d.wrong(n, field, "a job and a step").Hint("such as train-1@1200, or train-1 for its newest")
		return
	}
	r, err := ParseResume(n.text)
	if err != nil {
		d.at(n, field, err)
		return
	}
	s.Resume = r
}

// saving checks how a job saves itself and what it starts from.
func (c *checker) saving(s *pb.JobSpec) {
	if k := s.Checkpoint; k != nil {
		if k.Keep != 0 {
			c.between("checkpoint.keep", int64(k.Keep), 1, CheckpointsMax)
		}
		if k.Ranks < 0 || k.Ranks > pb.CheckpointRanks_CHECKPOINT_RANKS_EACH {
			c.add("checkpoint.ranks", "%d is not known", k.Ranks).Hint("use first or each")
		}
		c.checkpointPath(s, k.Path)
	}
	if r := s.Resume; r != nil {
		switch {
		case !isJob(r.Job):
			c.add("resume", "%s is neither a job's name nor an ID", quoted(r.Job)).Hint("such as train, or train-1@1200")
		case r.Step < 0:
			c.add("resume", "step %d is less than none", r.Step).Hint("leave the step out for the newest")
		case s.Array != nil || s.Cron != nil:
			c.add("resume", "the copies of an array or a cron job do not go on from a checkpoint").Hint("leave resume out, or run one job")
		}
	}
}

// checkpointPath checks that the folder of checkpoints is below every task's working directory.
func (c *checker) checkpointPath(s *pb.JobSpec, p string) {
	const field = "checkpoint.path"
	if p == "" {
		return
	}
	c.text(field, p, PathBytesMax/4)
	for _, r := range s.Roles {
		if r.GetImage() != "" && r.GetWorkdir() != "" {
			c.add(field, "role %s has its working directory in image %s, where nobody finds its checkpoints", r.GetName(), quoted(r.Image)).
				Hint("leave workdir out: the task then runs in its private folder, and saves itself below it")
			return
		}
	}
	if !path.IsAbs(p) {
		if !filepath.IsLocal(p) {
			c.add(field, "%s leads out of the working directory", quoted(p)).Hint("write a folder below it, such as ckpt")
		}
		return
	}
	for i, r := range s.Roles {
		within := fmt.Sprintf("its working directory %s", r.GetWorkdir())
		if r.GetWorkdir() == "" {
			within = "its working directory, which is made for the task"
		} else if rel, err := filepath.Rel(r.Workdir, p); err == nil && filepath.IsLocal(rel) {
			continue
		}
		c.add(field, "%s of role %s is not below %s", quoted(p), r.GetName(), within).Hint("write it as seen from there, such as ckpt")
		if i == 0 {
			return // the others are likely to be wrong in the same way
		}
	}
}
