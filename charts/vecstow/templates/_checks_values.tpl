{{- /* What Kubernetes would refuse or ignore only after other objects are made. Called with the root. */ -}}
{{- define "vecstow.checkValues" -}}
{{- range $role := list "engine" "sidecar" "manager" -}}
{{- include "vecstow.checkResources" (list $role (index $.Values $role).resources) -}}
{{- include "vecstow.checkEnv" (list $role (index $.Values $role).extraEnv) -}}
{{- end -}}
{{- include "vecstow.checkNodePort" .Values.service -}}
{{- end -}}

{{- /* Called with a list: role, its resources. */ -}}
{{- define "vecstow.checkResources" -}}
{{- $role := index . 0 -}}
{{- $limits := (index . 1).limits | default dict -}}
{{- range $resource, $request := (index . 1).requests -}}
{{- with index $limits $resource -}}
{{- if gt (include "vecstow.quantity" $request | float64) (include "vecstow.quantity" . | float64) -}}
{{- fail (printf "%s.resources.requests.%s: %v is more than the limit %v" $role $resource $request .) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* Variables that the chart sets itself, by role. */ -}}
{{- define "vecstow.ownEnv" -}}
engine: [VECSTOW_DATA, VECSTOW_URL, VECSTOW_HOST, VECSTOW_NAME, VECSTOW_LOG_FORMAT, VECSTOW_LOG_LEVEL, VECSTOW_POD_UID]
sidecar: [VECSTOW_KEY_SOURCE]
manager: [VECSTOW_KEY_SOURCE]
{{- end -}}

{{- /* Called with a list: role, its extraEnv. */ -}}
{{- define "vecstow.checkEnv" -}}
{{- $role := index . 0 -}}
{{- $own := index (include "vecstow.ownEnv" . | fromYaml) $role -}}
{{- $seen := list -}}
{{- range index . 1 -}}
{{- if has .name $own -}}
{{- fail (printf "%s.extraEnv: the chart sets %s itself; use the value for it" $role .name) -}}
{{- end -}}
{{- if has .name $seen -}}
{{- fail (printf "%s.extraEnv: %s is there twice" $role .name) -}}
{{- end -}}
{{- $seen = append $seen .name -}}
{{- end -}}
{{- end -}}

{{- /* Called with the values of the Service. */ -}}
{{- define "vecstow.checkNodePort" -}}
{{- if .nodePort -}}
{{- if eq .type "ClusterIP" -}}
{{- fail (printf "service.nodePort: %v has no effect with service.type ClusterIP" .nodePort) -}}
{{- end -}}
{{- $range := splitList "-" .nodePortRange -}}
{{- if or (lt (int64 .nodePort) (index $range 0 | int64)) (gt (int64 .nodePort) (index $range 1 | int64)) -}}
{{- fail (printf "service.nodePort: %v is not within %s; a cluster with another range sets service.nodePortRange" .nodePort .nodePortRange) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* A quantity as a plain number, in bytes or cores: 1024Mi is kept as 1Gi, and 0.5Ti as 512Gi. */ -}}
{{- define "vecstow.quantity" -}}
{{- if kindIs "string" . -}}
{{- $number := regexFind "^[0-9.]+" . -}}
{{- $units := dict "" 1.0 "m" 0.001 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "P" 1e15 "E" 1e18 "Ki" 1024.0 "Mi" 1048576.0
  "Gi" 1073741824.0 "Ti" 1099511627776.0 "Pi" 1125899906842624.0 "Ei" 1152921504606846976.0 -}}
{{- printf "%.3f" (mulf (float64 $number) (get $units (trimPrefix $number .))) -}}
{{- else -}}
{{- printf "%.3f" (float64 .) -}}
{{- end -}}
{{- end -}}
