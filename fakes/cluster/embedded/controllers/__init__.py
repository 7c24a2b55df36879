"""What kube-controller-manager and kube-scheduler do, as far as clients of GPU nodes notice.

Each controller is synchronous and sees all objects at once, so none of them ever works on an old state.
"""
