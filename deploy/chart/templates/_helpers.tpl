{{- define "dispatcher.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "dispatcher.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- $name := include "dispatcher.name" . }}
{{- if contains $name .Release.Name }}
{{- .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}
{{- end }}

{{- define "dispatcher.selectorLabels" -}}
app.kubernetes.io/name: {{ include "dispatcher.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{- define "dispatcher.labels" -}}
{{ include "dispatcher.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | quote }}
{{- end }}

{{- define "dispatcher.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "dispatcher.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "dispatcher.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end }}
{{- end }}

{{/* Rejects values that exclude each other, which would otherwise be ignored silently. */}}
{{- define "dispatcher.check" -}}
{{- if and .Values.filter.existingConfigMap (or .Values.filter.text .Values.filter.modules) }}
{{- fail "filter.existingConfigMap excludes filter.text and filter.modules" }}
{{- end }}
{{- if and .Values.filter.modules (not .Values.filter.text) }}
{{- fail "filter.modules needs filter.text" }}
{{- end }}
{{- if and (has "list" .Values.enable) (not (include "dispatcher.watch" .)) }}
{{- fail "enable: list needs watch: true" }}
{{- end }}
{{- if and ((.Values.auth).audiences) (not ((.Values.auth).tokenReview)) }}
{{- fail "auth.audiences is for auth.tokenReview" }}
{{- end }}
{{- if and .Values.public (not (include "dispatcher.auth" .)) }}
{{- fail "public is for auth, without which everything is public" }}
{{- end }}
{{- $monitor := default dict (.Values.metrics).serviceMonitor }}
{{- if and $monitor.enabled (not $monitor.authorization) (not (include "dispatcher.openMetrics" .)) }}
{{- fail "metrics.serviceMonitor needs authorization, because callers authenticate; or set public: [metrics]" }}
{{- end }}
{{- if ((.Values.jobs).policy).enabled }}
{{- if or (index .Values.options "token-file") (index .Values.options "server") }}
{{- fail "jobs.policy is for Jobs of the chart's service account, which options.token-file and options.server replace" }}
{{- end }}
{{- end }}
{{- if hasKey .Values.filter.modules "filter.jq" }}
{{- fail "filter.modules must not have filter.jq, which is the name of filter.text" }}
{{- end }}
{{- end }}

{{/* A value that is missing or null counts as its default, because `helm upgrade --reuse-values` brings the values of an older chart. */}}

{{/* Empty if the dispatcher does not watch. */}}
{{- define "dispatcher.watch" -}}
{{- if ne (toString .Values.watch) "false" }}true{{ end }}
{{- end }}

{{/* The values of --auth; empty without. */}}
{{- define "dispatcher.auth" -}}
{{- $means := list }}
{{- if (.Values.auth).tokensSecret }}
{{- $means = append $means "tokens=/etc/k8s-job-dispatcher-tokens" }}
{{- end }}
{{- if (.Values.auth).tokenReview }}
{{- $means = append $means "token-review" }}
{{- end }}
{{- join "," $means }}
{{- end }}

{{/* Empty if metrics need a credential. */}}
{{- define "dispatcher.openMetrics" -}}
{{- if or (not (include "dispatcher.auth" .)) (has "metrics" (default list .Values.public)) }}true{{ end }}
{{- end }}

{{/* The namespace of the Jobs, if it is another than the release's. */}}
{{- define "dispatcher.jobsNamespace" -}}
{{- default "" (.Values.jobs).namespace }}
{{- end }}

{{/* The name of the filter's ConfigMap; empty if the default filter is used. */}}
{{- define "dispatcher.filterConfigMap" -}}
{{- if .Values.filter.existingConfigMap }}
{{- .Values.filter.existingConfigMap }}
{{- else if .Values.filter.text }}
{{- printf "%s-filter" (include "dispatcher.fullname" . | trunc 56 | trimSuffix "-") }}
{{- end }}
{{- end }}

{{/* Changes with the filter, so that the pods are rolled. An existing ConfigMap is only known to Helm with a cluster. */}}
{{- define "dispatcher.filterChecksum" -}}
{{- if .Values.filter.existingConfigMap }}
{{- $map := lookup "v1" "ConfigMap" .Release.Namespace .Values.filter.existingConfigMap | default dict }}
{{- $map.data | default dict | toJson | sha256sum }}
{{- else }}
{{- .Values.filter | toJson | sha256sum }}
{{- end }}
{{- end }}

{{/* Required by pod security "restricted". */}}
{{- define "dispatcher.securityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{- define "dispatcher.podSecurityContext" -}}
runAsNonRoot: true
seccompProfile:
  type: RuntimeDefault
{{- end }}
