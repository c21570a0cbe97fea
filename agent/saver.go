package agent

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"llmos/agent/checkpoint"
	"llmos/agent/exec"
	pb "llmos/proto/llmos/v1"
)

const (
	saverLooks  = 2 * time.Second  // between two looks at a task's checkpoint folder
	tellWithin  = 3 * time.Second  // after a rename to a name without a number the task may tell the step
	saveWait    = 2 * time.Minute  // after a task's end, for what it saved last to be recorded
	noRoomPause = 30 * time.Second // after the disk was too full
)

// saver takes what one task saves into the vault: what it finds finished in the task's checkpoint
// folder, and what the task announces.
type saver struct {
	vault  *vault
	ctx    context.Context
	cancel context.CancelFunc
	base   checkpoint.Key // without a step
	dir    string         // the task's working directory
	rel    string         // its checkpoint folder, seen from there; empty: none is looked at
	owner  int
	begun  time.Time // what is older is of an earlier task
	every  time.Duration

	told   chan []exec.Told
	ending chan struct{}
	done   chan struct{}

	// Of the goroutine alone:
	root    *os.Root
	watch   *checkpoint.Watch
	heard   int64             // number of the newest told line that was taken in
	steps   map[string]int64  // told: path -> step; negative: by its name
	handled map[string]string // path -> print of what was taken, or refused
	takenAs map[string]int64  // path -> step under which it was taken
	pause   map[string]time.Time
	newest  checkpoint.Key // taken last
	taken   bool
}

