{{- /* What a schema cannot see. `lookup` finds nothing where no API server is asked: then only the values count. */ -}}
{{- define "vecstow.checks" -}}
{{- $fullname := include "vecstow.fullname" . -}}
{{- if not (regexMatch "^[a-z]" $fullname) -}}
{{- fail (printf "%q is no name for a Service, which begins with a letter: set fullnameOverride" $fullname) -}}
{{- end -}}
{{- include "vecstow.checkAccounts" . -}}
{{- include "vecstow.checkEnd" . -}}
{{- include "vecstow.checkOpen" . -}}
{{- include "vecstow.checkValues" . -}}
{{- include "vecstow.checkMemory" . -}}
{{- $stored := lookup "apps/v1" "StatefulSet" .Release.Namespace "" -}}
{{- $own := dict -}}
{{- range $stored.items -}}
{{- if eq .metadata.name $fullname -}}
{{- $own = . -}}
{{- include "vecstow.checkEngine" (list $ .) -}}
{{- include "vecstow.checkVolume" (list $ .) -}}
{{- else if eq (dig "labels" "vecstow.dev/engine" "" .metadata) $.Values.engine.name -}}
{{- fail (printf "engine.name: %q is the engine of StatefulSet %s in this namespace already; choose another, or set back what names this release's objects" $.Values.engine.name .metadata.name) -}}
{{- end -}}
{{- end -}}
{{- if $stored -}}
{{- include "vecstow.checkCluster" (list . $own) -}}
{{- end -}}
{{- if .Values.manager.enabled -}}
{{- include "vecstow.checkManager" . -}}
{{- end -}}
{{- if .Values.keys.enabled -}}
{{- include "vecstow.checkKeys" (list . (empty $stored | not)) -}}
{{- end -}}
{{- end -}}

{{- define "vecstow.checkAccounts" -}}
{{- $names := .Values.serviceAccount.names -}}
{{- if not .Values.serviceAccount.create -}}
{{- if not $names.engine -}}
{{- fail "serviceAccount.names.engine: name the ServiceAccount of the engine's pod, or set serviceAccount.create=true" -}}
{{- end -}}
{{- if and .Values.manager.enabled (not $names.manager) -}}
{{- fail "serviceAccount.names.manager: name the manager's ServiceAccount, or set serviceAccount.create=true" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* What is left of the grace is for the checkpoint. */ -}}
{{- define "vecstow.checkEnd" -}}
{{- $engine := .Values.engine -}}
{{- $drain := index $engine.settings "drain-seconds" | default 0 -}}
{{- $requests := ternary (index $engine.settings "shutdown-grace-seconds") 20 (hasKey $engine.settings "shutdown-grace-seconds") -}}
{{- $least := addf $engine.preStopSeconds $drain $requests 10 -}}
{{- if lt (float64 $engine.terminationGracePeriodSeconds) $least -}}
{{- fail (printf "engine.terminationGracePeriodSeconds: %v is less than %v: preStopSeconds, drain-seconds, shutdown-grace-seconds (%v), and 10 for the checkpoint" $engine.terminationGracePeriodSeconds $least $requests) -}}
{{- end -}}
{{- end -}}

{{- /* docs/sizing.md: the engine does not start below 256 MiB. */ -}}
{{- define "vecstow.checkMemory" -}}
{{- $engine := .Values.engine -}}
{{- $limit := dig "limits" "memory" "" $engine.resources -}}
{{- $setting := index $engine.settings "memory-limit" | default "" | toString -}}
{{- if and $limit (lt (include "vecstow.quantity" $limit | float64) 268435456.0) -}}
{{- fail (printf "engine.resources.limits.memory: %v is less than the engine's minimum of 256Mi (docs/sizing.md)" $limit) -}}
{{- end -}}
{{- if $setting -}}
{{- $bytes := include "vecstow.quantity" ($setting | replace "B" "" | replace "b" "" | replace " " "") | float64 -}}
{{- if lt $bytes 268435456.0 -}}
{{- fail (printf "engine.settings.memory-limit: %s is less than the engine's minimum of 256Mi (docs/sizing.md)" $setting) -}}
{{- end -}}
{{- if and $limit (gt $bytes (include "vecstow.quantity" $limit | float64)) -}}
{{- fail (printf "engine.settings.memory-limit: %s is more than engine.resources.limits.memory, %v: the kernel would end the engine first" $setting $limit) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "vecstow.checkOpen" -}}
{{- $isOutside := or .Values.ingress.enabled (ne .Values.service.type "ClusterIP") -}}
{{- if and $isOutside (not .Values.keys.enabled) -}}
{{- fail "keys.enabled=false lets everybody in who reaches the port, and service.type or ingress.enabled brings them from beyond the cluster: ask for keys" -}}
{{- end -}}
{{- end -}}

{{- /* Resources name their engine for good. Called with a list: root, the StatefulSet that is there. */ -}}
{{- define "vecstow.checkEngine" -}}
{{- $labels := (index . 1).metadata.labels -}}
{{- $name := (index . 0).Values.engine.name -}}
{{- $is := dig "vecstow.dev/engine" $name $labels -}}
{{- if ne $is $name -}}
{{- fail (printf "engine.name: this release is engine %q, which resources name for good: set engine.name=%s" $is $is) -}}
{{- end -}}
{{- end -}}

