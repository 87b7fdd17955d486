"""Measuring this node on the machine it runs on: `dicom-node bench latency` and `bench receive`."""
