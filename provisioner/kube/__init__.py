"""The only place that speaks Kubernetes: API access, watch, store, work queue, events, metrics and probes."""
