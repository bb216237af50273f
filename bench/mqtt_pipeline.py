"""A pipeline from a broker to a broker, in a process of its own: `bench/pipeline.py` starts it."""

import asyncio
import sys

from edgechoir.commands import footprint

footprint.prepare()

from edgechoir.bundle.load import load_bundle  # noqa: E402
from edgechoir.bundle.manifest import preparation  # noqa: E402
from edgechoir.config.sensor import MqttSensor  # noqa: E402
from edgechoir.config.sink import MqttOut  # noqa: E402
from edgechoir.demo.show import bundle_path  # noqa: E402
from edgechoir.inference.predictor import Predictor  # noqa: E402
from edgechoir.pipeline.check import Check  # noqa: E402
from edgechoir.pipeline.flow import Flow  # noqa: E402
from edgechoir.pipeline.run import Pipeline  # noqa: E402
from edgechoir.tiers.sensor import make_sink, make_source  # noqa: E402


async def main(port: int) -> None:
    bundle = load_bundle(bundle_path())
    shape = bundle.manifest.input_shape
    predictor = Predictor(
        bundle.onnx, bundle.params, 0, shape=shape, prepare=preparation(bundle.manifest)
    )
    flow = Flow()
    source = make_source(MqttSensor(topic="in", host="127.0.0.1", port=port))
    sink = make_sink(MqttOut(topic="out", host="127.0.0.1", port=port))
    flow.source("in", source, check=Check(shape)).infer(predictor).sink(sink)
    task = asyncio.create_task(Pipeline(flow).run())
    await asyncio.sleep(1.0)
    footprint.settle()
    print("ready", flush=True)
    await task


if __name__ == "__main__":
    footprint.ready()
    asyncio.run(main(int(sys.argv[1])))
