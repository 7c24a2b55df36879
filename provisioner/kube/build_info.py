"""The metric that tells which build runs, for dashboards that compare before and after."""

from provisioner.build import this_build
from provisioner.kube.metrics import Registry


def publish_build(metrics: Registry) -> None:
    """Have the build told by its labels."""
    build = this_build()
    gauge = metrics.gauge(
        "gpu_provisioner_build_info", text="1, by what runs here.", labels=("version", "commit", "python")
    )
    gauge.set(1, version=build.version, commit=build.commit, python=build.python)
