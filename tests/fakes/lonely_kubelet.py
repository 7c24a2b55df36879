"""`python -m tests.fakes.lonely_kubelet FOLDER`: runs a pod, prints the numbers of its processes, and never ends."""

import asyncio
import sys
from pathlib import Path

from tests.fakes.containers_support import Pods, container, pod

# One that lives in a session of its own, as vLLM's engines do.
_SCRIPT = "trap '' TERM; setsid sleep 1000 & echo $$; echo $!; while :; do sleep 0.05; done"


async def main(folder: Path) -> None:
    """Run the pod."""
    started = Pods(folder).start(pod(container(_SCRIPT)))
    await started.until(lambda run: "running" in run.containers[0].state)
    async with asyncio.timeout(20):
        while len(started.log().split()) < 2:  # noqa: ASYNC110 -- a file tells nobody
            await asyncio.sleep(0.02)
    sys.stdout.write(started.log())
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
