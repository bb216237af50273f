"""A device's process: its stores, its work and its host put together."""

import time
from typing import Final

from edgechoir.bundle.load import load_bundle
from edgechoir.bundle.manifest import Manifest
from edgechoir.config.tiers import DeviceConfig
from edgechoir.store.cipher import KEY_FILE, RowCipher, load_key
from edgechoir.store.outbox import Outbox
from edgechoir.store.samples import SampleStore
from edgechoir.store.vectors import KeptVectors
from edgechoir.store.versions import ModelVersions
from edgechoir.tiers.device import Device
from edgechoir.tiers.host import fatal_is_plain
from edgechoir.tiers.local_calls import serving
from edgechoir.tiers.process import OpenLink, host_of, link_of, state_held
from edgechoir.tiers.requests import handlers_of
from edgechoir.tiers.stream import keeps_gaps
from edgechoir.transport.spool import Spool

SAMPLES: Final = "samples.db"


async def run_device(config: DeviceConfig, open_link: OpenLink = link_of) -> None:
    """Serve as a device until cancelled. Raises EdgechoirError."""
    bundle = load_bundle(config.model.bundle)
    manifest = bundle.manifest
    with state_held(config.state):
        samples = _samples(config, manifest)
        versions = ModelVersions(config.state / "models.db")
        keeps = config.training.enabled or manifest.personal
        vectors = KeptVectors(config.state / "kept.db") if keeps else None
        outbox = (
            Outbox(config.state / "outbox.db", config.predictions.keep_bytes)
            if config.predictions.keep_offline
            else None
        )
        try:
            device = Device(config, bundle, samples, versions, vectors)
            async with host_of(config, device.describe, device.handle, open_link) as host:
                device.host = host
                device.open_accounts(host.journal)
                if outbox is not None:
                    keep = config.predictions.keep_hours * 3600
                    host.spool = Spool(host.link, outbox, keep, time.time, time.monotonic)
                asked = serving(config.state, handlers_of(device), "edgechoir pipeline")
                async with fatal_is_plain(), asked:
                    await device.run()
        finally:
            samples.close()
            versions.close()
            if vectors is not None:
                vectors.close()
            if outbox is not None:
                outbox.close()


def _samples(config: DeviceConfig, manifest: Manifest) -> SampleStore:
    """The store as the sensor's section describes it. Raises OperatorError."""
    kept, path = config.sensor.store, config.state / SAMPLES
    cipher = None
    if kept.encrypt:
        # A key is made with the file only: a new one would not open what is there.
        key = load_key(config.identity / KEY_FILE, make=not path.exists())
        cipher = RowCipher(key)
    return SampleStore(
        path,
        manifest.input_shape,
        0 if manifest.task == "classification" else len(manifest.outputs),
        max_rows=kept.rows,
        max_bytes=kept.bytes,
        max_age=None if kept.hours is None else kept.hours * 3600,
        keep=kept.keep,
        balanced=kept.balanced,
        cipher=cipher,
        gaps=keeps_gaps(config),
    )
