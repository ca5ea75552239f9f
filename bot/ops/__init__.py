"""What the operator sees: logs, alerts, metrics, health."""
