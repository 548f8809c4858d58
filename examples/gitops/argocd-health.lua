-- Argo CD's health of a VectorCollection. In the ConfigMap argocd-cm, as
-- resource.customizations.health.vecstow.dev_VectorCollection
local health = { status = "Progressing", message = "nobody has looked at it yet" }
if obj.metadata.deletionTimestamp ~= nil then
  health.message = "it is being deleted"
  return health
end
if obj.status == nil or obj.status.conditions == nil then
  return health
end
local conditions = {}
for _, condition in ipairs(obj.status.conditions) do
  conditions[condition.type] = condition
end
local function is(name)
  return conditions[name] ~= nil and conditions[name].status == "True"
end
if is("Paused") then
  return { status = "Suspended", message = conditions.Paused.message }
end
if obj.status.observedGeneration ~= obj.metadata.generation then
  health.message = "the last change is not followed yet"
  return health
end
if is("Stalled") then
  return { status = "Degraded", message = conditions.Stalled.message }
end
if is("Ready") then
  if is("Degraded") then
    return { status = "Degraded", message = conditions.Degraded.message }
  end
  return { status = "Healthy", message = conditions.Ready.message }
end
if conditions.Ready ~= nil then
  health.message = conditions.Ready.message
end
return health
