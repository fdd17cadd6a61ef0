{{/* Names. 40 characters and "-reclusterer" are 52: what Kubernetes adds to a StatefulSet's pods must fit into 63. */}}
{{- define "eddy.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 40 | trimSuffix "-" -}}
{{- end }}

{{- define "eddy.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := include "eddy.name" . -}}
{{- ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end }}

{{- define "eddy.namespace" -}}
{{- .Values.namespaceOverride | default .Release.Namespace -}}
{{- end }}

{{/* Labels: (dict "root" $ "component" "assigner"); without a component those of the release. */}}
{{- define "eddy.selectorLabels" -}}
app.kubernetes.io/name: {{ include "eddy.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- with .component }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- end }}

{{- define "eddy.labels" -}}
{{- $own := include "eddy.selectorLabels" . | fromYaml -}}
{{- $more := dict "app.kubernetes.io/version" .root.Chart.AppVersion "app.kubernetes.io/managed-by" .root.Release.Service "app.kubernetes.io/part-of" "eddy" "helm.sh/chart" (printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_") -}}
{{- mergeOverwrite (dict) .root.Values.commonLabels $more $own | toYaml -}}
{{- end }}

{{/* The head of an object: (dict "root" $ "name" "x" "component" "c" "annotations" (dict)). */}}
{{- define "eddy.metadata" -}}
name: {{ .name }}
namespace: {{ include "eddy.namespace" .root }}
labels: {{- include "eddy.labels" . | nindent 2 }}
{{- with mergeOverwrite (dict) .root.Values.commonAnnotations (.annotations | default dict) }}
annotations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "eddy.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default (include "eddy.fullname" .) -}}
{{- else -}}
{{- .Values.serviceAccount.name | default "default" -}}
{{- end -}}
{{- end }}

{{/* Image: (dict "root" $ "gpu" false). A digest wins over a tag. */}}
{{- define "eddy.image" -}}
{{- $image := .root.Values.image -}}
{{- $name := $image.repository -}}
{{- with .root.Values.global.imageRegistry }}{{ $name = printf "%s/%s" (trimSuffix "/" .) $name }}{{ end -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $name $image.digest -}}
{{- else -}}
{{- $flavour := ternary "gpu" $image.flavour (.gpu | default false) -}}
{{- printf "%s:%s%s" $name ($image.tag | default .root.Chart.AppVersion) (ternary "-gpu" "" (eq $flavour "gpu")) -}}
{{- end -}}
{{- end }}

{{- define "eddy.kafkaSecretName" -}}
{{- if .Values.kafka.sasl.existingSecret -}}
{{- tpl .Values.kafka.sasl.existingSecret . -}}
{{- else if .Values.kafka.sasl.password -}}
{{- include "eddy.fullname" . }}-kafka
{{- end -}}
{{- end }}

{{- define "eddy.authSecretName" -}}
{{- if .Values.server.auth.existingSecret -}}
{{- tpl .Values.server.auth.existingSecret . -}}
{{- else if .Values.server.auth.tokens -}}
{{- include "eddy.fullname" . }}-auth
{{- end -}}
{{- end }}

{{- define "eddy.groupId" -}}
{{- .Values.kafka.groupId | default (printf "%sassigner" .Values.topics.prefix) -}}
{{- end }}

{{- define "eddy.isTls" -}}
{{- if .Values.kafka.tls.enabled }}true{{ end -}}
{{- end }}

{{/* What a process obeys: the chart's own settings over `config`. */}}
{{- define "eddy.config" -}}
{{- $values := .Values -}}
{{- $kafka := dict "bootstrap.servers" $values.kafka.bootstrapServers -}}
{{- with $values.kafka.groupId }}{{ $_ := set $kafka "group.id" . }}{{ end -}}
{{- if not $values.kafka.staticMembership }}{{ $_ := set $kafka "group.instance.id" "" }}{{ end -}}
{{- $tls := $values.kafka.tls -}}
{{- $sasl := $values.kafka.sasl -}}
{{- if or $tls.enabled $sasl.mechanism -}}
{{- $_ := set $kafka "security.protocol" (printf "%s%s" (ternary "SASL_" "" (not (empty $sasl.mechanism))) (ternary "SSL" "PLAINTEXT" $tls.enabled)) -}}
{{- end -}}
{{- with $sasl.mechanism }}{{ $_ := set $kafka "sasl.mechanism" . }}{{ end -}}
{{- if and $tls.enabled $tls.existingSecret -}}
{{- with $tls.caKey }}{{ $_ := set $kafka "ssl.ca.location" (printf "/etc/eddy/secrets/kafka-tls/%s" .) }}{{ end -}}
{{- with $tls.certKey }}{{ $_ := set $kafka "ssl.certificate.location" (printf "/etc/eddy/secrets/kafka-tls/%s" .) }}{{ end -}}
{{- with $tls.keyKey }}{{ $_ := set $kafka "ssl.key.location" (printf "/etc/eddy/secrets/kafka-tls/%s" .) }}{{ end -}}
{{- end -}}
{{- $kafka = mergeOverwrite $kafka (deepCopy $values.kafka.config) -}}
{{- range $role := list "consumer" "producer" "admin" -}}
{{- with index $values.kafka $role }}{{ $_ := set $kafka $role . }}{{ end -}}
{{- end -}}
{{- $topics := dict "input" $values.topics.input.name "prefix" $values.topics.prefix "partitions" $values.topics.input.partitions "replication_factor" $values.topics.replicationFactor -}}
{{- $auth := dict "mode" $values.server.auth.mode -}}
{{- if eq $values.server.auth.mode "bearer" -}}
{{- $_ := set $auth "file" (printf "/etc/eddy/secrets/auth/%s" $values.server.auth.tokensKey) -}}
{{- else -}}
{{- $_ := set $auth "allow_unauthenticated" true -}}
{{- end -}}
{{- $telemetry := dict "metrics_port" 9108 -}}
{{- with $values.monitoring.tracing.endpoint }}{{ $_ := set $telemetry "tracing" (dict "endpoint" .) }}{{ end -}}
{{- $derived := dict "kafka" $kafka "topics" $topics
    "state" (dict "directory" "/var/lib/eddy/state")
    "telemetry" $telemetry
    "server" (dict "host" "0.0.0.0" "port" 8080 "auth" $auth) -}}
{{- mergeOverwrite (deepCopy $values.config) $derived | toYaml -}}
{{- end }}

{{/* Topic names as the process derives them, and how each is kept: the test holds them against it. */}}
{{- define "eddy.topics" -}}
{{- $n := int .Values.topics.input.partitions -}}
{{- $prefix := .Values.topics.prefix -}}
{{- $input := .Values.topics.input.name -}}
{{- $maxRecord := int64 (dig "limits" "max_record_bytes" 1048576 .Values.config) -}}
{{- $compacted := dict "cleanup.policy" "compact" "delete.retention.ms" "604800000" -}}
- {name: {{ $input | quote }}, partitions: {{ $n }}, config: {cleanup.policy: compact, delete.retention.ms: "604800000", min.compaction.lag.ms: "86400000"}}
- {name: {{ printf "%scluster-changes" $prefix | quote }}, partitions: {{ $n }}, config: {cleanup.policy: delete, retention.ms: "604800000"}}
- {name: {{ printf "%scluster-assignments" $prefix | quote }}, partitions: {{ $n }}, config: {{ toJson $compacted }}}
- {name: {{ printf "%sitem-vectors" $prefix | quote }}, partitions: {{ $n }}, config: {{ toJson $compacted }}}
- {name: {{ printf "%scluster-stats" $prefix | quote }}, partitions: {{ $n }}, config: {{ toJson $compacted }}}
- {name: {{ printf "%scluster-model" $prefix | quote }}, partitions: 1, config: {{ toJson $compacted }}}
- {name: {{ printf "%scluster-drift" $prefix | quote }}, partitions: 1, config: {cleanup.policy: delete, retention.ms: "2592000000"}}
- {name: {{ printf "%scluster-lifecycle" $prefix | quote }}, partitions: 1, config: {cleanup.policy: delete, retention.ms: "-1"}}
- {name: {{ printf "%srecluster-commands" $prefix | quote }}, partitions: 1, config: {cleanup.policy: delete, retention.ms: "604800000"}}
- {name: {{ printf "%s.dlq" $input | quote }}, partitions: {{ $n }}, config: {cleanup.policy: delete, retention.ms: "2592000000", max.message.bytes: {{ add $maxRecord 65536 | quote }}}}
{{- end }}

{{/* A peer of the network that may scrape. */}}
{{- define "eddy.monitoringPeer" -}}
- namespaceSelector:
    matchLabels:
      kubernetes.io/metadata.name: {{ .Values.networkPolicy.monitoringNamespace }}
{{- end }}

{{/* Bounds of an HPA's or a ScaledObject's pace. */}}
{{- define "eddy.scaleBehavior" -}}
scaleDown:
  stabilizationWindowSeconds: {{ .scaleDownWindowSeconds }}
  policies:
    - {type: Pods, value: 1, periodSeconds: {{ .scaleDownPeriodSeconds }}}
scaleUp:
  stabilizationWindowSeconds: 0
  policies:
    - {type: Percent, value: 100, periodSeconds: 60}
{{- end }}

{{/* (dict "written" FORMAT "read" FORMAT) */}}
{{- define "eddy.checkSnapshots" -}}
{{- if and .written (ne .written .read) -}}
{{- fail (printf "the snapshots on the volumes are of format %s, and this version reads %s: every partition would be restored from the topics; set assigner.persistence.allowSnapshotLoss=true to do that" .written .read) -}}
{{- end -}}
{{- end }}
