"""The richest set a destination takes: it is asked, the answer is kept, and what is withheld is on record."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dicom_node.config import Config
from dicom_node.node.build import build
from dicom_node.node.check import check_all
from dicom_node.store.history import History
from support.deliveries import Bench
from support.results import result_file
from support.scripted_scp import RESULT_CLASSES, ScriptedScp, closed_port

TOYS = Path(__file__).parent.parent / "support" / "toys"
KINDS = list(RESULT_CLASSES)
RESULTS = [result_file(kind) for kind in KINDS]
SR_AND_SC = [RESULT_CLASSES["sr"], RESULT_CLASSES["sc"]]
DONE, HELD, LOST = "COMPLETED", "CANCELED", "FAILED"


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Any]:
    """Makes `Bench`es in a folder, and closes them."""
    made: list[Bench] = []

    def make(port: int, **settings: Any) -> Bench:
        made.append(Bench(tmp_path, {"pacs": port}, **settings))
        return made[-1]

    yield make
    for one in made:
        one.close()


def delivered(at: Bench, number: int = 0) -> list[str]:
    """The states of one more study's SR, SEG, PM and page after they were due."""
    at.schedule([result_file(kind, study=f"study {number}") for kind in KINDS], "pacs", auto=True)
    at.deliverer.deliver_due()
    return at.states()[-len(KINDS) :]


def test_a_pacs_without_seg_and_map_gets_report_and_page(bench: Any) -> None:
    """And the record says what was withheld, why, and what it got instead."""
    with ScriptedScp(classes=SR_AND_SC) as scp:
        at = bench(scp.port)

        assert [DONE, HELD, HELD, DONE] == delivered(at)
        assert [0x0000, 0x0000] == [answer for _, answer in scp.arrived]

    why = "withheld: PACS 'pacs' does not accept Segmentation; it gets Comprehensive 3D SR, Secondary Capture"
    assert why == at.rows()[1].reason
    told = History(at.engine).of(at.study(0))
    assert f"seg to pacs: {why}" in [row.detail for row in told if row.event == "delivery.withheld"]


def test_a_pacs_that_takes_all_gets_all(bench: Any) -> None:
    """Nothing is withheld from it, and the second study does not ask again."""
    with ScriptedScp() as scp:
        at = bench(scp.port)

        assert [DONE] * 4 == delivered(at)
        assert [DONE] * 4 == delivered(at, 1)
        assert 3 == scp.associations  # one question, two deliveries


def test_a_pacs_is_asked_again_after_a_day(bench: Any) -> None:
    """What it was taught meanwhile it gets from then on."""
    with ScriptedScp(classes=SR_AND_SC) as scp:
        at, port = bench(scp.port), scp.port
        assert [DONE, HELD, HELD, DONE] == delivered(at)
    with ScriptedScp(port=port):
        at.clock.forward(hours=23)
        assert [DONE, HELD, HELD, DONE] == delivered(at, 1)

        at.clock.forward(hours=2)
        assert [DONE] * 4 == delivered(at, 2)


def test_a_pacs_that_takes_nothing_leaves_failures_to_read(bench: Any) -> None:
    """Where no form could be seen, nothing is withheld in silence."""
    with ScriptedScp(classes=[]) as scp:
        at = bench(scp.port)

        assert [LOST] * 4 == delivered(at)
        assert all("does not accept" in row.reason for row in at.rows())


@pytest.mark.parametrize("status", [0x0118, 0x0122, 0xA800])
def test_a_class_refused_by_status_is_withheld_like_one_refused_by_context(bench: Any, status: int) -> None:
    """It accepted the context and refuses the class: the next study is not tried with it."""
    with ScriptedScp(answers=[0x0000, status]) as scp:
        at = bench(scp.port)

        assert [DONE, HELD, DONE, DONE] == delivered(at)
        assert [DONE, HELD, DONE, DONE] == delivered(at, 1)
        assert 7 == len(scp.arrived)
    assert status == at.rows()[1].status


