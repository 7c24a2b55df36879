"""The arguments of the commands. Imports nothing that takes time: `--help` answers at once."""

import argparse
import re
from typing import Any, Final

from provisioner.commands.inputs import AZURE, HUB, PLAN, STATUS
from provisioner.settings import ControllerSettings, Settings, flag_of, source_of
from provisioner.workspace.settings import WorkspaceSettings

# As in provisioner.commands.output, which is not needed to parse.
_FORMATS: Final = ("table", "json", "yaml")
_EXIT_CODES: Final = """exit codes:
  0  done
  1  Azure or Kubernetes did not answer, or refused
  2  an argument, a setting or a file is wrong"""

_SKUS: Final = f"""examples:
  provisioner skus                              the GPU sizes of the cluster's region, the cheapest first
  provisioner skus --gpu A100 --available       those with A100s that can be had now
  provisioner skus --min-gpu-memory 160 --spot  at least 160 GiB of GPU memory in the VM, by spot price
  provisioner skus -o json | jq '.sizes[0]'

{_EXIT_CODES}

GPU MEM is of each GPU. QUOTA LEFT is vCPUs left and granted in the quota that the size counts against. Prices are US
dollars, Linux, pay-as-you-go. Needs Microsoft.Compute/skus/read, Microsoft.Compute/locations/usages/read and
Microsoft.ContainerService/managedClusters/read."""

_QUOTA: Final = f"""examples:
  provisioner quota                                              the families of the region's GPU sizes
  provisioner quota --family A100
  provisioner quota --require 2 --size Standard_NC24ads_A100_v4  exit code 3 where two more do not fit

{_EXIT_CODES}
  3  what --require asks for does not fit

Needs Microsoft.Compute/locations/usages/read, Microsoft.Compute/skus/read and
Microsoft.ContainerService/managedClusters/read."""

_PLAN: Final = f"""examples:
  provisioner plan -f workspace.yaml                       its model, layout, nodes and NodeClaims
  provisioner plan -f claim.yaml --why all                 why each other size is not taken
  kubectl get nodeclaims -o yaml | provisioner plan -f -   as if all of them were new
  provisioner plan -f claims.yaml -o json --show-body

{_EXIT_CODES}
  3  something cannot be had now: quota, a restriction, the limit of agent pools, a model that is not looked up
  4  something is refused, and always will be as it is written

Files may hold several documents, and lists. What the first claim takes, the second does not get. KaitoNodeClasses in
the files count before those in the cluster; Kubernetes is asked for them, and for Nodes that have joined, where it can
be reached. Nothing is created. What Azure has no capacity for is found by asking alone, so a plan cannot know it.

A Workspace is planned as `provisioner workspace` would serve a new one: what is wrong with it is told as its conditions
would. ConfigMaps that it names are read from the files. Models that are no presets are looked up on the Hugging Face
Hub, with HF_TOKEN where that is set."""

_STATUS: Final = f"""examples:
  provisioner status
  provisioner status -w                      live; appends a line for each change where the output is no terminal
  provisioner status ws1 --exit-code         exit code 3 until it is Ready
  provisioner status -o json | jq '.pricePerHour'

{_EXIT_CODES}
  3  with --exit-code: a claim is not Ready

SINCE is how long the phase lasts, $/H US dollars an hour, paid while there is a VM. Needs list of NodeClaims, nothing
of Azure."""


def add_commands(commands: Any) -> None:
    """Add the commands to the subparsers of `provisioner`."""
    _add_skus(commands)
    _add_quota(commands)
    _add_plan(commands)
    _add_status(commands)
    _add_version(commands)


def _add_skus(commands: Any) -> None:
    parser = _parser(
        commands,
        "skus",
        "list VM sizes with price, zones, quota left and restrictions",
        usage="[options]",
        epilog=_SKUS,
    )
    parser.add_argument("--all", action="store_true", help="sizes without a GPU too")
    parser.add_argument("--gpu", metavar="NAME", type=_text, help="only GPUs with this in their name, such as A100")
    parser.add_argument("--min-gpu-memory", metavar="GIB", type=_amount, help="only VMs with so much GPU memory in all")
    parser.add_argument("--available", action="store_true", help="only what the subscription may use and has quota for")
    parser.add_argument("--spot", action="store_true", help="prices and quota of spot VMs")
    _add_region(parser)
    _add_output(parser)
    _add_settings(parser, AZURE)


