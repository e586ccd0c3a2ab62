"""The elastic band's section in a YAML: the product is read, and must be the same molecule."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from rareal.build import build_stages
from rareal.config import load
from rareal.errors import ConfigError

START = "3\n\nH 0 0 -1.07\nC 0 0 0\nN 0 0 1.15\n"
PRODUCT = "3\n\nH 0 0 2.15\nC 0 0 0\nN 0 0 1.17\n"
YAML = "structure: hcn.xyz\ncv: {atoms: [1, 2]}\nsampler: {kind: neb, product: hnc.xyz, images: 5}\n"


def case(folder: Path, product: str | None = PRODUCT) -> Path:
    (folder / "hcn.xyz").write_text(START)
    if product is not None:
        (folder / "hnc.xyz").write_text(product)
    (folder / "case.yaml").write_text(YAML)
    return folder / "case.yaml"


def test_the_sampler_is_built_and_can_be_sent_to_another_process(tmp_path: Path) -> None:
    stages = build_stages(load(case(tmp_path), {"directory": str(tmp_path / "run")}))
    assert len(stages.walkers) == 1
    sampler = pickle.loads(pickle.dumps(stages.sampler))
    assert np.array_equal(sampler.product[0], [0, 0, 2.15])
    assert sampler.config.images == 5


@pytest.mark.parametrize(
    ("product", "message"),
    [
        (None, "sampler.product.*there is no file .*hnc.xyz"),
        (PRODUCT.replace("N ", "O "), "sampler.product.*must hold the atoms of .*hcn.xyz, in the same order"),
    ],
)
def test_a_product_of_other_atoms_is_refused(tmp_path: Path, product: str | None, message: str) -> None:
    with pytest.raises(ConfigError, match=f"(?s){message}"):
        load(case(tmp_path, product))
