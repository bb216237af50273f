#!/bin/sh
# Install edgechoir as a 64-bit Raspberry Pi would, on another machine: Debian for arm64 under qemu, our
# wheel and its dependencies from a wheelhouse without a network, and one answer from a model.
# Usage, as root: sh docker/try_arm64.sh DIR
#
# Needs debootstrap, qemu-user-static and the kernel's binfmt_misc. DIR takes 500 MB; a second run takes
# the Debian that is there. MIRROR is another mirror.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
dir=${1:?usage: sh docker/try_arm64.sh DIR}
root=$dir/rootfs
mkdir -p "$dir"

step() { echo "arm64: $(($(date +%s) - began)) s: $*"; }
began=$(date +%s)

misc=/proc/sys/fs/binfmt_misc
[ -e $misc/register ] || mount -t binfmt_misc binfmt_misc $misc
[ -e $misc/qemu-aarch64 ] || cat /usr/lib/binfmt.d/qemu-aarch64.conf >$misc/register

if [ ! -e "$root/.complete" ]; then
    debootstrap --foreign --arch=arm64 --variant=minbase --include=python3,ca-certificates \
        bookworm "$root" "${MIRROR:-http://deb.debian.org/debian}" >"$dir/debootstrap.log"
    step "Debian fetched"
    chroot "$root" /debootstrap/debootstrap --second-stage >>"$dir/debootstrap.log"
    touch "$root/.complete"
    step "Debian set up ($(chroot "$root" /bin/uname -m))"
fi

PLATFORM=linux/arm64 TORCH=no sh "$here/wheelhouse.sh" "$dir/wheelhouse"
step "wheels gathered"

rm -rf "$root/wheels" "$root/bundle" "$root/opt/edgechoir"
cp -R "$dir/wheelhouse/arm64" "$root/wheels"
cp -R "$here/../models/digits/bundle" "$root/bundle"
chroot "$root" sh -euc '
    for part in own third-party; do
        cd /wheels/$part && sha256sum --check --quiet --strict SHA256SUMS
    done
    python3 -m venv --without-pip /opt/edgechoir
    PYTHONPATH=$(echo /wheels/third-party/pip-*.whl) /opt/edgechoir/bin/python -m pip install -q --no-index \
        --no-cache-dir --find-links /wheels/own --find-links /wheels/third-party edgechoir'
step "edgechoir installed"

chroot "$root" /opt/edgechoir/bin/edgechoir bundle verify /bundle
chroot "$root" /opt/edgechoir/bin/edgechoir doctor || true # torch is not there; memory is the host's
chroot "$root" /opt/edgechoir/bin/python -c '
from pathlib import Path
import numpy as np
from edgechoir.bundle.load import load_bundle
from edgechoir.inference.session import open_session
bundle = load_bundle(Path("/bundle"))
session = open_session(bundle.onnx, bundle.params, bundle.manifest.input_shape)
print("logits of an empty picture:", session.run(np.zeros((1, 64), np.float32)))'
step "a model has answered"
