"""The node's coded concepts against the Standard's own tables, as pydicom carries them (PS3.16)."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydicom.sr._cid_dict import cid_concepts, name_for_cid
from pydicom.sr._concepts_dict import concepts

from dicom_node.config import Config
from dicom_node.domain.codebook import code, codebook, site_swaps
from dicom_node.errors import ConfigurationError
from dicom_node.node.build import build
from pipelines.uterine_mri import _region
from support.findings import found, pelvis

ROOT = Path(__file__).resolve().parents[2]
NOT_IN_PYDICOM = {
    "diagnosis": "a SNOMED CT observable that no context group holds",
    "sarcoma-of-uterus": "a SNOMED CT disorder that no context group holds",
    "qualitative-evaluations": "TID 1500 takes it from UMLS, which pydicom has no table of",
    "english": "RFC 5646 defines it, and TID 1204 refers there",
    "frames": "a UCUM annotation, which is free text in braces",
    "processing-algorithm": "a placeholder of IHE's, not of the Standard",
    **dict.fromkeys(
        (
            "nilm",
            "lsil",
            "hsil",
            "specimen-satisfactory",
            "specimen-unsatisfactory",
            "cin1",
            "segmented-neutrophil",
            "band-neutrophil",
            "metamyelocyte",
            "myelocyte",
            "promyelocyte",
            "lymphocyte",
            "monocyte",
            "eosinophil",
            "basophil",
            "platelet",
        ),
        "a SNOMED CT concept that no context group of pydicom's tables holds",
    ),
    **dict.fromkeys(
        (
            "share-segmented",
            "share-band",
            "share-metamyelocytes",
            "share-myelocytes",
            "share-promyelocytes",
            "share-lymphocytes",
            "share-monocytes",
            "share-eosinophils",
            "share-basophils",
            "erythroblasts-per-leukocytes",
        ),
        "LOINC, of which pydicom carries only what context groups use",
    ),
    **dict.fromkeys(
        (
            "epithelial-cell-abnormality",
            "cin2-or-worse",
            "erythroblast",
            "precursors-present",
            "no-precursors",
        ),
        "private: nobody else defines it",
    ),
}


@pytest.mark.parametrize("name", sorted(codebook()))
def test_a_code_means_what_the_standard_says_it_means(name: str) -> None:
    """Value, scheme and meaning stand in a table of PS3.16; or it is named here why they do not."""
    own = code(name)
    meanings = {
        meaning.lower()
        for entries in concepts.get(own.scheme, {}).values()
        for value, (meaning, _) in entries.items()
        if value == own.value
    }

    if name in NOT_IN_PYDICOM:
        assert not meanings, "it is in the tables now: look there"
    else:
        plain = {meaning.split(" (")[0] for meaning in meanings}
        assert own.meaning.lower() in meanings | plain


@pytest.mark.parametrize("name", sorted(codebook()))
def test_a_code_is_in_the_context_group_it_is_said_to_be_from(name: str) -> None:
    """The CID that `source` names holds the code."""
    entry = codebook()[name]
    for number in re.findall(r"CID (\d+)", entry.source):
        assert int(number) in name_for_cid
        keywords = cid_concepts[int(number)].get(entry.code.scheme, [])
        values = {value for keyword in keywords for value in concepts[entry.code.scheme][keyword]}
        assert entry.code.value in values


def test_every_code_says_where_it_is_from_and_a_private_one_what_it_means() -> None:
    for name, entry in codebook().items():
        assert entry.source, name
        assert entry.definition or not entry.code.scheme.startswith("99DCMNODE"), name


def test_no_code_is_there_twice() -> None:
    codes = [(entry.code.value, entry.code.scheme) for entry in codebook().values()]

    assert sorted(set(codes)) == sorted(codes)


def test_codes_stand_in_the_data_file_and_nowhere_else() -> None:
    """A code typed into the program could not be swapped by a site, and nobody would look it up."""
    files = [*(ROOT / "dicom_node").rglob("*.py"), *(ROOT / "pipelines").rglob("*.py")]
    typed = [
        f"{path.relative_to(ROOT)}: {found}"
        for path in files
        for found in re.findall(r"(?:Code|Concept)\(\s*\"[^\"]+\",\s*\"\w+\"", path.read_text())
    ]

    assert [] == typed


def test_every_code_of_the_data_file_is_used() -> None:
    """What nothing writes has no business in a list of what is written."""
    files = [*(ROOT / "dicom_node").rglob("*.py"), *(ROOT / "pipelines").rglob("*.py")]
    used = {name for path in files for name in re.findall(r"\bcode\(\"([\w-]+)\"\)", path.read_text())}

    assert set(codebook()) == used


def test_a_site_swaps_a_code_by_its_name(tmp_path: Path) -> None:
    site = tmp_path / "codes.toml"
    site.write_text(
        '[sarcoma-of-uterus]\nvalue = "C54.9"\nscheme = "I10"\nmeaning = "Sarcoma"\nsource = "ICD-10"\n'
    )

    ((ours, theirs),) = site_swaps(site).items()

    assert code("sarcoma-of-uterus") == ours
    assert ("C54.9", "I10", "Sarcoma") == (theirs.value, theirs.scheme, theirs.meaning)
    assert {} == site_swaps(None)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('[sarkoma]\nvalue="1"\nscheme="L"\nmeaning="m"\nsource="s"', "no code named 'sarkoma'"),
        ('[uterus]\nvalue="1"\nscheme="L"\nmeaning="m"', "'uterus' needs exactly value"),
        ('[uterus]\nvalue=""\nscheme="L"\nmeaning="m"\nsource="s"', "'uterus' is not a coded concept"),
        ('uterus = "1"', "'uterus' needs exactly value"),
        ("[uterus", "cannot be read"),
    ],
)
def test_a_site_file_that_cannot_be_meant_is_refused_by_name(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "codes.toml").write_text(text)

    with pytest.raises(ConfigurationError, match=re.escape(says)):
        site_swaps(tmp_path / "codes.toml")


def test_a_node_does_not_start_with_codes_it_cannot_read(tmp_path: Path) -> None:
    """`node.codes` is read at the start, not by the first job."""
    config = Config.model_validate({"node": {"data_dir": tmp_path / "var", "codes": tmp_path / "none.toml"}})

    with pytest.raises(ConfigurationError, match="codes cannot be read"):
        build(config)


def test_a_region_cut_from_an_activation_map_is_not_called_a_tumour(tmp_path: Path) -> None:
    """It shows where the network looked: CID 7150 "Spatial and Relational Concept", type as the map's."""
    study = pelvis(tmp_path)

    region = _region(found(study).maps[0], 0.8, thinnest_mm=0.0)

    assert code("spatial-concept") == region.category
    assert code("class-activation") == region.kind
