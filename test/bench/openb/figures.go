package main

// The figures that FGD's authors published with their simulator (hkust-adsl/
// kubernetes-scheduler-simulator, experiments/analysis/expected_results, commit 8f3d6417):
// GPUs allocated, % of the cluster, when demand of 100 % has arrived; means of seeds 42 to 51.
var published = map[string]map[string]float64{
	"default":     {"random": 86.30, "dotprod": 90.62, "clustering": 91.65, "packing": 91.78, "bestfit": 92.86, "fgd": 95.23},
	"cpu050":      {"random": 89.02, "dotprod": 93.03, "clustering": 93.52, "packing": 93.46, "bestfit": 93.56, "fgd": 95.00},
	"cpu100":      {"random": 87.44, "dotprod": 91.73, "clustering": 92.42, "packing": 92.50, "bestfit": 93.26, "fgd": 95.21},
	"cpu200":      {"random": 83.03, "dotprod": 87.45, "clustering": 89.67, "packing": 89.98, "bestfit": 92.15, "fgd": 94.82},
	"cpu250":      {"random": 80.00, "dotprod": 83.57, "clustering": 87.75, "packing": 88.05, "bestfit": 91.21, "fgd": 93.20},
	"gpushare40":  {"random": 84.86, "dotprod": 89.30, "clustering": 89.76, "packing": 89.77, "bestfit": 91.44, "fgd": 93.96},
	"gpushare60":  {"random": 82.81, "dotprod": 86.82, "clustering": 86.90, "packing": 87.15, "bestfit": 89.06, "fgd": 91.25},
	"gpushare80":  {"random": 80.62, "dotprod": 84.14, "clustering": 84.50, "packing": 84.65, "bestfit": 86.66, "fgd": 89.08},
	"gpushare100": {"random": 78.90, "dotprod": 81.98, "clustering": 82.22, "packing": 82.13, "bestfit": 84.62, "fgd": 86.64},
	"gpuspec10":   {"random": 86.26, "dotprod": 90.17, "clustering": 91.96, "packing": 92.24, "bestfit": 93.10, "fgd": 94.66},
	"gpuspec20":   {"random": 85.90, "dotprod": 88.29, "clustering": 89.11, "packing": 89.28, "bestfit": 88.46, "fgd": 94.66},
	"gpuspec25":   {"random": 85.42, "dotprod": 85.44, "clustering": 86.41, "packing": 86.77, "bestfit": 85.67, "fgd": 93.91},
	"gpuspec33":   {"random": 83.87, "dotprod": 79.82, "clustering": 81.09, "packing": 82.22, "bestfit": 80.39, "fgd": 87.84},
	"multigpu20":  {"random": 86.92, "dotprod": 91.85, "clustering": 93.34, "packing": 93.50, "bestfit": 93.73, "fgd": 95.53},
	"multigpu30":  {"random": 86.63, "dotprod": 93.11, "clustering": 94.55, "packing": 94.70, "bestfit": 94.57, "fgd": 96.36},
	"multigpu40":  {"random": 85.38, "dotprod": 94.04, "clustering": 95.35, "packing": 95.59, "bestfit": 95.10, "fgd": 96.91},
	"multigpu50":  {"random": 81.28, "dotprod": 94.73, "clustering": 95.69, "packing": 96.06, "bestfit": 95.62, "fgd": 97.09},
}

// prototype holds the means of the prototype of llmos' policy (PACKING.md), the mark to meet.
var prototype = map[string]float64{"default": 96.21, "cpu100": 96.22, "gpushare40": 94.81, "gpushare100": 88.21,
	"gpuspec33": 94.98, "multigpu20": 96.68}
