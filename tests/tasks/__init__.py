"""Tests of benchmarks and their verifiers."""
