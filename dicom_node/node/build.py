"""Put the parts together: one `Node` from one `Config`, nothing started yet."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Engine

from dicom_node.audit import Trail
from dicom_node.config import Config
from dicom_node.domain.codebook import site_swaps
from dicom_node.domain.identity import Digest
from dicom_node.domain.pipeline import Pipeline
from dicom_node.errors import ConfigurationError
from dicom_node.infer.bundle import bundle_digests
from dicom_node.infer.registry import pipelines
from dicom_node.store.archive import Archive
from dicom_node.store.capabilities import Capabilities
from dicom_node.store.catalog import Catalog
from dicom_node.store.commitments import Commitments
from dicom_node.store.database import engine_for, utc_now
from dicom_node.store.expectations import Expectations
from dicom_node.store.history import History
from dicom_node.store.ledger import Ledger
from dicom_node.store.notices import Notices
from dicom_node.store.queue import Queue
from dicom_node.store.sightings import Sightings
from dicom_node.store.workitems import WorkItems


@dataclass(frozen=True)
class Node:
    """Every part a process of the node may need; cheap to build (no torch)."""

    config: Config
    engine: Engine
    archive: Archive
    catalog: Catalog
    queue: Queue
    notices: Notices
    ledger: Ledger
    capabilities: Capabilities
    commitments: Commitments
    sightings: Sightings
    work_items: WorkItems
    history: History
    expectations: Expectations
    trail: Trail
    pipelines: Mapping[str, type[Pipeline]]
    clock: Callable[[], datetime]

    def digests(self, pipeline: type[Pipeline]) -> dict[str, Digest]:
        """sha256 of each bundle the pipeline uses; part of every input key."""
        return bundle_digests(pipeline.models, self.config.node.models_dir)


def build(config: Config, *, clock: Callable[[], datetime] = utc_now) -> Node:
    """Raises ConfigurationError when a route names a pipeline that is not there."""
    known = pipelines(config.node.pipelines_dir)
    for route in config.route:
        if route.pipeline not in known:
            raise ConfigurationError(
                f"route names pipeline {route.pipeline!r}; there are {', '.join(sorted(known)) or 'none'}"
            )
    site_swaps(config.node.codes)  # an error in it is said now, not by every job
    config.node.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    engine = engine_for(config)
    archive = Archive(config.node.data_dir)
    return Node(
        config=config,
        engine=engine,
        archive=archive,
        catalog=Catalog(engine, archive, clock),
        queue=Queue(engine, clock),
        notices=Notices(engine, clock),
        ledger=Ledger(engine, clock),
        capabilities=Capabilities(engine, clock),
        commitments=Commitments(engine, clock),
        sightings=Sightings(engine, clock),
        work_items=WorkItems(engine, clock),
        history=History(engine, clock),
        expectations=Expectations(engine, clock),
        trail=Trail(config.audit_folder, config.node.ae_title, clock),
        pipelines=known,
        clock=clock,
    )
