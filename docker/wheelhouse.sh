#!/bin/sh
# Gather every wheel that the images need, in the versions of requirements.lock, with their hashes.
# Usage: sh docker/wheelhouse.sh [DIR]
#
# They go to DIR/amd64 or DIR/arm64 (DIR: docker/wheelhouse): ours to own, all others to third-party.
# PLATFORM=linux/arm64 gathers for that machine (default: this one's). PYTHON names the interpreter
# that fetches; PYTHON_VERSION is the one in the images (3.11). TORCH=no leaves the trainer's out.
set -eu
cd "$(dirname "$0")/.."
dir=${1:-docker/wheelhouse}
python=${PYTHON:-python3}
version=${PYTHON_VERSION:-3.11}
case ${PLATFORM:-linux/$(uname -m)} in
linux/amd64 | linux/x86_64) arch=amd64 machine=x86_64 ;;
linux/arm64 | linux/aarch64) arch=arm64 machine=aarch64 ;;
*)
    echo "wheelhouse: PLATFORM is '$PLATFORM'; there are images for linux/amd64 and linux/arm64" >&2
    exit 2
    ;;
esac
if ! "$python" -m pip --version >/dev/null 2>&1; then
    echo "wheelhouse: '$python' has no pip; install it, or name another interpreter with PYTHON=..." >&2
    exit 1
fi
pip="$python -m pip --disable-pip-version-check -q"

dir=$dir/$arch
rm -rf "$dir"
mkdir -p "$dir/own" "$dir/third-party"

# Our own wheel. The date in it is that of the last commit, so that the same commit gives the same wheel.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 1735689600)}
export SOURCE_DATE_EPOCH
source=$(mktemp -d)
trap 'rm -rf "$source"' EXIT
cp -R pyproject.toml README.md LICENSE runtime "$source"
rm -rf "$source"/runtime/*.egg-info
$pip wheel --no-deps -w "$dir/own" "$source"

# A wheel says the oldest glibc that it runs on; Debian 12 has 2.36.
wanted="--only-binary=:all: --python-version $version --implementation cp"
for glibc in 2_17 2_24 2_26 2_27 2_28 2_31 2_34 2_35; do
    wanted="$wanted --platform manylinux_${glibc}_$machine"
done
wanted="$wanted --platform manylinux2014_$machine"
fetch() {
    # shellcheck disable=SC2086 # options, separated by blanks
    $pip download -d "$dir/third-party" --find-links "$dir/third-party" -c requirements.lock $wanted "$@"
}

if [ "${TORCH:-yes}" != no ]; then
    # PyPI's torch brings several GB of CUDA libraries; PyTorch's own index has the CPU build.
    torch=$(grep '^torch==' requirements.lock)
    fetch --no-deps --retries 0 --timeout 10 \
        --index-url https://download.pytorch.org/whl/cpu "$torch" 2>/dev/null || fetch --no-deps "$torch"
    fetch "$dir"/third-party/torch-*.whl
fi
fetch "$dir"/own/*.whl
fetch pip # runs from its wheel, where it is wanted, and stays out of the images
rm -f "$dir"/third-party/edgechoir-*.whl # pip copies what it was asked for

for part in own third-party; do
    (cd "$dir/$part" && sha256sum -- *.whl >SHA256SUMS)
done
echo "wheelhouse: $(cat "$dir"/*/SHA256SUMS | wc -l) wheels in $dir, $(du -sh "$dir" | cut -f1)"
