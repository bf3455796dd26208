"""How many times as often a finding is there when asked for."""

import numpy as np
import pandas as pd
import pytest

from lib.claims import claims
from lib.composition import ratios

COLUMNS = ["dataset", "way", "asked_for", "finding", "asked", "present", "n"]


def table(with_, without):
    """Findings a and b, each drawn alone in 100 pictures: a is seen in these shares of them."""
    shares = {("a", "a"): with_, ("a", "b"): 0.0, ("b", "a"): without, ("b", "b"): 0.5}
    rows = [("chest", "alone", *pair, pair[0] == pair[1], share, 100) for pair, share in shares.items()]
    return pd.DataFrame(rows, columns=COLUMNS)


def test_a_finding_that_obeys_is_seen_more_often():
    row = ratios(table(0.6, 0.2)).set_index("finding").loc["a"]
    assert row.ratio == pytest.approx(60.5 / 20.5) and row.low > 1 and row.low < row.ratio < row.high


def test_a_finding_in_no_picture_has_no_ratio_and_cannot_hold(tmp_path):
    found = ratios(table(0.0, 0.0)).set_index("finding", drop=False)
    assert np.isnan(found.loc["a", ["ratio", "low", "high"]].astype(float)).all()
    both = pd.concat([found, found.assign(way="sum")])
    both.to_csv(tmp_path / "08_composition-ratio.csv", index=False)
    told = claims(tmp_path).set_index("phantoms").verdict
    assert told["chest, a: seen in no picture"] == "fails"
