#!/usr/bin/env bash
# Generates and builds out/client. PROTOS is the proto/ folder, GOOGLEAPIS the folder that has google/rpc/*.proto.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
cmake -S . -B out -DPROTOS="$PROTOS" -DGOOGLEAPIS="$GOOGLEAPIS"
cmake --build out --parallel 2
