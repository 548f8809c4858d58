{{- define "vecstow.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimAll "-" -}}
{{- end -}}

{{- /* Short enough that `-manager` and a StatefulSet's revision still fit a label; a release's name may have dots. */ -}}
{{- define "vecstow.fullname" -}}
{{- $name := include "vecstow.name" . -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimAll "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | replace "." "-" | trunc 40 | trimAll "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | replace "." "-" | trunc 40 | trimAll "-" -}}
{{- end -}}
{{- end -}}

{{- /* Called with a list: root, component. */ -}}
{{- define "vecstow.selector" -}}
{{- $root := index . 0 -}}
{{- toYaml (dict
  "app.kubernetes.io/name" (include "vecstow.name" $root)
  "app.kubernetes.io/instance" $root.Release.Name
  "app.kubernetes.io/component" (index . 1)
) -}}
{{- end -}}

{{- /* Of a pod: nothing that changes with the chart's version, or each new chart would restart the engine. Called
       with a list: root, component, more labels. They replace none of the chart's own labels. */ -}}
{{- define "vecstow.podLabels" -}}
{{- $root := index . 0 -}}
{{- $own := include "vecstow.selector" . | fromYaml -}}
{{- $_ := set $own "app.kubernetes.io/part-of" "vecstow" -}}
{{- if eq (index . 1) "engine" -}}
{{- $_ := set $own "vecstow.dev/engine" $root.Values.engine.name -}}
{{- end -}}
{{- toYaml (merge $own (index . 2) $root.Values.commonLabels) -}}
{{- end -}}

{{- /* Of every object: called with a list: root, component, more labels. */ -}}
{{- define "vecstow.labels" -}}
{{- $root := index . 0 -}}
{{- $own := dict
  "app.kubernetes.io/version" $root.Chart.AppVersion
  "app.kubernetes.io/managed-by" $root.Release.Service
  "helm.sh/chart" (printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" | trunc 63 | trimAll "-")
-}}
{{- toYaml (merge $own (include "vecstow.podLabels" . | fromYaml)) -}}
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
priorityClassName: {{ . | quote }}
{{- end }}
{{- range $key := list "nodeSelector" "tolerations" "affinity" "topologySpreadConstraints" }}
{{- with index $ $key }}
{{ $key }}: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- end -}}

{{- /* The ServiceAccount of a role: called with a list: root, role. */ -}}
{{- define "vecstow.account" -}}
{{- $root := index . 0 -}}
{{- $role := index . 1 -}}
{{- $made := ternary (printf "%s-%s" (include "vecstow.fullname" $root) $role) "" $root.Values.serviceAccount.create -}}
{{ index $root.Values.serviceAccount.names $role | default $made }}
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

{{- define "vecstow.keysSecret" -}}
{{ .Values.keys.existingSecret | default (printf "%s-keys" (include "vecstow.fullname" .)) }}
{{- end -}}

{{- /* Something when this release makes the Secret with the keys now. */ -}}
{{- define "vecstow.makesKeys" -}}
{{- if and .Values.keys.enabled .Values.keys.create -}}
{{- if not (lookup "v1" "Secret" .Release.Namespace (include "vecstow.keysSecret" .)) -}}
now
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* One entry of the keys' Secret as a volume: called with a list: root, entry. Without a key for the test, its
       pod starts and says so. */ -}}
{{- define "vecstow.keyVolume" -}}
{{- $root := index . 0 -}}
{{- $entry := index . 1 -}}
- name: {{ $entry }}-key
  secret:
    secretName: {{ include "vecstow.keysSecret" $root | quote }}
    items: [{key: {{ index $root.Values.keys.entries $entry | quote }}, path: {{ $entry }}}]
    defaultMode: 0440
    {{- if eq $entry "test" }}
    optional: true
    {{- end }}
{{- end -}}

