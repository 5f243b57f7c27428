#!/usr/bin/env bash
# Build a copy of the package with AddressSanitizer and UndefinedBehaviorSanitizer, and run the tests that reach C.
#
# Needs gcc (or clang as CC) with its sanitizer runtime, and a Python with the test requirements: `make sanitize` has
# one. Arguments go to pytest; without any, tests/kernels, tests/roundtrip, tests/robust, tests/compat and tests/fuzz run.
# The copy lies in .sanitize (Z4AI_SANITIZE_DIR); the source tree is left alone.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$PWD
work=${Z4AI_SANITIZE_DIR:-$root/.sanitize}
python=${PYTHON:-python}
cc=${CC:-gcc}

# No optimisation beyond -O1: the checks then see the loops as they are written. A shift or an overflow that C does
# not define ends the run; what the vectors of a target may read out of bounds is seen by ASan at any level.
export Z4AI_EXTRA_CFLAGS="-O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=undefined"
export Z4AI_EXTRA_LDFLAGS="-fsanitize=address,undefined"

mkdir -p "$work/tree"
rm -rf "$work/tree/tests"
# Times are kept, so that only what changed is built again.
tar -cf - --exclude='*.so' --exclude='z4ai/_fast/*.c' --exclude=__pycache__ z4ai tests bench tools docs |
    tar -C "$work/tree" -xf -
cp -p setup.py pyproject.toml conftest.py README.md LICENSE "$work/tree/"
cd "$work/tree"
CC=$cc "$python" setup.py -q build_ext --inplace

runtime=$("$cc" -print-file-name=libasan.so)
if [[ $runtime != /* ]]; then
    runtime=$("$cc" -print-file-name=libclang_rt.asan-$(uname -m).so)
fi
stdcxx=$("$cc" -print-file-name=libstdc++.so.6)
if [[ $runtime != /* ]]; then
    echo "sanitize: $cc has no AddressSanitizer runtime to preload" >&2
    exit 2
fi
if (($# == 0)); then
    set -- tests/kernels tests/roundtrip tests/robust tests/compat tests/fuzz
fi
# Leaks: Python keeps what it interned. NumPy and bytes come from malloc under PYTHONMALLOC=malloc, so every buffer
# has red zones on both sides. The allocator returns NULL for absurd sizes as malloc does, instead of ending the run.
export LD_PRELOAD="$runtime${stdcxx:+ $stdcxx}"
export PYTHONMALLOC=malloc PYTHONDONTWRITEBYTECODE=1 PYTHONPATH="$work/tree" Z4AI_SANITIZED=1
export ASAN_OPTIONS="detect_leaks=0:allocator_may_return_null=1:abort_on_error=1:detect_stack_use_after_return=1"
export UBSAN_OPTIONS="print_stacktrace=1:halt_on_error=1"
export HYPOTHESIS_PROFILE=${HYPOTHESIS_PROFILE:-dev}
exec "$python" -m pytest -p no:cacheprovider -q --timeout=1800 "$@"
