"""The store: one folder per generated video, named by a hash of the inputs that produced it.

    RESULTS/<model>/<method>[-<speed>]/<key>/
        config.yaml, trace.jsonl    the resolved settings; the ledger, one decision per line
        frames.mp4, video.mp4       lossless frames, which metrics read; a lossy copy to watch
        run.json, quality.json      written last and marks completion; added by the evaluation
    RESULTS/.staging/<key>.<place>.<pid>.<n>/  a record while it is written; renamed when complete
    RESULTS/.claims/<cell>.<key>               which process is generating which video
    RESULTS/.cache/<kind>/                     prompt embeddings, the index of each cell: safe to delete

A rename to a folder that is not empty fails, also on a network share. So the first writer wins without a lock.
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
