#!/usr/bin/env bash
# Generates and compiles into target/. PROTOS is the proto/ folder; Maven brings protoc and the plugin by itself.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
mvn --quiet --batch-mode --no-transfer-progress "-Dprotos=$PROTOS" package
