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
{{- if and (include "canary-bot.tlsSecret" .) (or (eq $kind "DaemonSet") (gt (int .Values.replicaCount) 1)) }}
{{- fail "tls gives all bots one certificate, and several bots are dialled at addresses of their own: use meshToken, or mount a certificate of each node by extraVolumes and name it in mesh.MESH_SERVER_CERT_PATH" }}
{{- end }}
{{- $mode := toString (get .Values.mesh "MESH_TLS") }}
{{- if and (include "canary-bot.tlsSecret" .) (ne $mode "") (ne $mode "mutual") }}
{{- fail (printf "tls makes the ports speak TLS, and mesh.MESH_TLS is %s: remove one of them" $mode) }}
{{- end }}
{{- range $which := list "api" "mesh" }}
{{- $ingress := get $.Values.ingress $which }}
{{- if and $ingress.enabled (not $ingress.hosts) }}
{{- fail (printf "ingress.%s.hosts is empty: name a host, such as [{host: canary.example.net}]" $which) }}
{{- end }}
{{- end }}
{{- if and (or .Values.ingress.mesh.enabled .Values.gateway.mesh.enabled) (ne $mode "edge") (not (include "canary-bot.servesTls" .)) }}
{{- fail "an ingress or a gateway in front of the mesh port ends TLS: set mesh.MESH_TLS=edge, so that the bots dial TLS" }}
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

{{/* Not empty if both ports speak TLS themselves. */}}
{{- define "canary-bot.servesTls" -}}
{{- $mode := toString (get .Values.mesh "MESH_TLS") }}
{{- $given := or (include "canary-bot.tlsSecret" .) (get .Values.mesh "MESH_SERVER_CERT_PATH") (get .Values.mesh "MESH_SERVER_CERT") }}
{{- if or (eq $mode "mutual") (and (eq $mode "") $given) }}yes{{ end }}
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

{{/* The token that a Prometheus presents, where it is in the values; of a list of them the first. */}}
{{- define "canary-bot.monitorToken" -}}
{{- if or .Values.podMonitor.create .Values.serviceMonitor.create }}
{{- if and .Values.serviceMonitor.create .Values.serviceMonitor.token }}
{{- .Values.serviceMonitor.token }}
{{- else if not (include "canary-bot.tokenSecret" .) }}
{{- with get .Values.mesh "MESH_TOKEN" }}{{ include "canary-bot.text" . | splitList "," | first | trim }}{{ end }}
{{- end }}
{{- end }}
{{- end }}

{{/* How a Prometheus presents itself. */}}
{{- define "canary-bot.authorization" -}}
{{- if not (or (include "canary-bot.tokenSecret" .) (get .Values.mesh "MESH_TOKEN")) }}
{{- fail "each bot would make a token of its own, and Prometheus could present none: set auth.existingSecret.name, auth.token or mesh.MESH_TOKEN" }}
{{- end }}
authorization:
  credentials:
    {{- if include "canary-bot.monitorToken" . }}
    name: {{ include "canary-bot.fullname" . }}-monitor
    key: token
    {{- else }}
    name: {{ include "canary-bot.tokenSecret" . }}
    key: {{ include "canary-bot.tokenKey" . }}
    {{- end }}
{{- end }}

{{/* How a Prometheus reaches the API. */}}
{{- define "canary-bot.scheme" -}}
{{- if include "canary-bot.servesTls" . }}
scheme: https
tlsConfig:
  {{- if include "canary-bot.tlsSecret" . }}
  ca:
    secret:
      name: {{ include "canary-bot.tlsSecret" . }}
      key: ca.crt
  serverName: {{ include "canary-bot.joinHost" . }}
  {{- else }}
  # The certificates are mounted by the values: which authority signed them is not known here.
  insecureSkipVerify: true
  {{- end }}
{{- else }}
scheme: http
{{- end }}
{{- end }}

{{- define "canary-bot.joinHost" -}}
{{- $given := toString (get .Values.mesh "MESH_JOIN_ADDRESS") }}
{{- default (printf "%s-mesh.%s.svc" (include "canary-bot.fullname" .) .Release.Namespace) (regexReplaceAll ":[0-9]+$" $given "") }}
{{- end }}

{{/* A value as the bot reads it: Helm holds numbers of values files as floats. */}}
{{- define "canary-bot.text" -}}
{{- if and (kindIs "float64" .) (eq (floor .) .) }}{{ . | int64 | toString }}{{ else }}{{ . | toString }}{{ end }}
{{- end }}

{{/* Variables of which nobody should read the value in a ConfigMap. */}}
{{- define "canary-bot.secretVariables" -}}
MESH_TOKEN,MESH_MESH_TOKEN,MESH_SERVER_KEY
{{- end }}
