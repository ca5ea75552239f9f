"""The use case: a request becomes a job, and every job reaches exactly one outcome."""
