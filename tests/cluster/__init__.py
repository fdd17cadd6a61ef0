"""The image and the chart on a real Kubernetes: ``K8S=1 make cluster-test`` (README.md)."""
