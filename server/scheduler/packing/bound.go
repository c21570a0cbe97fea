package packing

// Counted is a number of equal tasks.
type Counted struct {
	Shape Shape
	Tasks float64
}

// Bound is the most devices that any placement of some of these tasks can allocate on the
// fleet: the optimum of a relaxation, in which the tasks are chosen with all of them known,
// tasks divide, and a model's CPU and memory are one pool. What tasks ask of a pool is
// understated, never overstated: the least of those that ask alike of devices. ok is false
// when the programme did not reach its optimum.
func Bound(tasks []Counted, fleet Fleet) (devices float64, ok bool) {
	fleet = fleet[:min(len(fleet), ModelsMax)]
	present := fleet.present()
	var classes []class
	for i := range tasks {
		s := &tasks[i].Shape
		models := s.Models & present
		if s.GPUs <= 0 || models == 0 || tasks[i].Tasks <= 0 {
			continue
		}
		at := 0
		for at < len(classes) && (classes[at].gpus != s.GPUs || classes[at].share != s.Share || classes[at].models != models) {
			at++
		}
		if at == len(classes) {
			classes = append(classes, class{gpus: s.GPUs, share: s.Share, models: models, cpu: float64(s.CPU), memory: float64(s.Memory)})
		}
		c := &classes[at]
		c.tasks += tasks[i].Tasks
		c.cpu, c.memory = min(c.cpu, float64(s.CPU)), min(c.memory, float64(s.Memory))
	}
	lp := newProgramme(classes, fleet)
	ok = lp.solve()
	return lp.x.value, ok
}