// newSaver gives the saver of a task, running; nil when the job has asked for none.
func (v *vault) newSaver(ctx context.Context, a *pb.Assignment, s site) *saver {
	spec, task := a.GetCheckpoint(), a.GetTask()
	if spec == nil {
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	sv := &saver{vault: v, ctx: ctx, cancel: cancel, dir: s.workdirOf(a), owner: -1, every: saverLooks,
		base: checkpoint.Key{Job: task.GetJobId(), Epoch: task.GetEpoch(), Rank: task.GetRank()},
		told: make(chan []exec.Told, 1), ending: make(chan struct{}), done: make(chan struct{}),
		steps: map[string]int64{}, handled: map[string]string{}, takenAs: map[string]int64{}, pause: map[string]time.Time{}}
	if uid, _, err := ownerIDs(s.taskUserOf(a)); err == nil {
		sv.owner = uid
	}
	if info, err := os.Stat(filepath.Join(s.dir(task.GetId()), attemptKeyFile)); err == nil {
		sv.begun = info.ModTime()
	}
	// Tasks that share a working directory cannot be told apart by what lies there: the first of
	// them on a node looks, and the others are heard.
	if spec.GetPath() != "" && (a.GetRole().GetWorkdir() == "" || task.GetLocalRank() == 0) {
		rel, err := below(sv.dir, spec.GetPath())
		if err != nil {
			v.refuse(sv.base, spec.GetPath(), err.Error())
		}
		sv.rel = rel
	}
	go sv.run()
	return sv
}

// tell passes on what the task has announced.
func (sv *saver) tell(told []exec.Told) {
	if sv == nil || len(told) == 0 {
		return
	}
	select { // the newest takes the place of one that was not taken in yet: it holds its lines too
	case <-sv.told:
	default:
	}
	sv.told <- told
}

// finish takes what the task has left at its end, and waits until the newest of it is recorded, but
// not for ever.
func (sv *saver) finish() {
	if sv == nil {
		return
	}
	ctx, cancel := context.WithTimeout(sv.ctx, saveWait)
	defer cancel()
	close(sv.ending)
	select {
	case <-sv.done:
	case <-ctx.Done():
		return
	}
	if sv.taken {
		sv.vault.recorded(ctx, sv.newest)
	}
}

// stop ends the saver and joins its goroutine.
func (sv *saver) stop() {
	if sv != nil {
		sv.cancel()
		<-sv.done
	}
}

func (sv *saver) run() {
	defer close(sv.done)
	defer sv.close()
	sv.recall()
	sv.look(false)
	tick := time.NewTicker(sv.every)
	defer tick.Stop()
	for {
		var news <-chan struct{}
		if sv.watch != nil {
			news = sv.watch.News()
		}
		select {
		case <-sv.ctx.Done():
			return
		case <-sv.ending:
			sv.hear()
			sv.look(true)
			return
		case told := <-sv.told:
			sv.take(told)
		case <-news:
		case <-tick.C:
		}
		sv.look(false)
	}
}

func (sv *saver) close() {
	if sv.watch != nil {
		sv.watch.Close()
	}
	if sv.root != nil {
		sv.root.Close()
	}
}

// recall begins behind what an earlier run of the agent has taken of this task.
func (sv *saver) recall() {
	for _, ref := range sv.vault.store.Refs() {
		if ref.Job == sv.base.Job && ref.Epoch == sv.base.Epoch && ref.Rank == sv.base.Rank {
			if at := time.UnixMilli(ref.SavedMS).Add(time.Millisecond); at.After(sv.begun) {
				sv.begun = at
			}
			if !sv.taken || ref.Step > sv.newest.Step {
				sv.newest, sv.taken = ref.Key, true
			}
		}
	}
}

// hear takes in what was told and not taken in yet.
func (sv *saver) hear() {
	select {
	case told := <-sv.told:
		sv.take(told)
	default:
	}
}

func (sv *saver) take(told []exec.Told) {
	for _, t := range told {
		if t.Number <= sv.heard {
			continue
		}
		sv.heard = t.Number
		rel, err := below(sv.dir, t.Path)
		if err != nil || rel == "." {
			sv.vault.refuse(sv.base, path.Base(t.Path), "the task called it finished, and "+t.Path+" is not below the working directory")
			continue
		}
		sv.steps[rel] = t.Step
		if as, taken := sv.takenAs[rel]; !taken || as != t.Step && t.Step >= 0 || path.Dir(rel) != sv.rel {
			delete(sv.handled, rel)
		}
	}
}

// found is an entry with its path in the working directory.
type found struct {
	path string
	checkpoint.Seen
}

// look takes what is finished: the oldest first, but at the task's end, when time is short, the
// newest.
func (sv *saver) look(ended bool) {
	if !sv.open() {
		return
	}
	all := append(sv.listed(), sv.announced()...)
	slices.SortStableFunc(all, func(a, b found) int {
		if ended {
			return b.Changed.Compare(a.Changed)
		}
		return a.Changed.Compare(b.Changed)
	})
	for _, f := range all {
		if sv.ctx.Err() != nil {
			return
		}
		if sv.due(f, ended) {
			sv.takeOne(f, ended)
		}
	}
}

// open opens the working directory once it is there, and the watch of the folder in it.
func (sv *saver) open() bool {
	if sv.root == nil {
		root, err := os.OpenRoot(sv.dir)
		if err != nil {
			return false
		}
		sv.root = root
	}
	if sv.watch == nil && sv.rel != "" {
		if w, err := checkpoint.WatchFolder(sv.root, sv.rel); err == nil {
			sv.watch = w
		}
	}
	return true
}

// listed gives what is in the checkpoint folder, as far as it is this task's.
func (sv *saver) listed() (out []found) {
	if sv.rel == "" {
		return nil
	}
	known := func(name, print string) bool { return sv.handled[path.Join(sv.rel, name)] == print }
	seen, err := checkpoint.Look(sv.root, sv.rel, known)
	if err != nil {
		if errors.Is(err, checkpoint.ErrRefused) && sv.handled[sv.rel] == "" {
			sv.handled[sv.rel] = "refused"
			sv.vault.refuse(sv.base, path.Base(sv.rel), reasonOf(err))
		}
		return nil
	}
	var moved map[string]bool
	if sv.watch != nil {
		moved = sv.watch.Moved()
	}
	for _, s := range seen {
		p := path.Join(sv.rel, s.Name)
		_, s.Told = sv.steps[p]
		s.Moved = moved[s.Name]
		if !s.Told && !s.Moved && s.Changed.Before(sv.begun) {
			continue
		}
		out = append(out, found{p, s})
	}
	return out
}

// announced gives what the task has told of and lies elsewhere.
func (sv *saver) announced() (out []found) {
	for p := range sv.steps {
		if sv.rel != "" && path.Dir(p) == sv.rel {
			if _, err := sv.root.Lstat(p); !errors.Is(err, fs.ErrNotExist) {
				continue // among those listed
			}
		}
		if sv.handled[p] != "" {
			continue
		}
		f := found{p, checkpoint.Seen{Name: path.Base(p), Told: true, Print: "told", Changed: sv.vault.now()}}
		if info, err := sv.root.Stat(p); err == nil {
			f.Changed = info.ModTime()
		}
		out = append(out, f)
	}
	return out
}

// due reports whether an entry is to be taken, or refused, now.
func (sv *saver) due(f found, ended bool) bool {
	now := sv.vault.now()
	if sv.handled[f.path] == f.Print || now.Before(sv.pause[f.path]) {
		return false
	}
	if f.Fault != "" {
		return true
	}
	if !f.Told && checkpoint.StepOf(f.Name, time.Unix(-1, 0)) < 0 {
		// The name says no step. The task may be about to; one that announces others keeps this to itself.
		if len(sv.steps) > 0 || !ended && now.Sub(f.Changed) < tellWithin {
			return false
		}
	}
	return checkpoint.Finished(f.Seen, now, ended)
}

// takeOne takes an entry into the vault, or says why not.
func (sv *saver) takeOne(f found, ended bool) {
	key := sv.base
	key.Step = checkpoint.StepOf(f.Name, f.Changed)
	if step, told := sv.steps[f.path]; told && step >= 0 {
		key.Step = step
	}
	if f.Fault != "" {
		sv.handled[f.path] = f.Print
		sv.vault.refuse(key, f.Name, f.Fault)
		return
	}
	ref, err := sv.vault.store.Take(sv.ctx, checkpoint.Source{Root: sv.root, Path: f.path, Owner: sv.owner}, key, f.Changed.UnixMilli())
	switch {
	case err == nil:
		sv.handled[f.path], sv.takenAs[f.path] = f.Print, key.Step
		sv.vault.log.Info("a checkpoint is taken", "checkpoint", key, "bytes", ref.Size)
		sv.vault.report(ref)
		if !sv.taken || key.Step >= sv.newest.Step {
			sv.newest, sv.taken = key, true
		}
	case sv.ctx.Err() != nil:
	case errors.Is(err, checkpoint.ErrChanged) && !ended:
	case errors.Is(err, checkpoint.ErrNoRoom):
		sv.pause[f.path] = sv.vault.now().Add(noRoomPause)
		sv.vault.refuse(key, f.Name, err.Error())
	default:
		sv.handled[f.path] = f.Print
		sv.vault.refuse(key, f.Name, reasonOf(err))
	}
}

// reasonOf gives what is wrong without the words that every refusal begins with.
func reasonOf(err error) string {
	return strings.TrimPrefix(err.Error(), checkpoint.ErrRefused.Error()+": ")
}
