"""Which of two versions is older, of Kubernetes and of node images."""

import pytest

from provisioner.apis.versions import image_name, is_older_image, is_older_kubernetes, kubernetes_version

UBUNTU = "AKSUbuntu-2204gen2containerd"


@pytest.mark.parametrize(
    ("running", "newest", "is_older"),
    [
        ("1.33.9", "1.34.2", True),
        ("1.34.1", "1.34.2", True),
        ("1.34.9", "1.34.10", True),
        ("1.9.0", "1.10.0", True),
        ("v1.34.1", "1.34.2", True),
        ("1.34.2", "1.34.2", False),
        ("1.34.3", "1.34.2", False),
        ("1.35.0", "1.34.2", False),
        # Without a patch version there is only the minor one to compare.
        ("1.33", "1.34.2", True),
        ("1.34", "1.34.2", False),
        ("1.34.2", "1.34", False),
        ("", "1.34.2", False),
        ("1.34.2", "", False),
        ("newest", "1.34.2", False),
        ("1.34.2-rc.1", "1.34.2", False),
        ("1", "2", False),
        ("1.34.99999999999999999999", "1.35.0", False),
    ],
)
def test_a_version_of_kubernetes_is_older_or_not(running: str, newest: str, is_older: bool) -> None:
    assert is_older_kubernetes(running, newest) is is_older


@pytest.mark.parametrize(
    ("running", "newest", "is_older"),
    [
        (f"{UBUNTU}-202611.04.0", f"{UBUNTU}-202612.01.0", True),
        (f"{UBUNTU}-202611.04.0", f"{UBUNTU}-202611.04.1", True),
        (f"{UBUNTU}-202609.30.0", f"{UBUNTU}-202610.2.0", True),
        (f"{UBUNTU}-2022.10.03", f"{UBUNTU}-202611.04.0", True),
        ("AKSUbuntu:1604:2020.03.11", "AKSUbuntu-1604-2020.04.01", True),
        ("aksubuntu-2204gen2containerd-202611.04.0", f"{UBUNTU}-202612.01.0", True),
        (f"{UBUNTU}-202611.04.0", f"{UBUNTU}-202611.04.0", False),
        (f"{UBUNTU}-202612.01.0", f"{UBUNTU}-202611.04.0", False),
        # Another distribution, generation or architecture is another choice, not a newer image.
        ("AKSUbuntu-2204containerd-202611.04.0", f"{UBUNTU}-202612.01.0", False),
        (f"{UBUNTU}-202611.04.0", "AKSUbuntu-2404gen2containerd-202612.01.0", False),
        (f"{UBUNTU}-202611.04.0", "AKSAzureLinux-V3gen2-202612.01.0", False),
        ("", f"{UBUNTU}-202612.01.0", False),
        (f"{UBUNTU}-202611.04.0", "", False),
        ("202611.04.0", "202612.01.0", False),
        (UBUNTU, UBUNTU, False),
        (f"{UBUNTU}-latest", f"{UBUNTU}-202612.01.0", False),
    ],
)
def test_a_node_image_is_older_or_not(running: str, newest: str, is_older: bool) -> None:
    assert is_older_image(running, newest) is is_older


def test_what_is_no_version_has_no_numbers_and_no_name() -> None:
    assert kubernetes_version("1.34.2") == (1, 34, 2)
    assert kubernetes_version("latest") == ()
    assert image_name(f"{UBUNTU}-202611.04.0") == UBUNTU.lower()
    assert image_name("x" * 5000) == ""
