package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"llmos/agent/checkpoint"
	"llmos/agent/exec"
	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
)

const (
	resumeFolder   = "resume"         // of a task's directory: what it goes on from
	resumePatience = 30 * time.Second // with nodes that hold it and do not answer
	resumePauseMin = 100 * time.Millisecond
	resumePauseMax = 2 * time.Second
)

// errResume is wrapped when a task cannot go on from its checkpoint, wherever it is tried from.
var errResume = errors.New("its checkpoint cannot be had")

// stage puts the checkpoint that a task goes on from into its directory and gives the variables that
// tell the task. A copy that does not fit its digest is refused, and the next one is tried. The error
// wraps errResume when no copy will do: the step before is next then.
func (v *vault) stage(ctx context.Context, a *pb.Assignment, s site) ([]string, error) {
	one := a.GetResume()
	if one == nil {
		return nil, nil
	}
	c := one.GetCheckpoint()
	d, err := checkpoint.DigestOf(c.GetManifestSha256())
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errResume, err)
	}
	uid, gid, err := ownerIDs(s.taskUserOf(a))
	if err != nil {
		return nil, err
	}
	defer v.pin(d)()
	into := filepath.Join(s.dir(a.GetTask().GetId()), resumeFolder)
	patience := v.now().Add(resumePatience)
	for wait := resumePauseMin; ; wait = min(2*wait, resumePauseMax) {
		path, err := v.stageOnce(ctx, one, d, into, uid, gid)
		if err == nil {
			return resumeVariables(c, path), nil
		}
		if ctx.Err() != nil || errors.Is(err, checkpoint.ErrNoRoom) {
			return nil, err
		}
		if hopeless(err) || v.now().After(patience) {
			return nil, fmt.Errorf("%w: step %d of rank %d: %w", errResume, c.GetStep(), c.GetRank(), err)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(wait):
		}
	}
}

// stageOnce stages from the store, which is filled from the sources when it lacks the checkpoint or
// holds it broken.
func (v *vault) stageOnce(ctx context.Context, one *pb.Holding, d checkpoint.Digest, into string, uid, gid int) (string, error) {
	var broken error
	if v.store.Has(d) {
		path, err := v.store.Stage(ctx, d, into, uid, gid)
		if !errors.Is(err, checkpoint.ErrBroken) {
			return path, err
		}
		broken = fmt.Errorf("this node's copy: %w", err)
		v.lose(d, err.Error())
	}
	if err := v.fetch(ctx, one, d); err != nil {
		return "", errors.Join(broken, err)
	}
	return v.store.Stage(ctx, d, into, uid, gid)
}

// hopeless reports whether every source has given a definite answer: broken, or not there.
func hopeless(err error) bool {
	if joined, ok := err.(interface{ Unwrap() []error }); ok { // by several sources
		return !slices.ContainsFunc(joined.Unwrap(), func(e error) bool { return !hopeless(e) })
	}
	return errors.Is(err, checkpoint.ErrBroken) || errors.Is(err, errNoSource) || fault.Kind(err) == pb.ErrorKind_ERROR_KIND_NOT_FOUND
}

// resumeVariables tell a task what it goes on from.
func resumeVariables(c *pb.Checkpoint, path string) []string {
	return []string{"LLMOS_RESUME=" + path, "LLMOS_RESUME_STEP=" + strconv.FormatInt(c.GetStep(), 10),
		"LLMOS_RESUME_RANK=" + strconv.Itoa(int(c.GetRank())), "LLMOS_RESUME_WORLD_SIZE=" + strconv.Itoa(int(c.GetWorldSize()))}
}

// ownerIDs gives the IDs of the user that a task runs as; negative when files need not be given to it.
func ownerIDs(name string) (uid, gid int, err error) {
	if name == "" || os.Geteuid() != 0 {
		return -1, -1, nil
	}
	u, err := user.Lookup(name)
	if err != nil {
		if u, err = user.LookupId(name); err != nil {
			return 0, 0, fmt.Errorf("user %q does not exist on this node", name)
		}
	}
	uid, uidErr := strconv.Atoi(u.Uid)
	gid, gidErr := strconv.Atoi(u.Gid)
	return uid, gid, errors.Join(uidErr, gidErr)
}

// workdirOf is the folder in which a task works.
func (s site) workdirOf(a *pb.Assignment) string {
	if dir := a.GetRole().GetWorkdir(); dir != "" {
		return dir
	}
	return exec.HomeDir(s.dir(a.GetTask().GetId()))
}

// below gives a path that is seen from a folder, or absolute below it, as seen from it.
func below(dir, path string) (string, error) {
	if filepath.IsAbs(path) {
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return "", err
		}
		path = rel
	}
	path = filepath.Clean(path)
	if !filepath.IsLocal(path) || strings.ContainsRune(path, 0) {
		return "", fmt.Errorf("%s is not below the working directory", path)
	}
	return filepath.ToSlash(path), nil
}
