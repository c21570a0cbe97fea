#!/bin/bash
# Checks llmos on a host with an NVIDIA GPU, in under 5 minutes: the inventory is that of
# nvidia-smi, a task sees its device alone, a task beyond its memory is warned and ended, memory
# of a stranger blocks the device, and two tasks with half a GPU each share one.
#
#   make build && test/gpu/check.sh [FOLDER]
#
# It needs root or a user's own PID namespace rights of the host, nvidia-smi, python3, and bin/llmos.
# What it saw goes to FOLDER (default test/gpu/out), into a file named by the day and the GPU. A
# program that holds device memory is made of the driver's own library by python's ctypes: no CUDA
# toolkit and no torch are needed.
set -u
cd "$(dirname "$0")/../.." || exit 1
out=${1:-test/gpu/out}
llmos=$PWD/bin/llmos
work=$(mktemp -d)
failed=0
mkdir -p "$out"

# hold.py BYTES SECONDS: holds so much memory of device 0 that it can see, and says what it sees.
cat >"$work/hold.py" <<'PY'
import ctypes, os, sys, time
cuda = ctypes.CDLL("libcuda.so.1")
def do(name, *args):
    ret = getattr(cuda, name)(*args)
    if ret:
        sys.exit("%s: error %d" % (name, ret))
do("cuInit", 0)
n = ctypes.c_int()
do("cuDeviceGetCount", ctypes.byref(n))
device, context, memory = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_uint64()
do("cuDeviceGet", ctypes.byref(device), 0)
uuid = (ctypes.c_ubyte * 16)()
do("cuDeviceGetUuid", ctypes.byref(uuid), device)
h = bytes(uuid).hex()
print("sees", n.value, "GPU-%s-%s-%s-%s-%s" % (h[:8], h[8:12], h[12:16], h[16:20], h[20:]), "granted", os.environ.get("LLMOS_DEVICES", "-"), flush=True)
create = getattr(cuda, "cuCtxCreate_v2")
if create(ctypes.byref(context), 0, device):
    sys.exit("cuCtxCreate failed")
size = int(float(sys.argv[1]))
if size:
    do("cuMemAlloc_v2", ctypes.byref(memory), ctypes.c_size_t(size))
print("holds", size, flush=True)
time.sleep(float(sys.argv[2]))
print("done", flush=True)
PY

say() { echo "$*" | tee -a "$work/record"; }
check() { # NAME COMMAND...: notes whether the command succeeds
  local name=$1
  shift
  if "$@" >>"$work/detail" 2>&1; then say "PASS  $name"; else say "FAIL  $name"; failed=1; fi
}
soon() { # SECONDS COMMAND...: until it succeeds
  local end=$(($(date +%s) + $1))
  shift
  until "$@"; do
    [ "$(date +%s)" -lt $end ] || return 1
    sleep 1
  done
}

json() { $llmos "$@" -o json | tr -d ' \n'; } # protojson puts spaces where it likes

nvidia-smi >/dev/null || { echo "there is no GPU that nvidia-smi sees"; exit 2; }
driver=$(nvidia-smi --query-gpu=driver_version --format=csv,noheader | head -1)
model=$(nvidia-smi --query-gpu=name --format=csv,noheader | head -1)
say "llmos on a real GPU, $(date -u +%Y-%m-%dT%H:%M:%SZ)"
say "$($llmos version | head -1); driver $driver; $(nvidia-smi -L | wc -l) x $model"

# A cluster of one server and one agent, with ports and folders of its own. The server makes
# the administrator's credentials in the folder that the verbs below read.
export LLMOS_CLIENT_DIR=$work/client
port=$((20000 + RANDOM % 20000))
$llmos server --bootstrap --client-dir "$work/client" --data-dir "$work/server" --listen 127.0.0.1:$port >"$work/server.log" 2>&1 &
server=$!
soon 30 $llmos status >"$work/status" 2>&1 || { cat "$work/server.log" "$work/status"; exit 1; }
token=$(json token create --role agent | sed 's/.*"token":"\([^"]*\)".*/\1/')
$llmos agent --data-dir "$work/agent" --listen 127.0.0.1:$((port + 1)) --join 127.0.0.1:$port --token "$token" --name gpuhost --stranger-memory 1Gi \
  --port-range 41000-41099 >"$work/agent.log" 2>&1 &
