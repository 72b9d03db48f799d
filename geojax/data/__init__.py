"""On what data, and which worker holds which part.

:func:`load_dataset` finds a data set, :func:`partition` deals it to the workers and
:func:`deal_devices` a worker's part to its devices; :class:`BatchOrder` says which samples of its
part a worker's k-th batch holds. See them with ``python -m geojax.data describe --help``.
"""

from geojax.data import digits, fashion_mnist, mnist, npz  # noqa: F401  they register themselves
from geojax.data.batches import BatchOrder, batch_indices
from geojax.data.dataset import DATASETS, Dataset, Stored, balanced_order, load_dataset
from geojax.data.dealing import deal_devices, partition
from geojax.data.partitions import DEVICE_PARTITIONS, PARTITIONS

__all__ = [
    "DATASETS",
    "DEVICE_PARTITIONS",
    "PARTITIONS",
    "BatchOrder",
    "Dataset",
    "Stored",
    "balanced_order",
    "batch_indices",
    "deal_devices",
    "load_dataset",
    "partition",
]
