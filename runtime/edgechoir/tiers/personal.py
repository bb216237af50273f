"""The layers of a device's model that stay here (FedPer): kept between starts, joined to the rest.

They lie in the clear beside the model itself, under a name that says which layers of which model
they are, so that those of another model are never put in their place.
"""

from edgechoir.bundle.load import Bundle
from edgechoir.bundle.personal import compose, layout, split
from edgechoir.store.vectors import KeptVectors
from edgechoir.types import Floats

_PREFIX = "personal-"


class PersonalLayers:
    """`shared` [s] and `own` [p] are the bundle's parts; `own` becomes what was kept, if it was."""

    def __init__(self, bundle: Bundle, kept: KeptVectors | None) -> None:
        """`kept` is None only where there are no personal layers, or nothing is to be kept."""
        self._manifest = bundle.manifest
        self._kept = kept
        self._name = _PREFIX + layout(bundle.manifest).hex()[:16]
        self.shared, self.own = split(bundle.manifest, bundle.params)
        found = None if kept is None or not self.own.size else kept.get(self._name)
        if found is not None and found[0].shape == self.own.shape:
            self.own = found[0]

    def with_shared(self, shared: Floats, own: Floats | None = None) -> Floats:
        """The model's vector [d] with this shared part. Raises BadModel: a part of other length."""
        return compose(self._manifest, shared, self.own if own is None else own)

    def put(self, own: Floats, round_: int) -> None:
        """Use these from now on, and keep them in the place of any other model's. Blocking.

        Raises OperatorError where they cannot be kept (a full disk); they are used all the same.
        """
        self.own = own
        if self._kept is None:
            return
        for name in self._kept.names():
            if name.startswith(_PREFIX) and name != self._name:
                self._kept.drop(name)
        self._kept.put(self._name, own, round_)
