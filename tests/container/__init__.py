"""Tests of a built image. `deploy/build-without-registry.sh` builds one and runs them; without it they are skipped."""
