"""QuotaRules without I/O."""
