"""Requirements of one key hold together, as node affinity of Kubernetes defines each of them."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provisioner.apis import names
from provisioner.apis.nodeclaim import Operator, Requirement
from provisioner.placement.requirements import Contradiction, Requirements, Values, combine
from tests.unit.builders import A100, T4

ABSENT = None
# Labels that differ in every way that an operator can see; "04" is the same number as "4" and another label.
UNIVERSE = (ABSENT, "", "a", "b", "c", "1", "2", "3", "4", "04", "5", "9")


def needs(operator: Operator, *values: str, key: str = "k") -> Requirement:
    return Requirement(key=key, operator=operator, values=values)


def test_key_without_requirements_may_be_anything() -> None:
    values = combine([])["k"]
    assert values.allows("a")
    assert values.candidates is None


@pytest.mark.parametrize(
    ("requirements", "allowed", "refused"),
    [
        ([needs("In", "a", "b")], ["a", "b"], ["c", "A", ""]),
        ([needs("NotIn", "a")], ["b", ""], ["a"]),
        ([needs("In", "a", "b"), needs("In", "b", "c")], ["b"], ["a", "c"]),
        ([needs("In", "a", "b"), needs("NotIn", "a")], ["b"], ["a"]),
        ([needs("NotIn", "a"), needs("NotIn", "b")], ["c"], ["a", "b"]),
        ([needs("Exists")], ["", "a"], []),
        ([needs("Gt", "2")], ["3", "10"], ["2", "1", "a", ""]),
        ([needs("Gte", "2")], ["2", "3"], ["1"]),
        ([needs("Lt", "2")], ["1", "0"], ["2", "x"]),
        ([needs("Lte", "2")], ["2", "1"], ["3"]),
        ([needs("Gt", "1"), needs("Gt", "3"), needs("Lt", "9"), needs("Lt", "6")], ["4", "5"], ["3", "6", "8"]),
        ([needs("In", "1", "5"), needs("Gt", "2")], ["5"], ["1", "4"]),
        ([needs("DoesNotExist")], [], ["a", ""]),
    ],
)
def test_all_requirements_of_a_key_hold_together(
    requirements: list[Requirement], allowed: list[str], refused: list[str]
) -> None:
    values = combine(requirements)["k"]
    assert [value for value in (*allowed, *refused) if values.allows(value)] == allowed


@pytest.mark.parametrize(
    ("requirements", "candidates"),
    [
        ([needs("In", "c", "a", "b")], ("c", "a", "b")),
        ([needs("In", "c", "a", "c")], ("c", "a")),
        ([needs("In", "c", "a", "b"), needs("In", "b", "a")], ("a", "b")),
        ([needs("NotIn", "a")], None),
        ([needs("Exists")], None),
        ([needs("DoesNotExist")], ()),
    ],
)
def test_candidates_stand_in_the_order_of_the_first_list(
    requirements: list[Requirement], candidates: tuple[str, ...] | None
) -> None:
    assert combine(requirements)["k"].candidates == candidates


@pytest.mark.parametrize(
    ("requirements", "why"),
    [
        ([needs("In", "a"), needs("In", "b")], "no value of k satisfies In [a] and In [b]"),
        ([needs("In", "a", "b"), needs("NotIn", "b", "a")], "no value of k satisfies In [a, b] and NotIn [b, a]"),
        ([needs("In", "a"), needs("DoesNotExist")], "no value of k satisfies In [a] and DoesNotExist"),
        ([needs("DoesNotExist"), needs("Exists")], "no value of k satisfies DoesNotExist and Exists"),
        ([needs("Gt", "3"), needs("Lt", "4")], "no value of k satisfies Gt [3] and Lt [4]"),
        ([needs("In", "3"), needs("Gt", "3")], "no value of k satisfies In [3] and Gt [3]"),
        ([needs("In")], "no value of k satisfies In"),
        ([needs("Gt", "many")], "k Gt takes an integer, not 'many'"),
        ([needs("Lte", "1", "2")], "k Lte takes one integer"),
        ([needs("Gte")], "k Gte takes one integer"),
    ],
)
def test_what_nothing_can_satisfy_is_named(requirements: list[Requirement], why: str) -> None:
    with pytest.raises(Contradiction) as refused:
        combine(requirements)
    assert str(refused.value) == why


@pytest.mark.parametrize("key", [names.INSTANCE_TYPE_LABEL, names.SKU_NAME_LABEL])
def test_vm_sizes_are_compared_without_regard_to_case(key: str) -> None:
    combined = combine([needs("In", A100.upper(), T4, key=key), needs("NotIn", T4.lower(), key=key)])
    assert combined[key].candidates == (A100.lower(),)


def test_other_labels_are_compared_by_case() -> None:
    with pytest.raises(Contradiction):
        combine([needs("In", "a"), needs("In", "A")])


@pytest.mark.parametrize("bound", ["", " 5", "5 ", "1_000", "٣", "1.5", "0x10", "+-1", "9" * 19, "1" * 5000])
def test_bound_that_kubernetes_would_not_read_is_refused_and_shown_in_part(bound: str) -> None:
    with pytest.raises(Contradiction) as refused:
        combine([needs("Gt", bound)])
    assert str(refused.value).startswith("k Gt takes an integer, not '")
    assert len(str(refused.value)) < 150


@pytest.mark.parametrize("bound", ["-5", "+5", "0", "007"])
def test_bound_is_read_as_kubernetes_reads_it(bound: str) -> None:
    assert combine([needs("Gt", bound)])["k"].allows("8")


def test_contradiction_of_many_values_is_told_in_part() -> None:
    values = [str(number) for number in range(5000)]
    with pytest.raises(Contradiction) as refused:
        combine([needs("In", *values), needs("NotIn", *values)])
    assert str(refused.value) == (
        "no value of k satisfies In [0, 1, 2, 3, 4, 5, 6, 7 and 4992 more] and NotIn [0, 1, 2, 3, 4, 5, 6, 7 and 4992 "
        "more]"
    )


def test_contradiction_of_many_requirements_is_told_in_part() -> None:
    with pytest.raises(Contradiction) as refused:
        combine([needs("In", "a"), *[needs("NotIn", "a" * 200)] * 98, needs("DoesNotExist")])
    assert str(refused.value).endswith(" and 94 more")
    assert len(str(refused.value)) < 700


def test_requirements_are_kept_as_they_are_written() -> None:
    combined = combine([needs("Gt", "3"), needs("NotIn", "7", "8"), needs("Exists", key="other")])
    assert combined.written == {"k": "Gt [3] and NotIn [7, 8]", "other": "Exists"}


def test_of_several_minimal_choices_the_largest_counts() -> None:
    raw = [{"key": "k", "operator": "Exists", "minValues": number} for number in (2, 5, 3)]
    assert combine([Requirement.model_validate(item) for item in raw]).min_values == {"k": 5}
    assert combine([needs("Exists")]).min_values == {}


def test_single_values_are_the_labels_that_leave_no_choice() -> None:
    combined = combine(
        [
            needs("In", "x", key="one"),
            needs("In", "x", "y", key="two"),
            needs("In", "x", "y", key="left"),
            needs("NotIn", "x", key="left"),
            needs("Exists", key="any"),
            needs("DoesNotExist", key="none"),
        ]
    )
    assert combined.single_values == {"one": "x", "left": "y"}


# Against the definition, one label at a time


def satisfies(label: str | None, requirement: Requirement) -> bool:
    """Tell whether a Node with that label matches, by the words of the Kubernetes API."""
    values = requirement.values
    match requirement.operator:
        case "In":
            return label in values
        case "NotIn":
            return label not in values
        case "Exists":
            return label is not ABSENT
        case "DoesNotExist":
            return label is ABSENT
    if label is ABSENT or not label.isdecimal():
        return False
    number, bound = int(label), int(values[0])
    compared = {"Gt": number > bound, "Gte": number >= bound, "Lt": number < bound, "Lte": number <= bound}
    return compared[requirement.operator]


_LABELS = st.sampled_from([label for label in UNIVERSE if label is not ABSENT])
_REQUIREMENTS = st.one_of(
    st.builds(lambda op, values: needs(op, *values), st.sampled_from(["In", "NotIn"]), st.lists(_LABELS, min_size=1)),
    st.builds(needs, st.sampled_from(["Exists", "DoesNotExist"])),
    st.builds(lambda op, bound: needs(op, str(bound)), st.sampled_from(["Gt", "Gte", "Lt", "Lte"]), st.integers(0, 9)),
)


def combined(requirements: list[Requirement]) -> Values | None:
    try:
        found: Requirements = combine(requirements)
    except Contradiction:
        return None
    return found["k"]


@settings(deadline=None)
@given(requirements=st.lists(_REQUIREMENTS, max_size=4))
def test_a_label_is_allowed_exactly_when_it_satisfies_every_requirement(requirements: list[Requirement]) -> None:
    values = combined(requirements)
    matching = [label for label in UNIVERSE if all(satisfies(label, requirement) for requirement in requirements)]
    if values is None:
        assert matching == []
        return
    present = [label for label in matching if label is not ABSENT]
    assert [label for label in UNIVERSE if label is not ABSENT and values.allows(label)] == present
    if values.candidates is not None:
        assert sorted(values.candidates) == sorted(present)


@settings(deadline=None)
@given(requirements=st.lists(_REQUIREMENTS, max_size=4), data=st.data())
def test_the_order_of_requirements_does_not_matter(requirements: list[Requirement], data: st.DataObject) -> None:
    shuffled = data.draw(st.permutations(requirements))
    one, other = combined(requirements), combined(shuffled)
    assert (one is None) == (other is None)
    if one is not None and other is not None:
        assert [one.allows(label or "") for label in UNIVERSE] == [other.allows(label or "") for label in UNIVERSE]
