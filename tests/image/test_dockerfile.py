"""The controllers' Dockerfile and what its build is given, read without building anything."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

from provisioner import __version__
from provisioner.build import COMMIT
from tests.image.dockerfile import DOCKERFILE, ROOT, Dockerfile, Instruction, context

READ = Dockerfile.read()
BUILD, IMAGE = READ.stages
GIVEN = sorted(str(path) for path in context())
LOCK = (ROOT / ".ci" / "locks" / "runtime.txt").read_text()


def only(name: str) -> Instruction:
    (found,) = [each for each in IMAGE if each.name == name]
    return found


def test_the_base_is_an_argument_that_takes_a_digest() -> None:
    (argument,) = [each for each in READ.preamble if each.name == "ARG"]
    name, _, default = argument.text.partition("=")

    assert re.fullmatch(r"python:3\.\d+-slim-\w+", default)
    assert {stage[0].words[0] for stage in READ.stages} == {f"${{{name}}}"}


def test_nothing_comes_from_the_internet_but_what_pip_checks_by_hash() -> None:
    steps = [each.text for each in READ.every("RUN")]

    assert not re.search(r"\b(?:curl|wget|apt-get|apk|git)\b", " ".join(steps))
    fetching = re.findall(r"-m pip [^&]*\b(?:install|wheel) --[^&]*", " && ".join(steps))
    assert len(fetching) == 4
    for step in fetching:
        # What is built is ours, with what was fetched by hash before.
        assert "--require-hashes" in step or "--no-index" in step or "--no-build-isolation" in step, step
    assert READ.every("ADD") == []


def test_the_lock_has_all_that_the_package_requires_with_hashes() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    locked = {name.lower() for name in re.findall(r"^([\w.-]+)==", LOCK, re.MULTILINE)}
    wanted = {re.split(r"[^\w.-]", text)[0].lower() for text in project["dependencies"]}

    assert wanted
    assert wanted <= locked
    assert all("--hash=sha256:" in entry for entry in re.findall(r"^\w[^=\n]*==(?:.*\\\n)*.*", LOCK, re.MULTILINE))


def test_the_lock_has_nothing_that_only_tests_or_the_demo_need() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    names = {re.split(r"[^\w.-]", text)[0] for texts in extras.values() for text in texts}

    assert {"pytest", "trustme"} <= names
    # Entra's tokens need the one, kopf the other.
    assert names & set(re.findall(r"^([\w.-]+)==", LOCK, re.MULTILINE)) == {"cryptography", "jsonpatch"}


def test_the_program_runs_as_a_user_whom_the_kubelet_knows_not_to_be_root() -> None:
    user, _, group = only("USER").text.partition(":")

    assert int(user) > 0
    assert int(group) > 0
    # What comes after would be done as that user.
    assert [each.name for each in IMAGE[IMAGE.index(only("USER")) + 1 :]] == ["ENTRYPOINT", "CMD"]


def test_the_program_is_process_1_and_told_what_to_do_by_arguments() -> None:
    assert only("ENTRYPOINT").text == '["provisioner"]'
    assert only("CMD").text == '["run"]'


def test_labels_are_those_of_open_container_images() -> None:
    labels = dict(word.split("=", 1) for word in only("LABEL").words)
    arguments = dict(each.text.split("=", 1) for each in IMAGE if each.name == "ARG")

    assert {name.rpartition(".")[0] for name in labels} == {"org.opencontainers.image"}
    assert labels["org.opencontainers.image.version"] == "${VERSION}"
    assert labels["org.opencontainers.image.revision"] == "${COMMIT}"
    assert arguments == {"COMMIT": "", "VERSION": __version__}
    assert dict(word.split("=", 1) for word in only("ENV").words)[COMMIT] == "${COMMIT}"


def test_the_build_is_given_the_package_and_what_it_is_built_from() -> None:
    assert {"LICENSE", "README.md", "pyproject.toml", ".ci/locks/runtime.txt"} <= set(GIVEN)
    assert {"provisioner/__main__.py", "provisioner/kube/lease.py", "provisioner/serving/environment.py"} <= set(GIVEN)
    assert any(name.startswith("provisioner/gpus/") and name.endswith(".json") for name in GIVEN)


def test_the_build_is_given_nothing_else() -> None:
    top = {name.partition("/")[0] for name in GIVEN}
    assert top == {"LICENSE", "README.md", "pyproject.toml", ".ci", "provisioner"}
    assert [name for name in GIVEN if name.startswith("provisioner/serving/")] == [
        "provisioner/serving/__init__.py",
        "provisioner/serving/environment.py",
    ]
    assert not [name for name in GIVEN if "Dockerfile" in name or name.endswith(".pyc")]


def test_what_is_copied_is_what_is_given() -> None:
    sources = [source for each in BUILD if each.name == "COPY" for source in each.words[:-1]]

    assert sources
    for name in GIVEN:
        assert any(name == source or name.startswith(f"{source}/") for source in sources), name


@pytest.mark.parametrize(
    ("rules", "given"),
    [
        ("", ["LICENSE", "provisioner/Dockerfile"]),
        ("*", []),
        ("*\n!LICENSE", ["LICENSE"]),
        ("*\n!provisioner\nprovisioner/Dockerfile*", []),
        ("**/Dockerfile", ["LICENSE"]),
        ("# LICENSE\n\nprovisioner", ["LICENSE"]),
    ],
)
def test_ignore_files_are_read_as_builders_read_them(rules: str, given: list[str], tmp_path: Path) -> None:
    (tmp_path / "Dockerfile.dockerignore").write_text(rules)

    found = {str(path) for path in context(tmp_path / "Dockerfile")}

    assert [name for name in ("LICENSE", "provisioner/Dockerfile") if name in found] == given


def test_a_dockerfile_is_read_with_comments_stages_and_continued_lines(tmp_path: Path) -> None:
    path = tmp_path / "Dockerfile"
    path.write_text('# syntax=x\nARG A=1\nFROM a AS b\nRUN one \\\n # no\n  && two\nFROM c\nENV X="y z" \\\n    W=v\n')

    read = Dockerfile.read(path)

    assert [each.text for each in read.preamble] == ["A=1"]
    assert [[each.name for each in stage] for stage in read.stages] == [["FROM", "RUN"], ["FROM", "ENV"]]
    assert read.every("RUN")[0].text.split() == ["one", "&&", "two"]
    assert read.every("ENV")[0].words == ["X=y z", "W=v"]


def test_the_dockerfile_lies_beside_its_ignore_file() -> None:
    assert Path(f"{DOCKERFILE}.dockerignore").is_file()


@pytest.mark.parametrize("chart", ["gpu-provisioner", "workspace"])
def test_the_charts_run_it_as_it_is_built(chart: str) -> None:
    values = yaml.safe_load((ROOT / "charts" / chart / "values.yaml").read_text())
    about = yaml.safe_load((ROOT / "charts" / chart / "Chart.yaml").read_text())
    security = values["podSecurityContext"]

    assert about["appVersion"] == __version__, "the tag that is pulled"
    assert f"{security['runAsUser']}:{security['runAsGroup']}" == only("USER").text
    assert security["runAsNonRoot"]
    assert values["controller"]["securityContext"]["readOnlyRootFilesystem"]