agent=$!
trap 'kill $agent $server 2>/dev/null; wait 2>/dev/null; rm -rf "$work"' EXIT
devices() { json devices; }
found() { devices 2>/dev/null | grep -q 'GPU-\|MIG-'; }
soon 40 found || { say "FAIL  the agent finds a GPU"; tail -5 "$work/agent.log"; exit 1; }

# 1. The inventory.
ours() { devices | grep -o '"id":"\(GPU\|MIG\)-[^"]*"' | cut -d'"' -f4 | sort; }
theirs() { nvidia-smi -L | grep -o '\(GPU\|MIG\)-[0-9a-f-]*' | sort; }
if nvidia-smi -L | grep -q MIG-; then theirs() { nvidia-smi -L | grep -o 'MIG-[0-9a-f-]*' | sort; }; fi
check "the inventory is that of nvidia-smi" diff <(ours) <(theirs)
addressed() { ! devices | grep -q '"bus_id":""'; }
check "each device has a PCI address" addressed

# 2. A task sees its device alone.
job() { # NAME SHARE MEMORY BYTES SECONDS: runs hold.py; gives the job's ID
  local share=()
  [ "$2" = 1 ] || share=(--gpu-share "$2" --gpu-memory "$3")
  $llmos run --name "$1" --gpus 1 "${share[@]}" --memory 4Gi -o json -- python3 "$work/hold.py" "$4" "$5" | tr -d ' \n' | grep -o '"job_id":"[^"]*"' | cut -d'"' -f4
}
is() { # ID STATE: whether the job is in the state
  json ps --all 2>/dev/null | python3 -c 'import json,sys
jobs={v["job"]["id"]:v["job"]["state"] for v in json.load(sys.stdin)["jobs"]}
sys.exit(jobs.get(sys.argv[1])!="JOB_STATE_"+sys.argv[2])' "$1" "$2"
}
reason() { json ps --all | grep -o 'used[^"]*weregranted'; }
logs() { $llmos logs "$1" 2>/dev/null; }
chmod 755 "$work" "$work/hold.py"
id=$(job whole 1 - 1e9 3)
check "a job on a whole GPU succeeds" soon 40 is "$id" SUCCEEDED
seen=$(logs "$id" | grep ^sees)
say "      $seen"
check "it sees one device, the one that it was granted" sh -c "set -- $seen; [ \"\$2\" = 1 ] && [ \"\$3\" = \"\$5\" ]"

# 3. Two tasks with half a GPU each share one device.
one=$(job half-one 0.5 8Gi 1e9 25)
two=$(job half-two 0.5 8Gi 1e9 25)
both() { is "$one" RUNNING && is "$two" RUNNING && logs "$one" | grep -q ^holds && logs "$two" | grep -q ^holds; }
check "two jobs with half a GPU run at the same time" soon 30 both
check "on one device" sh -c "[ \"$(logs "$one" | awk '/^sees/{print $3}')\" = \"$(logs "$two" | awk '/^sees/{print $3}')\" ]"
sleep 12
say "      $($llmos devices | sed -n 2p)"
measured() { devices | grep -q '"memory_used_bytes":"[1-9][0-9]\{8,\}"'; }
check "the memory in use is measured" soon 20 measured
succeeded() { is "$one" SUCCEEDED && is "$two" SUCCEEDED; }
check "and both succeed" soon 40 succeeded

# 4. The watchdog of memory.
id=$(job greedy 0.25 2Gi 6e9 120)
check "a task beyond its memory is ended" soon 40 is "$id" FAILED
say "      $($llmos ps --all | grep greedy)"
check "and the reason says so" reason

# 5. Memory of a stranger blocks the device until it has gone.
python3 "$work/hold.py" 4e9 40 >"$work/stranger" 2>&1 &
blocked() { devices | grep -q DEVICE_HEALTH_BLOCKED; }
check "memory of a process of no task blocks the device" soon 35 blocked
say "      $($llmos nodes | grep blocked)"
unblocked() { ! blocked; }
check "until the process has gone" soon 75 unblocked

say "$([ $failed = 0 ] && echo all passed || echo FAILED) after $SECONDS s"
file="$out/$(date -u +%Y-%m-%d)-$(echo "$model" | tr -c 'A-Za-z0-9\n' -)"
cp "$work/record" "$file.txt"
[ $failed = 0 ] || { tail -40 "$work/detail" "$work/agent.log"; cp "$work/agent.log" "$file-agent.log"; }
exit $failed
