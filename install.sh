#!/bin/sh
# Make a virtual environment with the versions in requirements.lock. Usage: sh install.sh DIR [EXTRAS]
# PYTHON names the interpreter (3.11 or newer).
set -eu
venv=${1:?usage: sh install.sh DIR [EXTRAS]}
extras=${2:-train,broker,demo,privacy,dev}
python=${PYTHON:-python3}

if ! command -v "$python" >/dev/null 2>&1; then
    echo "install: no '$python' found; install Python 3.11 or newer, or set PYTHON=..." >&2
    exit 1
fi
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "install: $("$python" --version) is too old; edgechoir needs 3.11 or newer (set PYTHON=...)" >&2
    exit 1
fi
if ! "$python" -c 'import venv, ensurepip' >/dev/null 2>&1; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
        echo "install: adding Debian's python3-venv"
        apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3-venv >/dev/null
    else
        echo "install: '$python' has no venv module; run: sudo apt-get install python3-venv" >&2
        exit 1
    fi
fi

echo "install: virtual environment in $venv (a few minutes the first time)"
"$python" -m venv "$venv"
pip="$venv/bin/python -m pip --disable-pip-version-check -q"

case ",$extras," in
*,train,*)
    # The wheel on PyPI brings several GB of CUDA libraries; a machine without an NVIDIA GPU wants the
    # CPU build, which PyTorch serves from its own index. Where that cannot be reached, PyPI's serves.
    torch=$(grep '^torch==' requirements.lock)
    if [ ! -e /dev/nvidiactl ] && [ ! -e /etc/nv_tegra_release ]; then
        $pip install --retries 0 --timeout 10 --no-deps \
            --index-url https://download.pytorch.org/whl/cpu "$torch" >/dev/null 2>&1 \
            || echo "install: PyTorch's CPU index is out of reach, taking torch from PyPI"
    fi
    ;;
esac
$pip install -c requirements.lock -e ".[$extras]"