def test_an_answer_that_is_out_of_date_is_mended_by_the_refused_context(bench: Any) -> None:
    """The PACS was changed within the day: the form is withheld, not failed, and so is the next."""
    with ScriptedScp() as scp:
        at, port = bench(scp.port), scp.port
        assert [DONE] * 4 == delivered(at)
    with ScriptedScp(port=port, classes=SR_AND_SC) as scp:
        assert [DONE, HELD, HELD, DONE] == delivered(at, 1)
        assert [DONE, HELD, HELD, DONE] == delivered(at, 2)


def test_all_refused_one_after_the_other_still_leaves_a_failure(bench: Any) -> None:
    """Each is withheld as long as another may be seen; the last of them is FAILED."""
    with ScriptedScp(otherwise=0x0122) as scp:
        at = bench(scp.port)

        assert [HELD, HELD, HELD, LOST] == delivered(at)


def test_what_a_route_lists_is_not_withheld(bench: Any) -> None:
    """`outputs` names the forms: one that is refused is FAILED, as somebody asked for it; nobody is asked."""
    with ScriptedScp(classes=SR_AND_SC) as scp:
        at = bench(scp.port)
        at.schedule(RESULTS, "pacs")

        at.deliverer.deliver_due()

        assert [DONE, LOST, LOST, DONE] == at.states()
        assert 1 == scp.associations


def test_the_profile_of_a_peer_settles_it_without_asking(bench: Any) -> None:
    """`takes = ["sr", "sc"]`: a PACS that would accept a SEG, and then show nothing, gets none."""
    with ScriptedScp() as scp:
        at = bench(scp.port, peer={"takes": ("sr", "sc")})

        assert [DONE, HELD, HELD, DONE] == delivered(at)

    assert "withheld: `takes` of peer 'pacs' does not list seg" == at.rows()[1].reason


def test_a_pacs_that_cannot_be_asked_gets_its_results_later(bench: Any) -> None:
    """Down at the first delivery: all waits, with the reason; nothing is withheld on a guess."""
    at = bench(closed_port())

    assert ["SCHEDULED"] * 4 == delivered(at)
    assert all("refuses the connection" in row.reason for row in at.rows())


@pytest.mark.parametrize(
    ("classes", "outputs", "takes", "ok", "said"),
    [
        (
            ["sr", "sc"],
            "auto",
            "ask",
            True,
            "accepts Comprehensive 3D SR, Secondary Capture; not Comprehensive",
        ),
        (["seg"], "auto", "ask", False, "does not accept any form that people can read: sr or sc"),
        (["sr", "sc"], ["sr", "seg"], "ask", False, "does not accept seg"),
        (["sr", "sc"], "auto", ["sc", "pm"], False, "does not accept pm"),
    ],
)
def test_check_asks_and_keeps_the_answer(
    tmp_path: Path, classes: list[str], outputs: Any, takes: Any, ok: bool, said: str
) -> None:
    """It is wrong where something that is listed, or all that people can read, is not accepted."""
    with ScriptedScp(classes=[RESULT_CLASSES[kind] for kind in classes]) as scp:
        peer = {"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": scp.port, "takes": takes}
        config = Config.model_validate(
            {
                "node": {"data_dir": tmp_path / "var", "pipelines_dir": TOYS},
                "peer": [peer],
                "route": [{"pipeline": "answers", "from": ["pacs"], "to": ["pacs"], "outputs": outputs}],
            }
        )  # fmt: skip

        found = {finding.what: finding for finding in check_all(config)}["peer pacs"]

    assert ok == found.ok
    assert said in found.sentence
    node = build(config)
    kept = node.capabilities.of("pacs")
    node.engine.dispose()
    assert kept is not None
    assert {RESULT_CLASSES[kind] for kind in classes} == kept.accepted
