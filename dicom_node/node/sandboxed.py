"""The inside of the sandbox: `python -m dicom_node.node.sandboxed`, spoken to by `sandbox.Sandbox`."""

from __future__ import annotations

import errno
import json
import os
import resource
import sys
from collections.abc import Mapping
from typing import IO, Any, TextIO

from dicom_node import log
from dicom_node.config import Config
from dicom_node.domain.pipeline import Pipeline
from dicom_node.errors import DicomNodeError, ModelError, OutOfStorage, PipelineError
from dicom_node.node.lifeline import Lifeline
from dicom_node.node.sandbox import Order, threads


def main() -> None:
    """Load the pipelines, say ready, take orders until the worker closes the pipe."""
    (out, said), parent = _own_streams(), Lifeline(sys.stdin)
    log.start(stream=said)
    log.withhold()
    setup = json.loads(parent.line())
    config = Config.model_validate_json(setup["config"])
    try:
        pipelines = load(config, setup["pipelines"])
    except DicomNodeError as error:
        _say(out, {"is": "failed", "error": type(error).__name__, "message": str(error)})
        return
    except Exception as error:  # noqa: BLE001 - the edge of the sandbox; a pipeline's constructor is foreign code
        _say(out, {"is": "failed", "error": ModelError.__name__, "message": _kind_and_place(error)})
        return
    _say(out, {"is": "ready"})
    while True:  # until the worker closes the pipe, see Lifeline
        _say(out, _outcome(config, pipelines, parent.line(), out))


def _own_streams() -> tuple[TextIO, TextIO]:
    """The pipe to the worker, and the log. What pipelines and libraries print goes nowhere:

    it may quote a patient. `dicom-node run` shows it, at a terminal.
    """
    pipe, said = (os.fdopen(os.dup(number), "w", encoding="utf-8", buffering=1) for number in (1, 2))
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    return pipe, said


def load(config: Config, names: list[str]) -> dict[str, Pipeline]:
    """Instantiate the named pipelines, their models loaded, and all that a job needs imported."""
    import dicom_node.node.flow  # noqa: F401 - imported now, so that no job waits for it
    from dicom_node.encode.results import warm_up
    from dicom_node.infer.registry import pipelines
    from dicom_node.infer.runtime import Runtime, choose_device, use

    infer = config.infer
    device = choose_device(infer.device)
    use(Runtime(config.node.models_dir, device, threads(config), infer.runtime, infer.precision))
    warm_up()
    known = pipelines(config.node.pipelines_dir)
    return {name: known[name]() for name in names}


def carry_out(
    config: Config, pipelines: Mapping[str, Pipeline], order: Order, out: IO[str]
) -> dict[str, Any]:
    """One order, from files to result files; the message for the worker."""
    from dicom_node.domain.codebook import site_swaps
    from dicom_node.infer.runtime import current
    from dicom_node.node.flow import assemble, infer_and_encode, of_subject, result_name

    def progress(fraction: float, step: str) -> None:
        _say(out, {"is": "progress", "fraction": fraction, "step": step})

    whole = assemble(order.study_uid, order.revision, order.instances)
    study = of_subject(whole, order.subject_uid)
    work = infer_and_encode(
        pipelines[order.pipeline], study, intended_use=order.intended_use, key=order.input_key,
        device=current().device, progress=progress, failure=order.failure,
        predecessors=order.predecessors, swaps=site_swaps(config.node.codes), resume=order.resume,
    )  # fmt: skip
    results = []
    for number, result in enumerate(work.results, start=1):
        name = result_name(result, number)
        (order.folder / name).write_bytes(result.content)
        results.append(
            {
                "kind": result.kind.value, "sop_class_uid": result.sop_class_uid,
                "sop_instance_uid": result.sop_instance_uid,
                "series_uid": result.series_uid,
                "file": str(name),
            }
        )  # fmt: skip
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    return {"is": "done", "results": results, "seconds": work.seconds, "peak_mb": round(peak_mb, 1)}


def _outcome(config: Config, pipelines: Mapping[str, Pipeline], line: str, out: IO[str]) -> dict[str, Any]:
    try:
        return carry_out(config, pipelines, Order.from_json(line), out)
    except DicomNodeError as error:
        return {"is": "failed", "error": type(error).__name__, "message": str(error)}
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):  # no fault of the job: it waits
            why = "the disk has no room for the results; the job waits for room"
            return {"is": "failed", "error": OutOfStorage.__name__, "message": why}
        return {"is": "failed", "error": PipelineError.__name__, "message": _kind_and_place(error)}
    except MemoryError:
        return {"is": "failed", "error": "OutOfMemory", "message": "the job ran out of memory"}
    except Exception as error:  # noqa: BLE001 - the edge of the sandbox: a library's text may quote a patient
        return {"is": "failed", "error": PipelineError.__name__, "message": _kind_and_place(error)}


def _kind_and_place(error: Exception) -> str:
    """Kind and place of a foreign exception; its text may quote the data set."""
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    where = f"{os.path.basename(trace.tb_frame.f_code.co_filename)}:{trace.tb_lineno}" if trace else "?"  # noqa: PTH119
    return f"{type(error).__name__} at {where}"


def _say(out: IO[str], message: Mapping[str, Any]) -> None:
    out.write(json.dumps(message, default=str) + "\n")


if __name__ == "__main__":
    main()
