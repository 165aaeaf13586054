{{- define "canary-bot.pod" -}}
{{- $kind := include "canary-bot.kind" . }}
{{- $namesItself := and (eq $kind "Deployment") (eq (int .Values.replicaCount) 1) }}
{{- $secrets := dict }}
{{- range splitList "," (include "canary-bot.secretVariables" .) }}
{{- with get $.Values.mesh . }}{{ $_ := set $secrets (. | toString) true }}{{ end }}
{{- end }}
metadata:
  labels:
    {{- include "canary-bot.selectorLabels" . | nindent 4 }}
    {{- with .Values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  annotations:
    # A change of the settings restarts the pods; nothing else does.
    checksum/config: {{ include (print $.Template.BasePath "/configmap.yaml") . | sha256sum }}
    checksum/secret: {{ include (print $.Template.BasePath "/secret.yaml") . | sha256sum }}
    {{- with .Values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  # Variables of Services, such as MESH_PORT of one that is called mesh, are none of the bot's settings.
  enableServiceLinks: false
  serviceAccountName: {{ include "canary-bot.serviceAccountName" . }}
  automountServiceAccountToken: {{ .Values.zoneFromNode }}
  terminationGracePeriodSeconds: {{ .Values.terminationGracePeriodSeconds }}
  {{- if .Values.hostNetwork }}
  hostNetwork: true
  dnsPolicy: ClusterFirstWithHostNet
  {{- end }}
  {{- with .Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- with .Values.podSecurityContext }}
  securityContext:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  containers:
    - name: canary-bot
      image: {{ include "canary-bot.image" . }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      args: [run]
      env:
        {{- if not $namesItself }}
        - name: MESH_NAME
          valueFrom:
            fieldRef:
              fieldPath: {{ ternary "spec.nodeName" "metadata.name" (eq $kind "DaemonSet") }}
        {{- end }}
        {{- if .Values.zoneFromNode }}
        - name: MESH_KUBERNETES_NODE
          valueFrom:
            fieldRef:
              fieldPath: spec.nodeName
        {{- end }}
        {{- if include "canary-bot.tokenSecret" . }}
        - name: MESH_TOKEN_FILE
          value: /etc/canary-bot/api/token
        {{- end }}
        {{- if .Values.meshToken.existingSecret.name }}
        - name: MESH_MESH_TOKEN_FILE
          value: /etc/canary-bot/mesh/token
        {{- end }}
        {{- with .Values.addEnv }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      envFrom:
        - configMapRef:
            name: {{ include "canary-bot.fullname" . }}
        {{- if $secrets }}
        - secretRef:
            name: {{ include "canary-bot.fullname" . }}-env
        {{- end }}
      ports:
        - name: apiport
          containerPort: {{ include "canary-bot.apiPort" . }}
          protocol: TCP
        - name: meshport
          containerPort: {{ include "canary-bot.meshPort" . }}
          protocol: TCP
      # Names and the labels of the node are looked up before the ports are served.
      startupProbe:
        httpGet:
          path: /livez
          port: apiport
          scheme: {{ ternary "HTTPS" "HTTP" (ne (include "canary-bot.servesTls" .) "") }}
        periodSeconds: 2
        failureThreshold: 30
        timeoutSeconds: 3
      livenessProbe:
        httpGet:
          path: /livez
          port: apiport
          scheme: {{ ternary "HTTPS" "HTTP" (ne (include "canary-bot.servesTls" .) "") }}
        periodSeconds: 10
        timeoutSeconds: 3
      readinessProbe:
        httpGet:
          path: /readyz
          port: apiport
          scheme: {{ ternary "HTTPS" "HTTP" (ne (include "canary-bot.servesTls" .) "") }}
        periodSeconds: 5
        timeoutSeconds: 3
      {{- with .Values.resources }}
      resources:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with .Values.securityContext }}
      securityContext:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      volumeMounts:
        {{- if include "canary-bot.tokenSecret" . }}
        - name: api-token
          mountPath: /etc/canary-bot/api
          readOnly: true
        {{- end }}
        {{- if .Values.meshToken.existingSecret.name }}
        - name: mesh-token
          mountPath: /etc/canary-bot/mesh
          readOnly: true
        {{- end }}
        {{- if include "canary-bot.tlsSecret" . }}
        - name: tls
          mountPath: /etc/canary-bot/tls
          readOnly: true
        {{- end }}
        {{- if .Values.caRootGlobalCert }}
        - name: ca-root-global-cert
          mountPath: /cert
          readOnly: true
        {{- end }}
        {{- with .Values.extraVolumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
  volumes:
    {{- if include "canary-bot.tokenSecret" . }}
    - name: api-token
      secret:
        secretName: {{ include "canary-bot.tokenSecret" . }}
        defaultMode: 0440
        items:
          - key: {{ include "canary-bot.tokenKey" . }}
            path: token
    {{- end }}
    {{- if .Values.meshToken.existingSecret.name }}
    - name: mesh-token
      secret:
        secretName: {{ .Values.meshToken.existingSecret.name }}
        defaultMode: 0440
        items:
          - key: {{ .Values.meshToken.existingSecret.key }}
            path: token
    {{- end }}
    {{- if include "canary-bot.tlsSecret" . }}
    - name: tls
      secret:
        secretName: {{ include "canary-bot.tlsSecret" . }}
        defaultMode: 0440
    {{- end }}
    {{- if .Values.caRootGlobalCert }}
    - name: ca-root-global-cert
      configMap:
        name: {{ include "canary-bot.fullname" . }}-ca
    {{- end }}
    {{- with .Values.extraVolumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with .Values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
