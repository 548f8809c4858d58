{{- define "vecstow.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- /* Short enough that `-manager` and a StatefulSet's revision still fit a label. */ -}}
{{- define "vecstow.fullname" -}}
{{- $name := include "vecstow.name" . -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- /* Called with a list: root, component. */ -}}
{{- define "vecstow.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ include "vecstow.name" $root }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{- define "vecstow.labels" -}}
{{- $root := index . 0 -}}
{{ include "vecstow.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: vecstow
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- with $root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "vecstow.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* Of every container: called with the root. */ -}}
{{- define "vecstow.container" -}}
image: {{ include "vecstow.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end -}}

{{- /* Of every pod, placement apart. */ -}}
{{- define "vecstow.pod" -}}
enableServiceLinks: false
automountServiceAccountToken: false
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
securityContext: {{- toYaml .Values.podSecurityContext | nindent 2 }}
{{- end -}}

{{- define "vecstow.placement" -}}
{{- with .priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- range $key := list "nodeSelector" "tolerations" "affinity" "topologySpreadConstraints" }}
{{- with index $ $key }}
{{ $key }}: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "vecstow.account" -}}
{{- $root := index . 0 -}}
{{- $role := index . 1 -}}
{{- if $root.Values.serviceAccount.create -}}
{{ include "vecstow.fullname" $root }}-{{ $role }}
{{- else -}}
{{ index $root.Values.serviceAccount.names $role | default "default" }}
{{- end -}}
{{- end -}}

{{- /* What a container needs to speak to the API server: nothing else of the pod has it. */ -}}
{{- define "vecstow.tokenMount" -}}
- name: token
  mountPath: /var/run/secrets/kubernetes.io/serviceaccount
  readOnly: true
{{- end -}}

{{- define "vecstow.tokenVolume" -}}
- name: token
  projected:
    sources:
      - serviceAccountToken: {expirationSeconds: 3607, path: token}
      - configMap: {name: kube-root-ca.crt, items: [{key: ca.crt, path: ca.crt}]}
      - downwardAPI: {items: [{path: namespace, fieldRef: {apiVersion: v1, fieldPath: metadata.namespace}}]}
{{- end -}}

{{- /* One entry of the keys' Secret as a volume: called with a list: root, entry. */ -}}
{{- define "vecstow.keyVolume" -}}
{{- $root := index . 0 -}}
{{- $entry := index . 1 -}}
- name: {{ $entry }}-key
  secret:
    secretName: {{ include "vecstow.keySecret" $root }}
    items: [{key: {{ index $root.Values.keys.entries $entry }}, path: {{ $entry }}}]
    defaultMode: 0440
{{- end -}}

{{- define "vecstow.keySecret" -}}
{{- required "keys.existingSecret: name the Secret with the API keys (docs/operations.md, \"Keys\"), or set keys.enabled=false and let everybody in who reaches the port" .Values.keys.existingSecret -}}
{{- end -}}

{{- define "vecstow.address" -}}
{{ include "vecstow.fullname" . }}.{{ .Release.Namespace }}.svc:{{ .Values.service.port }}
{{- end -}}

{{- /* The alerts of `alerts.yaml`, about the pods of this release. */ -}}
{{- define "vecstow.alerts" -}}
{{- $fullname := include "vecstow.fullname" . -}}
{{- $pods := printf `namespace=%q, pod=~"%s-([0-9]+|manager-.*)"` .Release.Namespace $fullname -}}
{{- $runbook := .Values.monitoring.prometheusRule.runbookUrl -}}
{{- range .Files.Get "alerts.yaml" | fromYamlArray }}
{{- if or $.Values.keys.enabled (ne .alert "VecstowKeysNotReloaded") }}
- alert: {{ .alert }}
  expr: |-
    {{- .expr | replace "PODS" $pods | nindent 4 }}
  for: {{ .for }}
  labels: {severity: {{ .severity }}}
  annotations:
    summary: {{ .summary | quote }}
    runbook_url: {{ printf "%s#%s" $runbook (lower .alert) | quote }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "vecstow.hook" -}}
helm.sh/hook: {{ index . 0 }}
helm.sh/hook-weight: {{ index . 1 | quote }}
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end -}}

{{- /* ServiceAccount, Role and binding of a hook, there only while it runs. Called with a dict: root, hook, name,
       rules (a file), component. */ -}}
{{- define "vecstow.hookAccess" -}}
{{- range $kind := list "ServiceAccount" "Role" "RoleBinding" }}
---
apiVersion: {{ ternary "v1" "rbac.authorization.k8s.io/v1" (eq $kind "ServiceAccount") }}
kind: {{ $kind }}
metadata:
  name: {{ $.name }}
  namespace: {{ $.root.Release.Namespace }}
  labels: {{- include "vecstow.labels" (list $.root $.component) | nindent 4 }}
  annotations: {{- include "vecstow.hook" (list $.hook "-1") | nindent 4 }}
{{- if eq $kind "ServiceAccount" }}
automountServiceAccountToken: false
{{- else if eq $kind "Role" }}
rules:
  {{- $.root.Files.Get $.rules | nindent 2 }}
{{- else }}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: {{ $.name }}}
subjects:
  - {kind: ServiceAccount, name: {{ $.name }}, namespace: {{ $.root.Release.Namespace }}}
{{- end }}
{{- end }}
{{- end -}}