{{- /* The environment of sidecar or manager, which can say where its key comes from: called with a list: root, role. */ -}}
{{- define "vecstow.operatorEnv" -}}
{{- $values := (index . 0).Values -}}
{{- $env := index $values (index . 1) "extraEnv" | default list -}}
{{- if $values.keys.enabled -}}
{{- $source := printf "entry %q of Secret %s" (index $values.keys.entries (index . 1)) (include "vecstow.keysSecret" (index . 0)) -}}
{{- $env = prepend $env (dict "name" "VECSTOW_KEY_SOURCE" "value" $source) -}}
{{- end -}}
{{- if eq (index . 1) "manager" -}}
{{- /* The Lease goes with the pod that holds it. */ -}}
{{- range $name, $path := dict "VECSTOW_POD_NAME" "metadata.name" "VECSTOW_POD_UID" "metadata.uid" -}}
{{- $source := dict "fieldRef" (dict "apiVersion" "v1" "fieldPath" $path) -}}
{{- $env = prepend $env (dict "name" $name "valueFrom" $source) -}}
{{- end -}}
{{- end -}}
{{- with $env -}}
env: {{- toYaml . | nindent 2 }}
{{- end -}}
{{- end -}}

{{- /* Where clients reach the engine. */ -}}
{{- define "vecstow.address" -}}
{{ include "vecstow.fullname" . }}.{{ .Release.Namespace }}.svc:{{ .Values.service.port }}
{{- end -}}

{{- /* The alerts of `alerts.yaml`, about the pods of this release. */ -}}
{{- define "vecstow.alerts" -}}
{{- $pods := printf `namespace=%q, pod=~"%s-([0-9]+|manager-.*)"` .Release.Namespace (include "vecstow.fullname" .) -}}
{{- $runbook := .Values.monitoring.prometheusRule.runbookUrl -}}
{{- range .Files.Get "alerts.yaml" | fromYamlArray }}
{{- $isPart := or (not .needs) (index $.Values (default "keys" .needs)).enabled }}
{{- if and $isPart (not (has .alert $.Values.monitoring.prometheusRule.disabled)) }}
- alert: {{ .alert }}
  expr: |-
    {{- .expr | replace "PODS" $pods | nindent 4 }}
  for: {{ .for }}
  labels: {severity: {{ .severity }}, namespace: {{ $.Release.Namespace | quote }}, engine: {{ $.Values.engine.name | quote }}}
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

{{- /* ServiceAccount, Role and binding of a hook, there only while it runs. Called with a dict: root, hook, role. */ -}}
{{- define "vecstow.hookAccess" -}}
{{- $name := printf "%s-%s" (include "vecstow.fullname" .root) .role -}}
{{- range $kind := list "ServiceAccount" "Role" "RoleBinding" }}
{{- if eq $kind "ServiceAccount" | ternary $.root.Values.serviceAccount.create $.root.Values.rbac.create }}
---
apiVersion: {{ ternary "v1" "rbac.authorization.k8s.io/v1" (eq $kind "ServiceAccount") }}
kind: {{ $kind }}
metadata:
  name: {{ $name | quote }}
  namespace: {{ $.root.Release.Namespace | quote }}
  labels: {{- include "vecstow.labels" (list $.root $.role dict) | nindent 4 }}
  annotations: {{- include "vecstow.hook" (list $.hook "-1") | nindent 4 }}
{{- if eq $kind "ServiceAccount" }}
automountServiceAccountToken: false
{{- else if eq $kind "Role" }}
rules:
  {{- $.root.Files.Get (printf "rbac/%s.yaml" $.role) | nindent 2 }}
{{- else }}
{{- $account := include "vecstow.account" (list $.root $.role) }}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: {{ $name | quote }}}
subjects:
  - {kind: ServiceAccount, name: {{ $account | quote }}, namespace: {{ $.root.Release.Namespace | quote }}}
{{- end }}
{{- end }}
{{- end }}
{{- end -}}