def _add_quota(commands: Any) -> None:
    parser = _parser(commands, "quota", "show vCPU quotas and how many VMs still fit", usage="[options]", epilog=_QUOTA)
    parser.add_argument("--all", action="store_true", help="all families, not only those with GPUs")
    parser.add_argument("--family", metavar="NAME", type=_text, help="only families with this in their name")
    parser.add_argument("--require", metavar="N", type=_count, help="ask whether N more VMs fit; needs --size")
    parser.add_argument("--size", metavar="SIZE", type=_text, help="the VM size that --require is about")
    parser.add_argument("--spot", action="store_true", help="with --require: spot VMs")
    _add_region(parser)
    _add_output(parser)
    _add_settings(parser, AZURE)


def _add_plan(commands: Any) -> None:
    parser = _parser(
        commands,
        "plan",
        "show what Workspaces and claims would become, and what they cost",
        usage="-f FILE [options]",
        epilog=_PLAN,
    )
    parser.add_argument(
        "-f", "--file", dest="files", metavar="FILE", action="append", required=True, help="YAML or JSON; - is stdin"
    )
    parser.add_argument(
        "--why",
        choices=("fitting", "all", "none"),
        default="fitting",
        help="which sizes that are not offered to explain: those that would do (default), all, or none",
    )
    parser.add_argument(
        "--show-body",
        action="store_true",
        help="show the NodeClaims of Workspaces, and the agent pools that Azure would be asked for",
    )
    parser.add_argument(
        "--no-lookup",
        dest="lookup",
        action="store_false",
        help="do not ask the Hugging Face Hub; Workspaces of models that are no presets are not planned then",
    )
    _add_output(parser)
    _add_to(_add_settings(parser, PLAN), HUB, kind=WorkspaceSettings)


def _add_status(commands: Any) -> None:
    parser = _parser(
        commands,
        "status",
        "show every claim, what it waits for and what it costs",
        usage="[NAME ...] [options]",
        epilog=_STATUS,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", type=_text, help="only these claims")
    ending = parser.add_mutually_exclusive_group()
    ending.add_argument("-w", "--watch", action="store_true", help="go on until Ctrl-C")
    ending.add_argument("--exit-code", action="store_true", help="exit code 3 where a claim is not Ready")
    parser.add_argument("--wide", action="store_true", help="whole messages, however long")
    _add_output(parser)
    _add_settings(parser, STATUS)


def _add_version(commands: Any) -> None:
    parser = _parser(
        commands,
        "version",
        "show the version, the commit it was built from, Python and the main libraries",
        usage="[-o json|yaml]",
        epilog="",
    )
    _add_output(parser)


def _parser(commands: Any, name: str, summary: str, *, usage: str, epilog: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        # The whole list of settings would stand before everything else.
        usage=f"provisioner {name} {usage}",
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}. Reads only.",
        epilog=epilog,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    return parser


def _add_region(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--region", metavar="REGION", type=_region, help="another region than the cluster's")


def _add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--output", choices=_FORMATS, default="table", help="default table")


def _add_settings(parser: argparse.ArgumentParser, names: tuple[str, ...]) -> argparse._ArgumentGroup:
    group = parser.add_argument_group("settings", "As of the controllers: a flag, else an environment variable.")
    _add_to(group, names, kind=Settings)
    return group


def _add_to(group: argparse._ArgumentGroup, names: tuple[str, ...], *, kind: type[ControllerSettings]) -> None:
    for name in names:
        source = source_of(kind.model_fields[name])
        text = f"{source.help} [{', '.join(source.env)}]"
        group.add_argument(flag_of(name), dest=name, metavar="VALUE", help=text.replace("%", "%%"))


def _text(value: str) -> str:
    if not value.strip():
        raise argparse.ArgumentTypeError("must not be empty")
    return value.strip()


def _region(value: str) -> str:
    folded = value.replace(" ", "").lower()
    if not re.fullmatch(r"[a-z0-9]{2,60}", folded, re.ASCII):
        raise argparse.ArgumentTypeError(f"{value[:80]!r} is no region such as eastus")
    return folded


def _count(value: str) -> int:
    if not value.isascii() or not value.isdigit() or not 1 <= len(value) <= 6 or not int(value):
        raise argparse.ArgumentTypeError(f"{value[:80]!r} is no number of VMs")
    return int(value)


def _amount(value: str) -> float:
    if not re.fullmatch(r"\d{1,6}(\.\d{1,3})?", value, re.ASCII):
        raise argparse.ArgumentTypeError(f"{value[:80]!r} is no number of GiB such as 80")
    return float(value)
