package elastic

// ownBatch stands for the total batch of a job that keeps it to itself: divisible by every
// count of GPUs up to sixteen.
const ownBatch = 720_720

// FixedLimits are those of a job that only changes its number of GPUs: a step is the same
// work on any of them, and what it consists of is the job's own affair. most 0: no limit.
func FixedLimits(least, most int) Limits {
	return Limits{GPUsMin: max(1, least), GPUsMax: most, BatchMin: ownBatch, BatchMax: ownBatch, LocalMin: 1, LocalMax: ownBatch}
}

// FixedObservation is what such a job tells by reporting its steps: how long one took on so
// many GPUs of so many nodes, s.
func FixedObservation(nodes, gpus int, stepS float64) Observation {
	return Observation{Nodes: nodes, GPUs: gpus, Local: ownBatch / max(1, gpus), StepS: stepS, SyncS: -1}
}
