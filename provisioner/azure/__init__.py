"""The only place that speaks to Azure Resource Manager."""
