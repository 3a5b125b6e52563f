{{- define "driftline.labels" -}}
app.kubernetes.io/name: driftline
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* A container's environment and mounts, and what it may do. */}}
{{- define "driftline.container" -}}
image: "{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}"
imagePullPolicy: {{ .Values.image.pullPolicy }}
{{- with .Values.secret }}
envFrom: [{secretRef: {name: {{ . }}}}]
{{- end }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
volumeMounts:
  - {name: settings, mountPath: /etc/driftline, readOnly: true}
  - {name: data, mountPath: /var/lib/driftline}
  - {name: tmp, mountPath: /tmp}
  {{- if .Values.files }}
  - {name: files, mountPath: /run/secrets/driftline, readOnly: true}
  {{- end }}
{{- end }}

{{/* The pod of one process: a dict of root, name (its key in the values), port (its metrics'; 0: it has none) and args. */}}
{{- define "driftline.pod" -}}
{{- $values := index .root.Values .name -}}
metadata:
  labels:
    {{- include "driftline.labels" .root | nindent 4 }}
    app.kubernetes.io/component: {{ .name }}
  annotations:
    checksum/settings: {{ toYaml .root.Values.settings | sha256sum }}
    {{- if .port }}
    prometheus.io/scrape: "true"
    prometheus.io/port: {{ .port | quote }}
    {{- end }}
    {{- with .root.Values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  # Kubernetes' own variables of a service called driftline would read like settings.
  enableServiceLinks: false
  automountServiceAccountToken: {{ ne .root.Values.serviceAccount "" }}
  {{- with .root.Values.serviceAccount }}
  serviceAccountName: {{ . }}
  {{- end }}
  {{- with .root.Values.imagePullSecrets }}
  imagePullSecrets: {{ toYaml . | nindent 4 }}
  {{- end }}
  {{- with .root.Values.nodeSelector }}
  nodeSelector: {{ toYaml . | nindent 4 }}
  {{- end }}
  {{- with .root.Values.tolerations }}
  tolerations: {{ toYaml . | nindent 4 }}
  {{- end }}
  terminationGracePeriodSeconds: 90
  securityContext:
    runAsNonRoot: true
    runAsUser: 10001
    runAsGroup: 10001
    fsGroup: 10001
    seccompProfile: {type: RuntimeDefault}
  initContainers:
    # Topics that are missing, and this pod's copy of the feature repository: it may run any number of times.
    - name: init
      args: [init, -s, /etc/driftline/settings.yaml, --redis, {{ .root.Values.redis | quote }}]
      resources: {requests: {cpu: 100m, memory: 512Mi}, limits: {memory: 1Gi}}
      {{- include "driftline.container" .root | nindent 6 }}
  containers:
    - name: {{ .name }}
      args: {{ concat .args (list "-s" "/etc/driftline/settings.yaml") | toJson }}
      resources: {{ toYaml $values.resources | nindent 8 }}
      {{- if .port }}
      ports:
        - {name: metrics, containerPort: {{ .port }}}
        {{- if eq .name "replica" }}
        - {name: grpc, containerPort: {{ .root.Values.settings.serving.port }}}
        {{- end }}
      startupProbe: {httpGet: {path: /healthz, port: metrics}, periodSeconds: 5, failureThreshold: 36}
      livenessProbe: {httpGet: {path: /healthz, port: metrics}, periodSeconds: 15, timeoutSeconds: 5}
      readinessProbe: {httpGet: {path: /readyz, port: metrics}, periodSeconds: 5, timeoutSeconds: 3}
      {{- end }}
      {{- if eq .name "replica" }}
      # Clients learn that the pod goes before it stops to take calls; then it drains.
      lifecycle: {preStop: {sleep: {seconds: 10}}}
      {{- end }}
      {{- include "driftline.container" .root | nindent 6 }}
  volumes:
    - name: settings
      configMap: {name: {{ .root.Release.Name }}-settings}
    - name: tmp
      emptyDir: {}
    {{- if .root.Values.files }}
    - name: files
      secret: {secretName: {{ .root.Values.files }}}
    {{- end }}
    {{- if or (eq .name "replica") (eq .name "rows") }}
    - name: data
      emptyDir: {}
    {{- end }}
{{- end }}
