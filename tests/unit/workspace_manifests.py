"""What Workspaces of many kinds run, as we render it, for tests."""

from typing import Any

from provisioner.workspace import inference as inference_renderer
from provisioner.workspace import tuning as tuning_renderer
from provisioner.workspace.view import Inputs
from tests.unit.workspace_builders import A100, IMAGE, SELECTOR, inference, model_of, sizing_of, tuning, workspace

TEMPLATE: dict[str, Any] = {
    "metadata": {"labels": {"app": "mine", "kaito.sh/workspace": "stolen"}, "annotations": {"a": "b"}},
    "spec": {
        "serviceAccountName": "mine",
        "tolerations": [{"key": "team", "operator": "Exists"}],
        "containers": [{"name": "c", "image": "mine:1", "command": ["run", "$(HOME)"]}],
    },
}
ADAPTERS = [
    {"source": {"name": "style", "image": "registry.example/style:1", "imagePullSecrets": ["pull"]}, "strength": "0.5"},
    {"source": {"name": "tone", "volumeSource": {"persistentVolumeClaim": {"claimName": "tone"}}}},
]
TOKEN = {"name": "llama-3.1-8b-instruct", "presetOptions": {"modelAccessSecret": "hf"}}
THREE = {"labelSelector": SELECTOR, "instanceType": A100, "count": 3}
SERVED: dict[str, dict[str, Any]] = {
    "one node": {},
    "group": {"resource": THREE},
    "adapters": {"spec": inference(adapters=ADAPTERS)},
    "config": {"spec": inference(config="conf")},
    "token": {"spec": inference(preset=TOKEN)},
    "several GPUs": {"resource": {"labelSelector": SELECTOR, "instanceType": "Standard_ND96isr_H100_v5"}},
    "other model": {"spec": inference(preset={"name": "acme/tiny"})},
}
TUNED: dict[str, dict[str, Any]] = {
    "urls to image": {"spec": tuning()},
    "image to image": {"spec": tuning(input={"image": "registry.example/data:1", "imagePullSecrets": ["pull"]})},
    "volume to image": {"spec": tuning(input={"volumeSource": {"persistentVolumeClaim": {"claimName": "data"}}})},
    "urls to volume": {"spec": tuning(output={"volumeSource": {"persistentVolumeClaim": {"claimName": "out"}}})},
    "image to volume": {
        "spec": tuning(
            input={"image": "registry.example/data:1"},
            output={"volumeSource": {"persistentVolumeClaim": {"claimName": "out"}}},
        )
    },
    "volume to volume": {
        "spec": tuning(
            input={"volumeSource": {"persistentVolumeClaim": {"claimName": "both"}}},
            output={"volumeSource": {"persistentVolumeClaim": {"claimName": "both"}}},
        )
    },
    "config": {"spec": tuning(config="conf")},
}


def stateful_set(*, config: str = "", hub: str = "", **changes: Any) -> dict[str, Any]:
    """Return the StatefulSet of a Workspace; `config` is what its ConfigMap says."""
    subject = workspace(**changes)
    rendered = inference_renderer.render(
        subject,
        model=model_of(subject),
        sizing=sizing_of(subject),
        inputs=Inputs(configs={"conf": {"inference_config.yaml": config}}),
        image=IMAGE,
        pull_secrets=("registry",),
        hub=hub,
    )
    return dict(rendered.body)


def job(*, config: str = "", image: str = IMAGE, hub: str = "", **changes: Any) -> dict[str, Any]:
    """Return the Job of a Workspace."""
    subject = workspace(**changes)
    model = model_of(subject)
    assert model is not None
    rendered = tuning_renderer.render(
        subject,
        model=model,
        sizing=sizing_of(subject),
        inputs=Inputs(configs={"conf": {"training_config.yaml": config}}),
        image=image,
        pull_secrets=("registry",),
        hub=hub,
    )
    return dict(rendered.body)
