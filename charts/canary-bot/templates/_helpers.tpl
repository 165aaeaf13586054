{{- define "canary-bot.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "canary-bot.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 55 | trimSuffix "-" }}
{{- else }}
{{- $name := default .Chart.Name .Values.nameOverride }}
{{- if contains $name .Release.Name }}
{{- .Release.Name | trunc 55 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 55 | trimSuffix "-" }}
{{- end }}
{{- end }}
{{- end }}

{{- define "canary-bot.selectorLabels" -}}
app.kubernetes.io/name: {{ include "canary-bot.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "canary-bot.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "canary-bot.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "canary-bot.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "canary-bot.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "canary-bot.image" -}}
{{- if .Values.image.digest }}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest }}
{{- else }}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag | toString) }}
{{- end }}
{{- end }}

{{/* DaemonSet or Deployment, and that the settings fit it. */}}
{{- define "canary-bot.kind" -}}
{{- $named := ne (toString (get .Values.mesh "MESH_NAME")) "" }}
{{- $kind := default (ternary "Deployment" "DaemonSet" $named) .Values.kind }}
{{- if and $named (eq $kind "DaemonSet") }}
{{- fail "mesh.MESH_NAME names one bot, and a DaemonSet has one on every node: leave it out (each takes the name of its node), or set kind: Deployment" }}
{{- end }}
{{- if and $named (gt (int .Values.replicaCount) 1) }}
{{- fail "mesh.MESH_NAME names one bot, and replicaCount is larger than 1: leave the name out (each takes the name of its pod), or set replicaCount: 1" }}
{{- end }}
{{- if and (include "canary-bot.tlsSecret" .) (eq $kind "DaemonSet") }}
{{- fail "tls gives all bots one certificate, and each bot of a DaemonSet is dialled at an address of its own: use meshToken, or mount a certificate of each node by extraVolumes and name it in mesh.MESH_SERVER_CERT_PATH" }}
{{- end }}
{{- if and .Values.podMonitor.create .Values.serviceMonitor.create }}
{{- fail "podMonitor.create and serviceMonitor.create scrape every bot twice: choose one" }}
{{- end }}
{{- $kind }}
{{- end }}

{{- define "canary-bot.tlsSecret" -}}
{{- if .Values.tls.existingSecret }}
{{- .Values.tls.existingSecret }}
{{- else if .Values.tls.certManager.enabled }}
{{- printf "%s-tls" (include "canary-bot.fullname" .) }}
{{- end }}
{{- end }}

{{- define "canary-bot.apiPort" -}}
{{- default 8080 (get .Values.mesh "MESH_API_PORT") | int }}
{{- end }}

{{- define "canary-bot.meshPort" -}}
{{- default 8081 (get .Values.mesh "MESH_LISTEN_PORT") | int }}
{{- end }}

{{- define "canary-bot.peers" -}}
{{- printf "%s-peers" (include "canary-bot.fullname" .) }}
{{- end }}

{{/* Where the bots join: each other where there are several, then other sites, then what was given. */}}
{{- define "canary-bot.targets" -}}
{{- $targets := list }}
{{- if or (eq (include "canary-bot.kind" .) "DaemonSet") (gt (int .Values.replicaCount) 1) }}
{{- $targets = append $targets (printf "dns:%s.%s.svc:%s" (include "canary-bot.peers" .) .Release.Namespace (include "canary-bot.meshPort" .)) }}
{{- end }}
{{- $targets = concat $targets .Values.externalPeers }}
{{- with get .Values.mesh "MESH_TARGET" }}
{{- $targets = append $targets . }}
{{- end }}
{{- join "," $targets }}
{{- end }}

{{/* The Secret and the key of the API's token; nothing if each bot makes its own. */}}
{{- define "canary-bot.tokenSecret" -}}
{{- if .Values.auth.existingSecret.name }}
{{- .Values.auth.existingSecret.name }}
{{- else if .Values.auth.token }}
{{- printf "%s-auth" (include "canary-bot.fullname" .) }}
{{- end }}
{{- end }}

{{- define "canary-bot.tokenKey" -}}
{{- ternary .Values.auth.existingSecret.key "token" (ne .Values.auth.existingSecret.name "") }}
{{- end }}

{{/* How a Prometheus presents itself. */}}
{{- define "canary-bot.authorization" -}}
{{- if .own }}
authorization:
  credentials:
    name: {{ include "canary-bot.fullname" .root }}-monitor
    key: token
{{- else if include "canary-bot.tokenSecret" .root }}
authorization:
  credentials:
    name: {{ include "canary-bot.tokenSecret" .root }}
    key: {{ include "canary-bot.tokenKey" .root }}
{{- else if get .root.Values.mesh "MESH_TOKEN" }}
authorization:
  credentials:
    name: {{ include "canary-bot.fullname" .root }}-env
    key: MESH_TOKEN
{{- else }}
{{- fail "each bot would make a token of its own, and Prometheus could present none: set auth.existingSecret.name or auth.token" }}
{{- end }}
{{- end }}

{{/* How a Prometheus reaches the API. */}}
{{- define "canary-bot.scheme" -}}
{{- if include "canary-bot.tlsSecret" . }}
scheme: https
tlsConfig:
  ca:
    secret:
      name: {{ include "canary-bot.tlsSecret" . }}
      key: ca.crt
  serverName: {{ include "canary-bot.joinHost" . }}
{{- else }}
scheme: http
{{- end }}
{{- end }}

{{- define "canary-bot.joinHost" -}}
{{- $given := toString (get .Values.mesh "MESH_JOIN_ADDRESS") }}
{{- default (printf "%s-mesh.%s.svc" (include "canary-bot.fullname" .) .Release.Namespace) (regexReplaceAll ":[0-9]+$" $given "") }}
{{- end }}

{{/* Variables of which nobody should read the value in a ConfigMap. */}}
{{- define "canary-bot.secretVariables" -}}
MESH_TOKEN,MESH_MESH_TOKEN,MESH_SERVER_KEY
{{- end }}
