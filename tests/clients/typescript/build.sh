#!/usr/bin/env bash
# Generates into gen/, and compiles into dist/. PROTOS is the proto/ folder, PROTOC a protoc of any kind, and
# GOOGLEAPIS the folder that has google/rpc/error_details.proto.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
npm install --no-package-lock --no-audit --no-fund --loglevel=error
mkdir -p gen
$PROTOC --proto_path="$PROTOS" --proto_path="$GOOGLEAPIS" --plugin=node_modules/.bin/protoc-gen-es \
    --es_out=gen --es_opt=target=ts,import_extension=js \
    pointsman/v1/router_service.proto google/rpc/error_details.proto
npx tsc
