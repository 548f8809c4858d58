{{- /* What the cluster has, seen before anything is made. Called with a list: root, the StatefulSet that is there or nothing. */ -}}
{{- define "vecstow.checkCluster" -}}
{{- $root := index . 0 -}}
{{- if not ($root.Capabilities.APIVersions.Has "vecstow.dev/v1alpha1/VectorCollection") -}}
{{- fail "the cluster has no definition of VectorCollection: helm upgrade --install vecstow-crds charts/vecstow-crds --namespace default" -}}
{{- end -}}
{{- include "vecstow.checkClaim" $root -}}
{{- if not (or (index . 1) $root.Values.persistence.existingClaim) -}}
{{- include "vecstow.checkClass" $root -}}
{{- end -}}
{{- end -}}

{{- /* The claim that the pod mounts, or will mount. */ -}}
{{- define "vecstow.checkClaim" -}}
{{- $existing := .Values.persistence.existingClaim -}}
{{- $name := $existing | default (printf "data-%s-0" (include "vecstow.fullname" .)) -}}
{{- $claim := lookup "v1" "PersistentVolumeClaim" .Release.Namespace $name -}}
{{- if and $existing (not $claim) -}}
{{- fail (printf "persistence.existingClaim: there is no PersistentVolumeClaim %s in namespace %s" $name .Release.Namespace) -}}
{{- end -}}
{{- if dig "metadata" "deletionTimestamp" "" $claim -}}
{{- $volume := dig "spec" "volumeName" "" $claim -}}
{{- fail (printf `

PersistentVolumeClaim %s is being deleted, and goes when no pod mounts it. To keep the data, type

  kubectl patch pv %s --patch '{"spec": {"persistentVolumeReclaimPolicy": "Retain"}}'

and bind the volume to another claim: docs/operations.md, "The volume of before".
` $name $volume) -}}
{{- end -}}
{{- end -}}

{{- /* The class of a claim that is to be made. */ -}}
{{- define "vecstow.checkClass" -}}
{{- $class := trimAll "-" .Values.persistence.storageClass -}}
{{- if and $class .Values.persistence.checkClass -}}
{{- if not (lookup "storage.k8s.io/v1" "StorageClass" "" $class) -}}
{{- fail (printf "persistence.storageClass: there is no StorageClass %s; for volumes made by hand set persistence.checkClass=false" $class) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* Whether the claim of a StatefulSet may grow, as far as anybody can tell: "" or why not. Called with a list: root, the claim's name. */ -}}
{{- define "vecstow.notExpandable" -}}
{{- $root := index . 0 -}}
{{- $claim := lookup "v1" "PersistentVolumeClaim" $root.Release.Namespace (index . 1) -}}
{{- $class := dig "spec" "storageClassName" "" $claim -}}
{{- if and $root.Values.persistence.checkClass $claim -}}
{{- $found := ternary (lookup "storage.k8s.io/v1" "StorageClass" "" $class) dict (ne $class "") -}}
{{- if not (dig "allowVolumeExpansion" false $found) -}}
{{ $class | default "none" }}
{{- end -}}
{{- end -}}
{{- end -}}
