package collective

import (
	"context"
	"slices"
	"sync"
)

// gather sends this rank's bytes to all and receives those of all.
func (g *Group) gather(ctx context.Context, op operation, mine []byte) ([][]byte, error) {
	seq, err := g.begin(op)
	if err != nil {
		return nil, err
	}
	all := make([][]byte, g.cfg.World)
	all[g.cfg.Rank] = slices.Clone(mine)
	if g.cfg.World == 1 {
		return all, g.end(nil)
	}
	t := g.newTrial(op, seq)
	stop := t.watch(ctx)
	var done sync.WaitGroup
	for _, l := range g.links {
		if l == nil {
			continue
		}
		read := make(chan struct{})
		done.Go(func() {
			if !t.writeBy(l) {
				return
			}
			if err := l.send(header{kind: kindGather, op: op, seq: seq}, mine); err != nil {
				t.lostWriting(l, err, op, seq, read)
			}
		})
		done.Go(func() {
			defer close(read)
			h, body, ok := t.next(l, op, seq)
			if !ok {
				return
			}
			if h.kind != kindGather || h.length > GatherBytesMax {
				t.report(evidence{err: t.fault(l.rank, "broke the protocol", "its frame is not part of "+t.what), certain: true})
				return
			}
			all[l.rank] = slices.Clone(body)
		})
	}
	done.Wait()
	stop()
	if err := g.end(t.verdict()); err != nil {
		return nil, err
	}
	return all, nil
}
