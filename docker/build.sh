#!/bin/sh
# Build the images edgechoir-tier, -mosquitto, -device and -trainer from docker/wheelhouse.
# Usage: sh docker/build.sh [TARGET...]
#
# ENGINE is docker, podman or buildah (the first that is there). BASE is the base image, PLATFORM the
# machine to build for (linux/amd64, linux/arm64), PREFIX and TAG name the result:
# ${PREFIX}edgechoir-device:$TAG. WHEELHOUSE is another place of the wheels; BUILD_OPTIONS goes to the
# engine as it is.
set -eu
wheels=$(cd "${WHEELHOUSE:-$(dirname "$0")/wheelhouse}" && pwd) || {
    echo "build: no wheels yet; run: sh docker/wheelhouse.sh" >&2
    exit 1
}
cd "$(dirname "$0")"
engine=${ENGINE:-}
for candidate in docker podman buildah; do
    [ -n "$engine" ] || ! command -v "$candidate" >/dev/null 2>&1 || engine=$candidate
done
[ -n "$engine" ] || { echo "build: neither docker, podman nor buildah is installed" >&2; exit 1; }

case ${PLATFORM:-linux/$(uname -m)} in
linux/amd64 | linux/x86_64) arch=amd64 ;;
linux/arm64 | linux/aarch64) arch=arm64 ;;
*) echo "build: PLATFORM is '$PLATFORM'; there are images for linux/amd64 and linux/arm64" >&2; exit 2 ;;
esac
if [ ! -e "$wheels/$arch/own/SHA256SUMS" ]; then
    echo "build: no wheels for $arch; run: PLATFORM=linux/$arch sh docker/wheelhouse.sh" >&2
    exit 1
fi

version=$(sed -n 's/^version = "\(.*\)"/\1/p' ../pyproject.toml)
revision=$(git describe --always --dirty --abbrev=12 2>/dev/null || echo unknown)
# One date for all files, whatever the commit: layers of the same packages are the same layers then.
epoch=${SOURCE_DATE_EPOCH:-1735689600}
tag=${TAG:-$version}
case $engine in
docker) build="docker build --provenance=false" ;;
podman) build="podman build --format docker --timestamp $epoch" ;;
buildah) build="buildah bud --format docker --layers --timestamp $epoch" ;;
*) build="$engine" ;;
esac

for target in ${*:-tier mosquitto device trainer}; do
    name=${PREFIX:-}edgechoir-$target:$tag
    # shellcheck disable=SC2086 # options, separated by blanks
    SOURCE_DATE_EPOCH=$epoch $build ${BUILD_OPTIONS:-} ${BASE:+--build-arg "BASE=$BASE"} \
        ${PLATFORM:+--platform "$PLATFORM"} \
        --build-arg "VERSION=$version" --build-arg "REVISION=$revision" \
        --file Dockerfile --target "$target" --tag "$name" "$wheels/$arch"
    echo "build: $name"
done