{{- /* A second one only waits; but an uninstall of its release would take the finalizers of all. */ -}}
{{- define "vecstow.checkManager" -}}
{{- $release := .Release.Name -}}
{{- range (lookup "apps/v1" "Deployment" .Release.Namespace "").items -}}
{{- $labels := .metadata.labels | default dict -}}
{{- $isManager := and (eq (dig "app.kubernetes.io/part-of" "" $labels) "vecstow") (eq (dig "app.kubernetes.io/component" "" $labels) "manager") -}}
{{- if and $isManager (ne (dig "app.kubernetes.io/instance" "" $labels) $release) -}}
{{- fail (printf "manager.enabled: Deployment %s is this namespace's manager already, and serves all of its engines; set manager.enabled=false" .metadata.name) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* What Kubernetes keeps of a StatefulSet for good. Called with a list: root, the StatefulSet that is there. */ -}}
{{- define "vecstow.checkVolume" -}}
{{- $root := index . 0 -}}
{{- $templates := (index . 1).spec.volumeClaimTemplates | default list -}}
{{- $fullname := include "vecstow.fullname" $root -}}
{{- $delete := printf "kubectl delete statefulset %s --namespace %s --cascade=orphan" $fullname $root.Release.Namespace -}}
{{- $wanted := $root.Values.persistence -}}
{{- if ne (empty $templates) (empty $wanted.existingClaim | not) -}}
{{- fail (printf `

persistence.existingClaim cannot be set or removed on a StatefulSet that is there. The pod would start on another volume: if
that is meant, type

  %s

and run this command again.
` $delete) -}}
{{- end -}}
{{- range $templates -}}
{{- $class := ternary .spec.storageClassName "?" (hasKey .spec "storageClassName") -}}
{{- $isClass := eq $class (empty $wanted.storageClass | ternary "?" (trimAll "-" $wanted.storageClass)) -}}
{{- $isMode := eq (toJson .spec.accessModes) (toJson $wanted.accessModes) -}}
{{- $annotations := dig "metadata" "annotations" dict . | toJson -}}
{{- if not (and $isClass $isMode (eq $annotations (toJson $wanted.annotations))) -}}
{{- fail (printf `

persistence.storageClass, accessModes and annotations are of a claim that is to be made, and Kubernetes changes none of them
on a StatefulSet that is there, which was made with %s, %s and %s. Set them back; or, to have them for the next claim, type

  %s

and run this command again: the volume that is there stays as it is.
` (ternary "the default class" (toJson $class) (eq $class "?")) (toJson .spec.accessModes) $annotations $delete) -}}
{{- end -}}
{{- include "vecstow.checkSize" (list $root .spec.resources.requests.storage $delete) -}}
{{- end -}}
{{- end -}}

{{- /* Called with a list: root, the size that the StatefulSet was made with, the command that deletes it alone. */ -}}
{{- define "vecstow.checkSize" -}}
{{- $root := index . 0 -}}
{{- $size := index . 1 -}}
{{- $wanted := $root.Values.persistence.size -}}
{{- $claim := printf "data-%s-0" (include "vecstow.fullname" $root) -}}
{{- $is := include "vecstow.quantity" $size | float64 -}}
{{- $grows := include "vecstow.quantity" $wanted | float64 -}}
{{- if lt $grows $is -}}
{{- fail (printf "persistence.size is %s and the StatefulSet was made with %s: a volume never shrinks; set it back" $wanted $size) -}}
{{- end -}}
{{- if gt $grows $is -}}
{{- with include "vecstow.notExpandable" (list $root $claim) -}}
{{- fail (printf "persistence.size is %s and the StatefulSet was made with %s: the storage class of claim %s (%s) does not allow expansion; set it back, or take a new volume: docs/operations.md, \"A larger volume\"" $wanted $size $claim .) -}}
{{- end -}}
{{- fail (printf `

persistence.size is %s and the StatefulSet was made with %s, which Kubernetes does not change in place. Type

  kubectl patch pvc %s --namespace %s --patch '{"spec": {"resources": {"requests": {"storage": "%s"}}}}' && %s

and run this command again. The second part is typed only when the first was taken: it needs a storage class that allows
expansion. The pod goes on serving.
` $wanted $size $claim $root.Release.Namespace $wanted (index . 2)) -}}
{{- end -}}
{{- end -}}

{{- /* Called with a list: root, whether an API server was asked. */ -}}
{{- define "vecstow.checkKeys" -}}
{{- $root := index . 0 -}}
{{- $keys := $root.Values.keys -}}
{{- if not (or $keys.existingSecret $keys.create) -}}
{{- fail "keys.existingSecret: name the Secret with the API keys (docs/operations.md, \"Keys\", makes one), or set keys.create=true, or set keys.enabled=false and let everybody in who reaches the port" -}}
{{- end -}}
{{- $name := include "vecstow.keysSecret" $root -}}
{{- if and (index . 1) (not (include "vecstow.makesKeys" $root)) -}}
{{- $secret := lookup "v1" "Secret" $root.Release.Namespace $name -}}
{{- if not $secret -}}
{{- fail (printf "keys.existingSecret: there is no Secret %s in namespace %s (docs/operations.md, \"Keys\", makes one)" $name $root.Release.Namespace) -}}
{{- end -}}
{{- $readers := list -}}
{{- if not $root.Values.engine.maintenance -}}
{{- $readers = list "engine" "sidecar" -}}
{{- end -}}
{{- if $root.Values.manager.enabled -}}
{{- $readers = append $readers "manager" -}}
{{- end -}}
{{- with $root.Values.monitoring.podMonitor -}}
{{- if and .enabled (not .keySecret) -}}
{{- $readers = append $readers "manager" | uniq -}}
{{- end -}}
{{- end -}}
{{- range $readers -}}
{{- $entry := index $keys.entries . -}}
{{- if not (hasKey ($secret.data | default dict) $entry) -}}
{{- fail (printf "keys.entries.%s: Secret %s has no entry %q, so the %s would not start (docs/operations.md, \"Keys\")" . $name $entry .) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
