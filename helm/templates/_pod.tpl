{{/*
A pod, for every workload, Job and test:
  (dict "root" $ "component" "assigner" "values" .Values.assigner "args" (list "assigner")
        "ports" (dict "ops" 9108) "storage" "claim|scratch|none" "configMap" NAME "hook" true|false
        "instance" true|false "auth" true|false "preStop" SECONDS "restart" POLICY
        "command" COMMAND "containerName" NAME "kafkaSecret" NAME)
*/}}
{{- define "eddy.podTemplate" -}}
{{- $root := .root -}}
{{- $values := .values -}}
metadata:
  labels: {{- mergeOverwrite (dict) $root.Values.commonLabels $root.Values.podLabels ($values.podLabels | default dict) (include "eddy.labels" . | fromYaml) | toYaml | nindent 4 }}
  annotations:
    {{- $annotations := mergeOverwrite (dict) $root.Values.commonAnnotations $root.Values.podAnnotations ($values.podAnnotations | default dict) }}
    {{- with $annotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
    checksum/config: {{ include "eddy.config" $root | sha256sum }}
    checksum/secret: {{ printf "%s %s %s" $root.Values.secretRevision (toJson $root.Values.kafka.sasl) (toJson $root.Values.server.auth) | sha256sum }}
spec: {{- include "eddy.podSpec" . | nindent 2 }}
{{- end }}

{{- define "eddy.podSpec" -}}
{{- $root := .root -}}
{{- $values := .values -}}
{{- $global := $root.Values.global -}}
{{- $gpu := $values.gpu | default dict -}}
{{- $tolerations := concat ($values.tolerations | default list) ($global.tolerations | default list) -}}
{{- $nodeSelector := mergeOverwrite (dict) $global.nodeSelector ($values.nodeSelector | default dict) -}}
{{- if $gpu.enabled -}}
{{- if $gpu.toleration }}{{ $tolerations = append $tolerations (dict "key" $gpu.resourceName "operator" "Exists" "effect" "NoSchedule") }}{{ end -}}
{{- with $gpu.product }}{{ $_ := set $nodeSelector "nvidia.com/gpu.product" . }}{{ end -}}
{{- end -}}
serviceAccountName: {{ ternary (ternary "default" (include "eddy.serviceAccountName" $root) $root.Values.serviceAccount.create) (include "eddy.serviceAccountName" $root) (.hook | default false) }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .restart }}
restartPolicy: {{ . }}
{{- end }}
{{- with $global.imagePullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ ternary . (get (ternary (dict) . (kindIs "string" .)) "name") (kindIs "string" .) }}
  {{- end }}
{{- end }}
terminationGracePeriodSeconds: {{ $values.terminationGracePeriodSeconds | default 30 }}
securityContext: {{- mergeOverwrite (include "eddy.podSecurity" . | fromYaml) (deepCopy ($values.podSecurityContext | default dict)) | toYaml | nindent 2 }}
{{- with $gpu.runtimeClassName | default $values.runtimeClassName | default $global.runtimeClassName }}
runtimeClassName: {{ . }}
{{- end }}
{{- with $values.priorityClassName | default $global.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.affinity | default $global.affinity }}
affinity: {{- tpl (toYaml .) $root | nindent 2 }}
{{- end }}
{{- with $tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.topologySpreadConstraints }}
topologySpreadConstraints:
  {{- range . }}
  {{- $given := dict "labelSelector" (dict "matchLabels" (include "eddy.selectorLabels" $ | fromYaml)) }}
  {{- $_ := set $given "matchLabelKeys" (list (ternary "controller-revision-hash" "pod-template-hash" (eq $.component "assigner"))) }}
  - {{ mergeOverwrite $given (deepCopy .) | toYaml | nindent 4 | trim }}
  {{- end }}
{{- end }}
{{- if $gpu.enabled }}
{{- with $gpu.resourceClaims }}
resourceClaims: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- with $values.initContainers }}
initContainers: {{- tpl (toYaml .) $root | nindent 2 }}
{{- end }}
containers:
  - {{ include "eddy.container" . | nindent 4 | trim }}
  {{- with $values.sidecars }}
  {{- tpl (toYaml .) $root | nindent 2 }}
  {{- end }}
