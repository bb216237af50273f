"""docs/your-own-model.md is carried out, word for word but for the port and one wait."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "your-own-model.md"
BLOCK = re.compile(r"^```(python|sh)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
WAIT = "sleep 15\n"
UNTIL_DONE = """\
for _ in $(seq 40); do
    edgechoir monitor eye/config.toml --once | tee tree | grep -q finished && break
done
"""


@pytest.mark.e2e
@pytest.mark.torch
def test_a_newcomer_gets_from_a_module_to_a_fleet(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    if not shutil.which("mosquitto", path=f"{os.environ['PATH']}:/usr/sbin"):
        pytest.skip("mosquitto is not installed")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    script = ["set -eu"]
    for kind, text in BLOCK.findall(PAGE.read_text()):
        if kind == "python":
            name = re.match(r"# (\w+\.py)\n", text)
            assert name, text
            (tmp_path / name[1]).write_text(text)
        else:
            script.append(text.replace("8883", str(port)).replace(WAIT, UNTIL_DONE))
    assert sum(UNTIL_DONE in part for part in script) == 1
    process = subprocess.Popen(
        ["/bin/bash", "-c", "\n".join(script)],
        cwd=tmp_path,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        said, _ = process.communicate(timeout=110)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    assert process.returncode == 0, said
    assert "bundle: sound. pump, classification, 131 parameters" in said
    assert "wrong  " not in said
    tree = (tmp_path / "tree").read_text().splitlines()
    assert tree[0] == "pumps: 4 online"
    assert [line.split()[:3] for line in tree[1:]] == [
        ["cloud/cloud", "online", "v20"],
        ["device/pump-1", "online", "v20"],
        ["device/pump-2", "online", "v20"],
        ["device/pump-3", "online", "v20"],
    ]
    logs = {log.name: log.read_text() for log in tmp_path.glob("*.log")}
    assert not [name for name, text in logs.items() if "Traceback" in text], logs
