#!/usr/bin/env bash
# Runs the tests on the oldest and on the newest Keras and TensorFlow that setup.py allows, each in
# a virtual environment of its own, and says what was installed and whether the tests passed.
#
#   bash tools/versions.sh                           both, all that `make test` runs (half an hour)
#   bash tools/versions.sh oldest tests/methods      one of them, with arguments for pytest
#   PYTHON=python3.13 bash tools/versions.sh newest  another Python
#
# SCRATCH names a folder for the environments to stay in; without it they are deleted at the end.
set -euo pipefail
cd "$(dirname "$0")/.."

which=both
case "${1:-}" in oldest | newest | both) which=$1; shift ;; esac

scratch=${SCRATCH:-$(mktemp -d)}
[ -n "${SCRATCH:-}" ] || trap 'rm -rf "$scratch"' EXIT

# The lower bound of a package in setup.py: lowest keras -> keras==3.13.0
lowest() {
  sed -nE "s/^ *\"($1)>=([0-9.]+).*\",$/\1==\2.0/p" setup.py
}

check() {
  name=$1; shift
  environment=$scratch/$name
  [ -x "$environment/bin/python" ] || "${PYTHON:-python3}" -m venv "$environment"
  "$environment/bin/python" -m pip install --quiet --disable-pip-version-check \
    --editable '.[training,test]' "${pins[@]}"
  "$environment/bin/python" -m pip list --disable-pip-version-check 2>/dev/null |
    grep -iE '^(tensorflow|keras|numpy|ai-edge-litert) ' | sed "s/^/$name: /"
  if "$environment/bin/python" -m pytest -n 2 -q "$@"; then
    echo "$name: passed"
  else
    echo "$name: FAILED"
    failed=1
  fi
}

failed=0
if [ "$which" != newest ]; then
  # shellcheck disable=SC2207
  # tensorflow-datasets' own dependency needs a newer protobuf than TensorFlow 2.18 allows.
  pins=($(lowest keras) $(lowest tensorflow) "tensorflow-metadata<1.18")
  check oldest "$@"
fi
if [ "$which" != oldest ]; then
  pins=(--upgrade)
  check newest "$@"
fi
exit "$failed"
