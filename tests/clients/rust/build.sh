#!/usr/bin/env bash
# Generates (build.rs) and builds target/debug/pointsman-client. PROTOS is the proto/ folder.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
cargo build --quiet