volumes: {{- include "eddy.volumes" . | nindent 2 }}
{{- end }}

{{- define "eddy.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "eddy.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities: {drop: [ALL]}
{{- end }}

{{- define "eddy.container" -}}
{{- $root := .root -}}
{{- $values := .values -}}
{{- $gpu := $values.gpu | default dict -}}
{{- $sleeps := and $root.Values.diagnosticMode.enabled .instance -}}
name: {{ .containerName | default .component }}
image: {{ include "eddy.image" (dict "root" $root "gpu" ($gpu.enabled | default false)) }}
imagePullPolicy: {{ $root.Values.image.pullPolicy }}
{{- if $sleeps }}
command: {{- toYaml $root.Values.diagnosticMode.command | nindent 2 }}
{{- else if .command }}
command: {{- toYaml .command | nindent 2 }}
{{- else }}
args: {{- concat .args ($values.extraArgs | default list) | toYaml | nindent 2 }}
{{- end }}
securityContext: {{- mergeOverwrite (include "eddy.containerSecurity" . | fromYaml) (deepCopy ($values.securityContext | default dict)) | toYaml | nindent 2 }}
env: {{- include "eddy.env" . | nindent 2 }}
{{- with $values.extraEnvFrom }}
envFrom: {{- tpl (toYaml .) $root | nindent 2 }}
{{- end }}
{{- with .ports }}
ports:
  {{- range $name, $port := . }}
  - {name: {{ $name }}, containerPort: {{ $port }}, protocol: TCP}
  {{- end }}
{{- end }}
{{- if and .ports (not $sleeps) }}
{{- range $kind, $path := dict "startup" "/startupz" "liveness" "/livez" "readiness" "/readyz" }}
{{- $probe := index $values.probes $kind }}
{{- if $probe.enabled }}
{{ $kind }}Probe:
  httpGet: {path: {{ $path }}, port: ops}
  {{- omit $probe "enabled" | toYaml | nindent 2 }}
{{- end }}
{{- end }}
{{- end }}
{{- if and .preStop (not $sleeps) }}
lifecycle:
  preStop:
    sleep: {seconds: {{ .preStop }}}
{{- end }}
{{- $resources := deepCopy ($values.resources | default dict) }}
{{- if $gpu.enabled }}
{{- if $gpu.resourceClaims }}
{{- $claims := list }}
{{- range $gpu.resourceClaims }}{{ $claims = append $claims (dict "name" .name) }}{{ end }}
{{- $_ := set $resources "claims" $claims }}
{{- else }}
{{- $_ := set $resources "limits" (mergeOverwrite (deepCopy ($resources.limits | default dict)) (dict $gpu.resourceName (int $gpu.count))) }}
{{- end }}
{{- end }}
{{- with $resources }}
resources: {{- toYaml . | nindent 2 }}
{{- end }}
volumeMounts: {{- include "eddy.mounts" . | nindent 2 }}
{{- end }}

{{- define "eddy.env" -}}
{{- $root := .root -}}
{{- $gpu := .values.gpu | default dict -}}
{{- $sasl := $root.Values.kafka.sasl -}}
- {name: EDDY_CONFIG, value: /etc/eddy/eddy.yaml}
{{- if .instance }}
- name: EDDY_INSTANCE
  valueFrom:
    fieldRef: {fieldPath: metadata.name}
{{- end }}
{{- if $gpu.enabled }}
- {name: EDDY_DEVICE__KIND, value: cuda}
{{- end }}
# what can be made again, compiled loops above all, outlives the container: the root is read-only
- {name: HOME, value: /tmp}
- {name: XDG_CACHE_HOME, value: /var/lib/eddy/cache}
- {name: NUMBA_CACHE_DIR, value: /var/lib/eddy/cache/numba}
{{- if .kafkaSecret }}
{{- $oauth := eq $sasl.mechanism "OAUTHBEARER" }}
- name: {{ ternary "EDDY_KAFKA__SASL__OAUTHBEARER__CLIENT__ID_FILE" "EDDY_KAFKA__SASL__USERNAME_FILE" $oauth }}
  value: /etc/eddy/secrets/kafka-sasl/{{ $sasl.usernameKey }}
- name: {{ ternary "EDDY_KAFKA__SASL__OAUTHBEARER__CLIENT__SECRET_FILE" "EDDY_KAFKA__SASL__PASSWORD_FILE" $oauth }}
  value: /etc/eddy/secrets/kafka-sasl/{{ $sasl.passwordKey }}
{{- end }}
{{- if and $root.Values.kafka.tls.enabled $root.Values.kafka.tls.existingSecret $root.Values.kafka.tls.keyPasswordKey }}
- {name: EDDY_KAFKA__SSL__KEY__PASSWORD_FILE, value: /etc/eddy/secrets/kafka-tls/{{ $root.Values.kafka.tls.keyPasswordKey }}}
{{- end }}
{{- with concat ($root.Values.global.extraEnv | default list) (.values.extraEnv | default list) }}
{{ tpl (toYaml .) $root }}
{{- end }}
{{- end }}

{{- define "eddy.mounts" -}}
- {name: config, mountPath: /etc/eddy/eddy.yaml, subPath: eddy.yaml, readOnly: true}
- {name: tmp, mountPath: /tmp}
- {name: data, mountPath: /var/lib/eddy}
{{- if .kafkaSecret }}
- {name: kafka-sasl, mountPath: /etc/eddy/secrets/kafka-sasl, readOnly: true}
{{- end }}
{{- if and .root.Values.kafka.tls.enabled .root.Values.kafka.tls.existingSecret }}
- {name: kafka-tls, mountPath: /etc/eddy/secrets/kafka-tls, readOnly: true}
{{- end }}
{{- if .auth }}
- {name: auth, mountPath: /etc/eddy/secrets/auth, readOnly: true}
{{- end }}
{{- with concat (.root.Values.global.extraVolumeMounts | default list) (.values.extraVolumeMounts | default list) }}
{{ tpl (toYaml .) $.root }}
{{- end }}
{{- end }}

{{- define "eddy.volumes" -}}
{{- $root := .root -}}
{{- $tls := $root.Values.kafka.tls -}}
- name: config
  configMap: {name: {{ .configMap }}}
- name: tmp
  emptyDir: {sizeLimit: {{ $root.Values.tmp.sizeLimit }}}
{{- if ne .storage "claim" }}
- name: data
  emptyDir: {sizeLimit: {{ dig "scratch" "sizeLimit" $root.Values.tmp.sizeLimit .values }}}
{{- end }}
{{- if .kafkaSecret }}
- name: kafka-sasl
  secret:
    secretName: {{ .kafkaSecret }}
    defaultMode: 0440
    items:
      - {key: {{ $root.Values.kafka.sasl.usernameKey }}, path: {{ $root.Values.kafka.sasl.usernameKey }}}
      - {key: {{ $root.Values.kafka.sasl.passwordKey }}, path: {{ $root.Values.kafka.sasl.passwordKey }}}
{{- end }}
{{- if and $tls.enabled $tls.existingSecret }}
- name: kafka-tls
  secret:
    secretName: {{ tpl $tls.existingSecret $root }}
    defaultMode: 0440
    items:
      {{- range list $tls.caKey $tls.certKey $tls.keyKey $tls.keyPasswordKey | compact }}
      - {key: {{ . }}, path: {{ . }}}
      {{- end }}
{{- end }}
{{- if .auth }}
- name: auth
  secret:
    secretName: {{ include "eddy.authSecretName" $root }}
    defaultMode: 0440
    items:
      - {key: {{ $root.Values.server.auth.tokensKey }}, path: {{ $root.Values.server.auth.tokensKey }}}
{{- end }}
{{- with concat ($root.Values.global.extraVolumes | default list) (.values.extraVolumes | default list) }}
{{ tpl (toYaml .) $root }}
{{- end }}
{{- end }}
