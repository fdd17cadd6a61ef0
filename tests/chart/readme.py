"""What the chart's README says around the table of values."""

from __future__ import annotations

from typing import Final

BEFORE: Final = """\
<!-- Written by `python -m tests.chart.generate`; change values.yaml or that, not this file. -->
# Eddy on Kubernetes

Keeps the embeddings in a Kafka topic clustered while they change. The chart installs the
assigners (a StatefulSet), the reclusterer (one pod) and the server (a Deployment). Kafka is yours:
the chart brings none.

```
helm install eddy ./helm \\
  --set kafka.bootstrapServers=kafka:9092 \\
  --set server.auth.existingSecret=eddy-tokens
helm test eddy --logs
```

Two values have no default that could be right: where Kafka is, and who may ask the server
(`server.auth.existingSecret`: a secret with lines of `name:scopes:sha256`; `server.enabled=false`
leaves the server out).

## What is worth knowing

- **Identity.** A pod's name is its `instance`: the stable half of its transactional id, and its
  `group.instance.id`. A pod that comes back within the session timeout keeps its partitions.
- **Storage.** `/var/lib/eddy` holds snapshots and compiled code. All of it can be made again: the
  topics are the truth. `assigner.persistence` is decided at the installation, because Kubernetes
  refuses to change the claims of a StatefulSet.
- **Topics.** A hook runs `eddy topics create` before the first installation and every upgrade. It
  makes what is missing and fails with the difference where something is not as it must be.
- **Scaling.** Never above the number of partitions. `assigner.autoscaling.mode: keda` follows the
  lag; it needs KEDA in the cluster.
- **Memory.** An assigner needs about `4 × dimensions + 120` bytes an item, for the items of its
  share of the partitions, and some 400 MiB beside them. A pod must be able to hold the share
  of one that is away.
- **Access control of Kafka.** `eddy topics acls` prints what each role needs. Transactional ids
  begin with `<kafka.groupId>.` and `<topics.prefix>reclusterer`.
- **Secrets** are files under `/etc/eddy/secrets`. After a change of an existing secret raise
  `secretRevision`. `kafka.config` refuses passwords and keys: it stands in a ConfigMap.
- **First start.** The image holds Eddy's loops compiled for the kind of processor that it was built
  on. On another kind every new pod compiles them first, for about a minute of a whole core: a
  quarter of a core (`resources.requests.cpu`) keeps that well within the startup probe's 600 s.
- **Fractions** are given in a file or by `--set-json`: what `--set` makes of `0.5` is text, and the
  schema refuses it.
- **Rights.** [rbac/installer.yaml](rbac/installer.yaml) is all that whoever installs needs in the
  namespace. The namespace may enforce Pod Security `restricted`.
- **What stays.** `helm uninstall` leaves the volumes of the assigners
  (`persistence.retentionPolicy`), the pod of `helm test`, and all topics.
- **Ports.** `http` 8080 (server), `ops` 9108 (probes and metrics, every service).

## Values
"""

AFTER: Final = """
## Not verified

The tests render the chart, hold every object against the schemas of Kubernetes 1.30, 1.32, 1.34
and 1.37 and of the operators' definitions, and read the configuration with Eddy itself. They do
not show:

- that a network plug-in enforces the NetworkPolicies as they are meant;
- KEDA scaling on real lag, and the Prometheus and Strimzi operators taking up their objects;
- pods on a real GPU node, MIG slices and resource claims;
- an ingress controller or a gateway in front of streams;
- traces at a collector of your own: the tests receive them in a small one of theirs;
- `kafka.sasl.mechanism: OAUTHBEARER` against a real provider.
"""
