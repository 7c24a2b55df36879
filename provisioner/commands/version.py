"""`provisioner version`: what runs here."""

import argparse
from collections.abc import Mapping

from provisioner.build import this_build
from provisioner.commands import output


async def run(options: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Tell the build. Returns the exit code."""
    build = this_build(environment)
    output.write(build.text() if options.output == "table" else output.document(build.document(), form=options.output))
    return 0
