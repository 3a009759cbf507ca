#!/usr/bin/env bash
# Generates into pointsmanv1/, and builds ./client. PROTOS is the proto/ folder, PROTOC a protoc of any kind.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
export GOBIN="$PWD/bin"
go install tool
package=example.com/pointsman-client/pointsmanv1
$PROTOC --proto_path="$PROTOS" --plugin=bin/protoc-gen-go --plugin=bin/protoc-gen-go-grpc \
    --go_out=. --go_opt=module=example.com/pointsman-client --go_opt=Mpointsman/v1/router_service.proto=$package \
    --go-grpc_out=. --go-grpc_opt=module=example.com/pointsman-client \
    --go-grpc_opt=Mpointsman/v1/router_service.proto=$package \
    pointsman/v1/router_service.proto
go build -o client .
