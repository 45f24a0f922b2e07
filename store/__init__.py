"""The store: one folder per generated video, named by a hash of what produced it.

    RESULTS/<model>/<method>[-<speed>]/<key>/
        config.yaml, trace.jsonl    the resolved settings; the ledger, one decision a line
        frames.mp4, video.mp4       lossless frames, all that metrics read; a copy for people
        run.json, quality.json      written last, the mark of completion; added by the evaluation
    RESULTS/.staging/<key>.<place>.<pid>.<n>/  being written, renamed into place when whole
    RESULTS/.claims/<cell>.<key>               who is making which video now
    RESULTS/.cache/<kind>/                     prompt embeddings, the index of each cell: safe to delete

A rename onto a folder that is not empty fails, on a network share too: the first writer wins without a lock.
"""

from store.claims import STALE, Claims
from store.files import FULL, checksum, fingerprint, writing
from store.record import KEY_VERSION, SCHEMA, SEALED, Record, StoreError
from store.status import print_status
from store.store import RESERVED, Stage, Store

__all__ = [
    "FULL",
    "KEY_VERSION",
    "RESERVED",
    "SCHEMA",
    "SEALED",
    "STALE",
    "Claims",
    "Record",
    "Stage",
    "Store",
    "StoreError",
    "checksum",
    "fingerprint",
    "print_status",
    "writing",
]
