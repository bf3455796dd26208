"""How many times as often a finding is there when asked for."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from lib import composition
from lib.claims import claims
from lib.composition import check_findings, pictures, ratios, together
from lib.concepts import ConceptError, Concepts


def seen(share, n=100):
    """bool [n], True in that share of them."""
    return np.arange(n) < round(share * n)


def found(with_, without):
    """Findings a and b, each drawn alone in 100 pictures: a is seen in these shares of them."""
    return {
        ("alone", ("a",)): {"a": seen(with_), "b": seen(without)},
        ("alone", ("b",)): {"a": seen(without), "b": seen(0.5)},
    }


def test_a_finding_that_obeys_is_seen_more_often():
    row = ratios("chest", found(0.6, 0.2)).set_index("finding").loc["a"]
    assert row.ratio == pytest.approx(60.5 / 20.5) and row.low > 1 and row.low < row.ratio < row.high
    assert (row.n_with, row.n_without) == (100, 100)


def test_pictures_of_one_noise_are_not_independent():
    """Four combinations of the same noises that show the same tell no more than one of them."""
    alone = {("alone", ()): {"a": seen(0.1)}, ("alone", ("a",)): {"a": seen(0.3)}}
    once = {("sum", ("a",)): {"a": seen(0.3)}} | alone
    more = once | {("sum", ("a", *extra)): {"a": seen(0.3)} for extra in ("b", "c", "bc")}
    apart = {
        key: {"a": np.random.default_rng(i).permutation(read["a"])}
        for i, (key, read) in enumerate(more.items())
    }
    single, same, different = (ratios("chest", table).iloc[0] for table in (once, more, apart))
    assert (same.n_with, same.ratio) == (400, pytest.approx(single.ratio, rel=0.02))
    assert same.low == pytest.approx(single.low, rel=0.1) and same.high == pytest.approx(single.high, rel=0.1)
    assert different.low > 1.03 * same.low and different.high < 0.97 * same.high


def test_what_more_terms_alone_bring_is_no_obedience():
    """b is read oftener in pictures of two findings than of one, whether it is asked for or not."""
    pairs = {("sum", pair): {"b": seen(0.6)} for pair in (("a", "b"), ("a", "c"), ("b", "c"))}
    singles = {("sum", (finding,)): {"b": seen(0.2)} for finding in "abc"}
    alone = {("alone", ()): {"b": seen(0.1)}, ("alone", ("b",)): {"b": seen(0.3)}}
    every = alone | {("sum", ("a", "b", "c")): {"b": seen(0.9)}} | singles | pairs
    row = ratios("chest", every).set_index("way").loc["sum"]
    assert row["with"] == pytest.approx(0.4) == row.without and row.low < 1 < row.high
    assert (row.n_with, row.n_without) == (300, 300)


def test_a_single_finding_is_compared_with_the_healthy_embedding_at_as_much_guidance(monkeypatch):
    """Two terms of weight 1 are twice the guidance of one, by which more is read whatever they are."""
    monkeypatch.setattr(composition, "sampled", lambda base, what, n: what)
    one, two = (
        Concepts("set", "folder", {label: label for label in classes}, {}, None)
        for classes in (("normal", "tumour"), ("normal", "tumour", "other"))
    )
    drawn = pictures(None, one, 4, 3.0)
    assert drawn["sum", ("tumour",)] == {"normal": 1.0, "tumour": 1.0}
    assert drawn["difference", ("tumour",)] == {"normal": -2.0, "tumour": 3.0}
    assert [drawn[way, ()]["normal"] for way in ("sum", "mean", "difference")] == [2.0, 1.0, 1.0]
    assert [way for way, chosen in pictures(None, two, 4, 3.0) if not chosen] == ["alone"]
    read = {("alone", ()): {"a": seen(0.1)}, ("alone", ("a",)): {"a": seen(0.2)}}
    read |= {("sum", ()): {"a": seen(0.3)}, ("sum", ("a",)): {"a": seen(0.6)}}
    assert ratios("set", read).set_index("way").loc["sum", "without"] == 0.3


def test_findings_that_are_asked_for_at_once_are_counted_at_once():
    read = {
        ("alone", ()): {"a": seen(0.1), "b": seen(0.3)},
        ("sum", ("a",)): {"a": seen(1.0), "b": seen(0.5)},
        ("sum", ("a", "b")): {"a": seen(0.8), "b": ~seen(0.5)},
    }
    (row,) = together("chest", read).itertuples()
    assert (row.asked_for, row.n, row.together, row.unasked) == ("a+b", 100, 0.3, 0.1)
    assert row.low < 0.3 < row.high


def test_none_in_pictures_of_one_noise_proves_no_more_than_none_of_one():
    """Four combinations in none of whose pictures a finding is share their noises as any others do."""
    alone = {("alone", ()): {"a": seen(0.0)}, ("alone", ("a",)): {"a": seen(0.3)}}
    once = {("sum", ("b",)): {"a": seen(0.0)}, ("sum", ("a",)): {"a": seen(0.1)}} | alone
    more = once | {("sum", (name,)): {"a": seen(0.0)} for name in "cde"}
    single, many = (ratios("chest", table).set_index("way").loc["sum"] for table in (once, more))
    assert many.n_without == 4 * single.n_without and many.low == pytest.approx(single.low, rel=0.1)


def test_too_many_findings_to_combine_are_told_before_they_are_learned(tmp_path):
    for name in "abcdefg":
        (tmp_path / name).mkdir()
        Image.new("L", (8, 8)).save(tmp_path / name / "0.png")
    check_findings(None)
    with pytest.raises(ConceptError, match=r"6 findings \(b, c, d, ...\) have 64 combinations: name"):
        check_findings(str(tmp_path))


def test_few_pictures_beside_none_prove_little():
    row = ratios("chest", found(0.04, 0.0)).set_index("finding").loc["a"]
    assert row.ratio == pytest.approx(9) and row.low < 1.5


def test_a_finding_in_no_picture_has_no_ratio_and_cannot_hold(tmp_path):
    table = ratios("chest", found(0.0, 0.0)).set_index("finding", drop=False)
    assert np.isnan(table.loc["a", ["ratio", "low", "high"]].astype(float)).all()
    every = pd.concat([table.assign(way=way) for way in ("alone", "sum", "phantom")])
    every.to_csv(tmp_path / "08_composition-ratio.csv", index=False)
    told = claims(tmp_path).set_index("phantoms").verdict
    assert told["chest, a: seen in no picture"] == "fails"


@pytest.mark.parametrize("of_phantoms, verdict", [(0.2, "holds"), (0.7, "in part")])
def test_a_finding_that_is_never_seen_unasked_must_be_drawn_half_as_often_as_it_is_true(
    of_phantoms, verdict, tmp_path
):
    row = {"dataset": "chest", "finding": "a", "n_with": 100, "n_without": 100, "with": 0.1, "without": 0.0}
    row |= {"ratio": 21.0, "low": 4.0, "high": 99.0}
    table = pd.DataFrame([row | {"way": way} for way in ("alone", "sum")])
    truth = table.iloc[[0]].assign(way="phantom", **{"with": of_phantoms})
    pd.concat([table, truth]).to_csv(tmp_path / "08_composition-ratio.csv", index=False)
    told = claims(tmp_path).set_index("phantoms").verdict
    assert told["chest, a: 21.0 times as often, in 10% of pictures"] == verdict
