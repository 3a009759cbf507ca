#!/usr/bin/env bash
# Installs the SDK into node_modules/.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
npm install --no-package-lock --no-audit --no-fund --loglevel=error
