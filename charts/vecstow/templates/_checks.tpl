{{- /* What a schema cannot see. */ -}}
{{- define "vecstow.checks" -}}
{{- $fullname := include "vecstow.fullname" . -}}
{{- $there := lookup "apps/v1" "StatefulSet" .Release.Namespace $fullname -}}
{{- if and $there (not .Values.persistence.existingClaim) -}}
{{- range $there.spec.volumeClaimTemplates -}}
{{- $size := .spec.resources.requests.storage -}}
{{- if ne $size $.Values.persistence.size -}}
{{- fail (printf `

persistence.size is %s and the StatefulSet was made with %s, which Kubernetes does not change in place. Type:

  kubectl patch pvc data-%s-0 --namespace %s --patch '{"spec": {"resources": {"requests": {"storage": "%s"}}}}'
  kubectl delete statefulset %s --namespace %s --cascade=orphan

and run this command again. The first needs a storage class that allows expansion; the pod goes on serving.
` $.Values.persistence.size $size $fullname $.Release.Namespace $.Values.persistence.size $fullname $.Release.Namespace) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- range (lookup "apps/v1" "StatefulSet" .Release.Namespace "").items -}}
{{- if and (eq (get (.metadata.labels | default dict) "vecstow.dev/engine") $.Values.engine.name) (ne .metadata.name $fullname) -}}
{{- fail (printf "engine.name: %q is the engine of StatefulSet %s in this namespace already; choose another" $.Values.engine.name .metadata.name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
