"""Expiration: a claim that has come to the age which its author gave it is deleted."""

from typing import Final

from provisioner.apis import names
from provisioner.apis.times import format_time
from provisioner.nodeclaim.view import Draft, Notice, View

EXPIRED: Final = "expired"


def expire(view: View, draft: Draft) -> bool:
    """Have the claim deleted where it is older than `spec.expireAfter`; tell whether it is.

    As in Karpenter, whatever the claim has come to, but for one thing: there do-not-disrupt does not hold an expiry
    up. Whoever writes it on a claim does not expect that the node is taken away under a running model.
    """
    claim = view.claim
    age = claim.spec.expire_after if claim.spec else None
    if age is None or claim.annotations.get(names.DO_NOT_DISRUPT_ANNOTATION) == "true":
        return False
    end = claim.created + age
    if view.now < end:
        draft.look_again(end - view.now)
        return False
    draft.delete_claim = EXPIRED
    draft.notices.append(
        Notice(
            reason="Expired",
            message=f"The claim has expired at {format_time(end)}, as its spec.expireAfter says; deleting it. The "
            f'annotation {names.DO_NOT_DISRUPT_ANNOTATION}: "true" would have kept it.',
            is_warning=True,
        )
    )
    return True
